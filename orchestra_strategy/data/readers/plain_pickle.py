"""The part of the pickle format that data need: plain values and arrays of numbers.

Python's own reader lets a file call what it names, and numpy's lets it lay an array of any dtype
over any bytes: an array of objects is then one of addresses in memory. So neither is used. The
steps of a file are followed by the machine below, which has no step that calls anything: what a
file asks to be called is compared with the few names by which numpy and Python write arrays and
bytes, and each is carried out here, after its sizes have been checked.

References:
    Python's ``pickletools``, which documents every step of the format (protocols 0 to 5).
"""

import codecs
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from orchestra_strategy.data.readers.pickled_arrays import CALLS, Name, PickledArray, PickledDtype
from orchestra_strategy.errors import DataError

__all__ = ["MOST_BYTES", "MOST_STEPS", "read_plain_pickle"]

MOST_BYTES = 2**29
"""Of a file, 512 MiB: more than three times the largest batch of CIFAR."""

MOST_STEPS = 2**21
"""Of a file, about two million: a step of one byte can make an object of a hundred."""

_LONGEST_NUMBER = 24  # characters of a whole number that is written as text


def read_plain_pickle(path: Path) -> Any:
    """Return what a file holds: None, booleans, numbers, texts, bytes, lists, tuples, dictionaries.

    Arrays come as ``PickledArray``. What Python 2 wrote as a string is bytes.

    Args:
        path: A pickle of any protocol so far, 0 to 5.

    Raises:
        DataError: It is too large, broken, or refers to anything but plain values and arrays.
        OSError: It cannot be read.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > MOST_BYTES:
            raise DataError(
                f"Expected `{path}` to have at most {MOST_BYTES} bytes, got {size}: divide it into "
                "batches."
            )
        machine = _Machine(stream, size)
        try:
            return machine.run()
        except DataError as error:
            raise DataError(f"`{path}` is refused: {error}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError, struct.error):
            # Their texts would repeat what the file holds.
            raise DataError(
                f"Expected `{path}` to be a pickle of plain data, got broken bytes at step "
                f"{machine.steps}: get it anew from where it is from."
            ) from None


class _Machine:
    """A stack, a memory by number, and one method for each kind of step."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.steps = 0
        self._stream = stream
        self._left = size  # bytes of the file
        self._encoded = size  # bytes that may still be made of texts
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []  # the stacks below the marks
        self._memory: dict[int, Any] = {}

    def run(self) -> Any:
        """Follow the steps up to the last; return what is on top."""
        while (code := self._read(1)) != b".":
            self.steps += 1
            if self.steps > MOST_STEPS:
                raise DataError(f"Expected at most {MOST_STEPS} steps of a pickle, got more.")
            if code not in _STEPS:
                raise DataError(
                    f"Expected a pickle of plain data, got step {code!r}, which such data do not "
                    "need: get the file anew from a source that you trust."
                )
            _STEPS[code](self)
        return self._stack.pop()

    # ---- Bytes -----------------------------------------------------------------------------

    def _read(self, count: int) -> bytes:
        """Return the next bytes; nothing is set aside for more than there are."""
        if not 0 <= count <= self._left:
            raise ValueError("the file ends here")
        self._left -= count
        return self._stream.read(count)

    def _line(self) -> bytes:
        line = self._stream.readline(self._left)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise ValueError("the file ends here")
        return line[:-1]

    def _number(self, form: str) -> int:
        (number,) = struct.unpack(form, self._read(struct.calcsize(form)))
        return int(number)

    def _whole(self) -> int:
        line = self._line()
        if len(line) > _LONGEST_NUMBER:
            raise ValueError("a number that is too long")
        return int(line.rstrip(b"L"))

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    # ---- Steps: values ---------------------------------------------------------------------

    def int_line(self) -> None:
        """A whole number as text; ``00`` and ``01`` are booleans."""
        line = self._line()
        if line in (b"00", b"01"):
            self.push(line == b"01")
        elif len(line) > _LONGEST_NUMBER:
            raise ValueError("a number that is too long")
        else:
            self.push(int(line))

    def long_line(self) -> None:
        """A whole number as text, with an L behind it."""
        self.push(self._whole())

    def long_bytes(self) -> None:
        """A whole number of up to 255 bytes."""
        self.push(int.from_bytes(self._read(self._number("<B")), "little", signed=True))

    def string_line(self) -> None:
        """A string of Python 2 in quotes."""
        line = self._line()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise ValueError("a string without quotes")
        self.push(codecs.escape_decode(line[1:-1])[0])

    def text_line(self) -> None:
        """A text of protocol 0."""
        self.push(str(self._line(), "raw-unicode-escape"))

    def bytes_of(self, form: str) -> None:
        """Bytes, or a string of Python 2, behind their length."""
        self.push(self._read(self._number(form)))

    def text_of(self, form: str) -> None:
        """A text behind its length."""
        self.push(str(self._read(self._number(form)), "utf-8", "surrogatepass"))

    def float_line(self) -> None:
        """A number as text."""
        line = self._line()
        if len(line) > _LONGEST_NUMBER + 8:
            raise ValueError("a number that is too long")
        self.push(float(line))

    def float_bytes(self) -> None:
        """A number of 8 bytes."""
        self.push(struct.unpack(">d", self._read(8))[0])

    # ---- Steps: containers -----------------------------------------------------------------

    def mark(self) -> None:
        """Begin a row of values."""
        self._marks.append(self._stack)
        self._stack = []

    def _row(self) -> list[Any]:
        row, self._stack = self._stack, self._marks.pop()
        return row

    def tuple_of(self, count: int | None) -> None:
        """A tuple of the last values, of the row where ``count`` is None."""
        row = self._row() if count is None else [self._stack.pop() for _ in range(count)][::-1]
        self.push(tuple(row))

    def list_of(self) -> None:
        """A list of the row."""
        self.push(self._row())

    def dict_of(self) -> None:
        """A dictionary of the row."""
        row = self._row()
        self.push({})
        self._set(row)

    def append(self) -> None:
        """Put one value into a list."""
        value = self._stack.pop()
        self._top(list).append(value)

    def appends(self) -> None:
        """Put the row into a list."""
        row = self._row()
        self._top(list).extend(row)

    def set_item(self) -> None:
        """Put one value into a dictionary."""
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self) -> None:
        """Put the row into a dictionary."""
        self._set(self._row())

    def _set(self, row: list[Any]) -> None:
        for key, value in zip(row[::2], row[1::2], strict=True):
            if not isinstance(key, str | bytes):  # to hash a deep tuple can end the process
                raise DataError(f"Expected keys to be names, got {type(key).__name__}.")
            self._top(dict)[key] = value

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise ValueError("a container is missing")
        return self._stack[-1]

    # ---- Steps: memory, names, calls -------------------------------------------------------

    def put(self, number: int) -> None:
        """Remember what is on top."""
        self._memory[number] = self._stack[-1]

    def get(self, number: int) -> None:
        """Put what is remembered on the stack."""
        self.push(self._memory[number])

    def name(self, module: Any, name: Any) -> None:
        """A name, which is only allowed where it stands for a part of an array, or for bytes."""
        self.push(Name.allowed(module, name))

    def call(self) -> None:
        """Carry out what a name stands for."""
        arguments, name = self._stack.pop(), self._stack.pop()
        if type(name) is not Name or name not in CALLS or type(arguments) is not tuple:
            raise DataError("Expected a call of a known name, got another: get the file anew.")
        made = CALLS[name](*arguments)
        if type(made) is bytes:
            # A text is encoded once. To do so again and again would make much out of little.
            self._encoded -= len(made)
            if self._encoded < 0:
                raise DataError("Expected the bytes of a pickle to be in it, got repeated ones.")
        self.push(made)

    def build(self) -> None:
        """Give an array or a dtype its content."""
        state = self._stack.pop()
        if type(self._stack[-1]) not in (PickledArray, PickledDtype):
            raise DataError("Expected the state of an array, got that of another kind.")
        self._stack[-1].set_state(*state)


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(value)


