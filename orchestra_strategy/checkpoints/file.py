"""The file of a checkpoint: a line that says what it is, then tensors and plain values.

A file is read in this order: its first two lines, which any version of the package understands; the
schema, of which a newer one is refused; length and digest, so that a file that is cut off or
damaged is found before anything of it is used; then the values, by torch's loader for weights
alone, which builds tensors and plain containers and runs no code.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from orchestra_strategy.checkpoints.archive import ArchiveError, check_archive
from orchestra_strategy.errors import CheckpointError
from orchestra_strategy.files import PRIVATE, parse_json, write_bytes

__all__ = [
    "SCHEMA",
    "Label",
    "plain",
    "read_checkpoint",
    "read_label",
    "write_checkpoint",
]

SCHEMA = 1
"""Of the files that this version writes; it reads those up to it."""

_MAGIC = b"orchestra-strategy checkpoint\n"
_LONGEST_LABEL = 65536


class Label(NamedTuple):
    """What a checkpoint says of itself.

    Attributes:
        owner: The party's name.
        round_index: Rounds done.
        digest: Of the averaged weights at that time, which are the same at all parties: by it the
            files of one checkpoint know each other.
        parties: Who took part in the round, each of whom has a file of it.
    """

    owner: str
    round_index: int
    digest: str
    parties: tuple[str, ...]


def plain(value: Any, where: str = "state") -> Any:
    """Return a copy of tensors, on the CPU, and plain values; arrays become tensors.

    Args:
        value: The value, of nested dictionaries, lists and tuples.
        where: Named in the message.

    Raises:
        CheckpointError: Anything else is among them: the loader would refuse it when it is needed.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping) and all(isinstance(key, str | int) for key in value):
        return {key: plain(v, f"{where}/{key}") for key, v in value.items()}
    if isinstance(value, list | tuple):
        items = [plain(v, f"{where}/{i}") for i, v in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    raise CheckpointError(
        f"Expected `{where}` to be of tensors and plain values, got {type(value).__name__}, which "
        "a checkpoint cannot hold."
    )


def write_checkpoint(path: str | os.PathLike[str], label: Label, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, readable by its owner alone; the old file stays until it is whole.

    Raises:
        CheckpointError: The state has other things than tensors and plain values.
        OSError: The file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(plain(state), buffer)
    body = buffer.getvalue()
    try:
        check_archive(body)
    except ArchiveError as error:
        raise CheckpointError(
            f"Expected a state that can be read back, got {error}; keep tensors of common dtypes."
        ) from None
    head = label._asdict() | {
        "schema": SCHEMA,
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    write_bytes(path, _MAGIC + json.dumps(head).encode() + b"\n" + body, mode=PRIVATE)


def read_label(path: str | os.PathLike[str]) -> Label:
    """Return what a checkpoint says of itself; of the rest only the length is looked at.

    Raises:
        CheckpointError: It is missing, of a newer schema, or cut off.
    """
    with _opened(path) as file:
        return _label(_head(path, file))


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[Label, dict[str, Any]]:
    """Read a checkpoint.

    Raises:
        CheckpointError: It is missing, of a newer schema, cut off, or damaged.
    """
    with _opened(path) as file:
        head = _head(path, file)
        body = file.read()
    if hashlib.sha256(body).hexdigest() != head["sha256"]:
        raise _damaged(path, "one whose content differs from what was written (SHA-256)")
    try:
        check_archive(body)
        state: Any = torch.load(io.BytesIO(body), weights_only=True)
    except MemoryError:
        raise
    except ArchiveError as error:
        raise _damaged(path, str(error)) from None
    except Exception as error:  # neither zipfile nor torch name an end to what they raise
        raise _damaged(path, f"one that cannot be loaded ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise _damaged(path, "one without a dictionary")
    return _label(head), state


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(
            f"Expected a checkpoint in `{path}`, got {error.strerror or error}."
        ) from None


def _label(head: Mapping[str, Any]) -> Label:
    return Label(head["owner"], head["round_index"], head["digest"], tuple(head["parties"]))


def _head(path: str | os.PathLike[str], file: BinaryIO) -> dict[str, Any]:
    """Read the first two lines, and leave the file where its body begins."""
    magic, line = file.readline(len(_MAGIC)), file.readline(_LONGEST_LABEL)
    if magic != _MAGIC:
        raise _damaged(path, "a file of another kind, or an empty one")
    try:
        head: Any = parse_json(line, _LONGEST_LABEL - 1)
    except ValueError:
        raise _damaged(path, "one whose first lines cannot be read") from None
    schema = head.get("schema") if isinstance(head, dict) else None
    if not isinstance(schema, int) or schema < 1:
        raise _damaged(path, "one without a schema")
    if schema > SCHEMA:
        raise CheckpointError(
            f"Expected `{path}` to have a schema of at most {SCHEMA}, got {schema}: a newer "
            "version of orchestra-strategy has written it; install that one."
        )
    types = {"owner": str, "round_index": int, "digest": str, "bytes": int, "sha256": str}
    types["parties"] = list
    known = all(isinstance(head.get(name), kind) for name, kind in types.items())
    if not known or not all(isinstance(party, str) for party in head["parties"]):
        raise _damaged(path, "one whose first lines are not complete")
    if head["bytes"] < 0 or head["round_index"] < 0:
        raise _damaged(path, "one whose first lines have numbers below zero")
    length = os.fstat(file.fileno()).st_size - file.tell()
    if length != head["bytes"]:
        raise _damaged(path, f"one that ends after {length} of {head['bytes']} bytes")
    return dict(head)


def _damaged(path: str | os.PathLike[str], got: str) -> CheckpointError:
    return CheckpointError(f"Expected `{path}` to be a whole checkpoint, got {got}.")
