"""The trained encoder as a file: its weights, and the model that they belong to.

A ``.npz`` file of float32 arrays by the names that the manifest has, and of what the model is made
of, as JSON. Nothing of it is ever run, and no array is read that the model does not have.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from orchestra_strategy.algorithms.model import OrchestraModel, orchestra_model
from orchestra_strategy.errors import ModelError, OrchestraError
from orchestra_strategy.exchange.weights import read_weights, write_weights
from orchestra_strategy.files import PathLike, parse_json, write_private

__all__ = [
    "AGREED_FILE",
    "ENCODER_FILE",
    "TrainedEncoder",
    "agreed_options",
    "pack_encoder",
    "read_encoder",
    "unpack_encoder",
    "write_encoder",
]

ENCODER_FILE = "encoder.npz"
AGREED_FILE = "data_options.json"
"""Beside the encoder: how tables are read, where the parties have agreed on it."""

_ABOUT, _SCHEMA = "about.json", 1
_LONGEST_ABOUT = 2**16
_LONGEST_HEADER = 2**12  # of a .npy file, of which each array of a .npz file is one


@dataclass(frozen=True)
class TrainedEncoder:
    """What :func:`read_encoder` returns.

    Attributes:
        model: On the CPU, in evaluation mode.
        options: Arguments of :func:`~orchestra_strategy.orchestra_model` that made it.
        seed: Root seed of its training.
        strategy: Name of the strategy that trained it.
        rounds: Rounds of its training.
    """

    model: OrchestraModel
    options: dict[str, Any]
    seed: int
    strategy: str
    rounds: int

    def untrained(self) -> OrchestraModel:
        """Return the model as it was before training: the control."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return orchestra_model(**self.options).eval()


def agreed_options(path: PathLike) -> dict[str, Any]:
    """Return how tables are read for an encoder; nothing where nothing was agreed on.

    Args:
        path: As of :func:`read_encoder`.

    Raises:
        ModelError: The file beside the encoder is broken.
    """
    path = Path(path).expanduser()
    file = (path if path.is_dir() else path.parent) / AGREED_FILE
    if not file.is_file():
        return {}
    try:
        options = parse_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"Expected `{file}` to hold options of reading, got: {error}") from error
    if not isinstance(options, dict):
        raise ModelError(f"Expected `{file}` to hold options of reading, got another value.")
    return options


def write_encoder(
    path: PathLike,
    model: OrchestraModel,
    options: Mapping[str, Any],
    seed: int,
    strategy: str,
    rounds: int,
) -> None:
    """Write a trained model, for its owner alone; arguments as of :class:`TrainedEncoder`.

    Raises:
        OSError: The file cannot be written.
    """
    write_private(path, pack_encoder(read_weights(model), options, seed, strategy, rounds))


def pack_encoder(
    weights: Mapping[str, Any], options: Mapping[str, Any], seed: int, strategy: str, rounds: int
) -> bytes:
    """Return the content of the file.

    Args:
        weights: Arrays by name, as of :func:`~orchestra_strategy.exchange.weights.read_weights`.
        options: As of :class:`TrainedEncoder`, like the rest.
        seed: As there.
        strategy: As there.
        rounds: As there.
    """
    about = {
        "schema": _SCHEMA,
        "model": {**options, "heads": list(options["heads"])},
        "seed": seed,
        "strategy": strategy,
        "rounds": rounds,
    }
    text = json.dumps(about).encode("utf-8")
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {_ABOUT: np.frombuffer(text, np.uint8), **weights}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read_encoder(path: PathLike) -> TrainedEncoder:
    """Read what :func:`write_encoder` has written.

    Args:
        path: The file, or the folder of a training, which has it as ``encoder.npz``.

    Raises:
        ModelError: It is missing, broken, or holds other arrays than its model has.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / ENCODER_FILE
    try:
        with path.open("rb") as file:
            return unpack_encoder(file, str(path))
    except OSError as error:
        raise ModelError(
            f"Expected a trained encoder in `{path}`, got: {error.strerror or error}. A training "
            "with `out_dir` writes one there."
        ) from error


def unpack_encoder(file: IO[bytes], name: str) -> TrainedEncoder:
    """Read the content of the file.

    Args:
        file: Of :func:`pack_encoder`, such as an open file.
        name: What it is called in messages.

    Raises:
        ModelError: It is broken, or holds other arrays than its model has.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return _read(archive)
    except OrchestraError as error:
        raise ModelError(f"Expected `{name}` to be a trained encoder; {error}") from error
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError) as error:
        raise ModelError(
            f"Expected `{name}` to be a trained encoder, as a training writes it, got "
            f"{type(error).__name__}: {error}."
        ) from None


def _read(archive: zipfile.ZipFile) -> TrainedEncoder:
    about = parse_json(_array(archive, _ABOUT, _LONGEST_ABOUT).tobytes())
    if about["schema"] != _SCHEMA:
        raise ModelError(
            f"Expected schema {_SCHEMA}, got {about['schema']!r}: it was written by another "
            "version of this package."
        )
    options = {**about["model"], "heads": tuple(about["model"]["heads"])}
    with torch.random.fork_rng():  # its first weights are overwritten
        model = orchestra_model(**options)
    wanted = read_weights(model)
    arrays = {}
    for name, weight in wanted.items():
        arrays[name] = _array(archive, name, weight.nbytes)
        if (arrays[name].shape, arrays[name].dtype) != (weight.shape, weight.dtype):
            raise ModelError(
                f"Expected `{name}` to be {weight.dtype} {weight.shape}, got "
                f"{arrays[name].dtype} {arrays[name].shape}."
            )
        if not np.isfinite(arrays[name]).all():
            raise ModelError(f"Expected `{name}` to be finite, got NaN or infinite values.")
    write_weights(model, arrays)
    return TrainedEncoder(
        model.eval(), options, int(about["seed"]), str(about["strategy"]), int(about["rounds"])
    )


def _array(archive: zipfile.ZipFile, name: str, most_bytes: int) -> Any:
    """Read one array, if it is no longer than it may be."""
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > most_bytes + _LONGEST_HEADER:
        raise ModelError(f"Expected `{name}` to have {most_bytes} bytes at most, got more.")
    return np.load(io.BytesIO(archive.read(member)), allow_pickle=False)