def _skip(count: int) -> Callable[[_Machine], None]:
    """Pass over what only helps to read in large pieces: the protocol, and frames."""

    def step(machine: _Machine) -> None:
        machine._read(count)

    return step


_STEPS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": _skip(1),
    b"\x95": _skip(8),
    # Values.
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"I": _Machine.int_line,
    b"L": _Machine.long_line,
    b"J": lambda m: m.push(m._number("<i")),
    b"K": lambda m: m.push(m._number("<B")),
    b"M": lambda m: m.push(m._number("<H")),
    b"\x8a": _Machine.long_bytes,
    b"F": _Machine.float_line,
    b"G": _Machine.float_bytes,
    b"S": _Machine.string_line,
    b"T": lambda m: m.bytes_of("<i"),
    b"U": lambda m: m.bytes_of("<B"),
    b"C": lambda m: m.bytes_of("<B"),
    b"B": lambda m: m.bytes_of("<I"),
    b"\x8e": lambda m: m.bytes_of("<Q"),
    b"\x96": lambda m: m.bytes_of("<Q"),  # a bytearray; nothing here changes it
    b"V": _Machine.text_line,
    b"\x8c": lambda m: m.text_of("<B"),
    b"X": lambda m: m.text_of("<I"),
    b"\x8d": lambda m: m.text_of("<Q"),
    # Containers.
    b"(": _Machine.mark,
    b")": lambda m: m.push(()),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"t": lambda m: m.tuple_of(None),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"l": _Machine.list_of,
    b"d": _Machine.dict_of,
    b"a": _Machine.append,
    b"e": _Machine.appends,
    b"s": _Machine.set_item,
    b"u": _Machine.set_items,
    # Memory, names, calls.
    b"p": lambda m: m.put(m._whole()),
    b"q": lambda m: m.put(m._number("<B")),
    b"r": lambda m: m.put(m._number("<I")),
    b"\x94": lambda m: m.put(len(m._memory)),
    b"g": lambda m: m.get(m._whole()),
    b"h": lambda m: m.get(m._number("<B")),
    b"j": lambda m: m.get(m._number("<I")),
    b"c": lambda m: m.name(m._line(), m._line()),
    b"\x93": lambda m: m.name(*[m._stack.pop() for _ in range(2)][::-1]),
    b"R": _Machine.call,
    b"b": _Machine.build,
}
