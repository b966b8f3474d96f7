"""The text of a CSV file: its encoding, and a hint where the bytes are of another one."""

import codecs
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["check_encoding", "decoding", "open_text"]

_UTF8 = "utf-8-sig"  # with or without the mark that spreadsheets put in front
# Of those that tables come in; in a rule for many, nearly all bytes have a meaning.
_OTHERS = ("gb18030", "big5", "shift_jis", "euc_kr", "cp1251", "cp1252")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_START = 2**20  # bytes of which the hint is made


def check_encoding(encoding: str | None) -> str:
    """Return the codec of an encoding; None is UTF-8.

    Raises:
        ParameterError: Python knows no such encoding of text.
    """
    if encoding is None:
        return _UTF8
    try:
        "".encode(encoding)  # codecs that are for other things than text fail here
        name = codecs.lookup(encoding).name
    except (LookupError, TypeError, ValueError):
        raise ParameterError(
            "Expected `encoding` to be one that Python knows, such as 'gb18030', 'cp1252' or "
            f"'utf-16', got {encoding!r}."
        ) from None
    return _UTF8 if name == "utf-8" else name


def open_text(path: Path, codec: str) -> TextIO:
    """Open a file, packed or not, with its line breaks as they are."""
    return io.TextIOWrapper(_open_bytes(path), encoding=codec, newline="")


@contextmanager
def decoding(path: Path, codec: str) -> Iterator[None]:
    """Turn bytes that are no text of this encoding into a sentence, with those that would do.

    Raises:
        DataError: Instead of UnicodeDecodeError.
    """
    try:
        yield
    except UnicodeError as error:
        told = "UTF-8" if codec == _UTF8 else codec
        raise DataError(
            f"Expected `{path}` to be text in {told}, got other bytes: {_hint(path, error)}."
        ) from None


def _hint(path: Path, error: UnicodeError) -> str:
    """Return which encodings may be meant."""
    start = b""
    if isinstance(error, UnicodeDecodeError):
        with _open_bytes(path) as stream:
            start = stream.read(_START)
    if start.startswith(_UTF16_MARKS):
        return "they look like UTF-16; give `encoding='utf-16'`, or save it as UTF-8"
    # A character may be cut in two at the end of the block.
    fitting = [e for e in _OTHERS if _fits(start[:-4] if len(start) == _START else start, e)]
    listed = ", ".join(f"'{e}'" for e in fitting)
    return (
        "give its `encoding`"
        + (f" ({listed} would fit)" if fitting else "")
        + (", or save it as UTF-8")
    )


def _fits(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _open_bytes(path: Path) -> "gzip.GzipFile | io.BufferedReader":
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")
