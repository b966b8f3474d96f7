"""The archive of tensors in a checkpoint, checked before torch reads it.

torch makes a tensor's memory as long as the archive's index says, whatever the length of the bytes
that belong to it: what is behind them in the process's memory would be part of the tensor. It
unpacks what is compressed, however large that becomes, and makes arrays of bytes of any length that
the index asks for. None of this is what ``torch.save`` writes of tensors and plain values.
"""

import io
import pickletools
import zipfile
from typing import Any

__all__ = ["ArchiveError", "check_archive"]

_INDEX = "/data.pkl"
_PUTS = ("BINPUT", "LONG_BINPUT")
_GETS = ("BINGET", "LONG_BINGET")
_SIZES = {
    f"torch {name}Storage": size
    for size, names in {
        1: ("Bool", "Byte", "Char"),
        2: ("Short", "Half", "BFloat16"),
        4: ("Int", "Float"),
        8: ("Long", "Double", "ComplexFloat"),
        16: ("ComplexDouble",),
    }.items()
    for name in names
}
_NAMES = {*_SIZES, "torch._utils _rebuild_tensor_v2", "collections OrderedDict"}
_ATOMS = ("BINUNICODE", "GLOBAL", "BININT", "BININT1", "BININT2", "LONG1")


class ArchiveError(ValueError):
    """An archive that ``torch.save`` does not write; the message says of what kind it is."""


def check_archive(body: bytes) -> None:
    """Refuse an archive whose tensors take more memory than they have bytes in it.

    Args:
        body: What ``torch.save`` writes of tensors and plain values.

    Raises:
        ArchiveError: Members are compressed, or not as long as the index says, or the index names
            something else than tensors.
        Exception: It is broken in a way that ``zipfile`` or ``pickletools`` find, which name no end
            to what they raise.
    """
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        entries = archive.infolist()
        members = {member.filename: member for member in entries}
        packed = any(m.compress_type != zipfile.ZIP_STORED for m in entries)
        if packed or sum(m.file_size for m in entries) > len(body):
            raise ArchiveError("one whose values are compressed, which no checkpoint is written as")
        # Python and torch agree on an archive from the first byte on, without a name twice: torch
        # takes capital letters for small ones.
        names = {name.casefold() for name in members}
        indices = [name for name in members if name.endswith(_INDEX)]
        starts = [member.header_offset for member in entries]
        if len(indices) != 1 or len(names) != len(entries) or min(starts) != 0:
            raise ArchiveError("one without a single index")
        prefix = indices[0].removesuffix(_INDEX)
        for key, length in _lengths(archive.read(indices[0])):
            member = members.get(f"{prefix}/data/{key}")
            if member is None or member.file_size != length:
                raise ArchiveError("one whose tensors are longer or shorter than their bytes")


def _lengths(index: bytes) -> list[tuple[str, int]]:
    """Return key and bytes of each reference to a tensor's memory.

    torch writes such a reference as a row of five: a word, the type, the key, the device, and how
    many values there are. Each is written out, or was before and is recalled by its number.
    """
    found = []
    row: list[Any] = []
    memory: dict[Any, Any] = {}
    top: Any = None  # what was pushed by the step before, where that is known
    for step, argument, _ in pickletools.genops(index):
        if step.name == "GLOBAL" and argument not in _NAMES:
            raise ArchiveError("one whose index names something else than tensors")
        if step.name in _PUTS:
            memory[argument] = top
            continue
        if step.name == "BINPERSID":
            found.append(_reference(top))
        if step.name == "MARK":
            row, top = [], None
        elif step.name in _ATOMS:
            top = argument
            row.append(top)
        elif step.name in _GETS:
            top = memory.get(argument)
            row.append(top)
        elif step.name == "TUPLE":
            row, top = [None], tuple(row)
        else:
            # Anything else in a row makes it another one, which no reference is taken from.
            row, top = [None], None
    return found


def _reference(row: Any) -> tuple[str, int]:
    if isinstance(row, tuple) and len(row) == 5 and row[0] == "storage":
        _, kind, key, _, count = row
        if kind in _SIZES and isinstance(key, str) and isinstance(count, int):
            return key, count * _SIZES[kind]
    raise ArchiveError("one whose index refers to tensors in another way than torch does")
