"""The trained encoder as files: its weights as safetensors, and beside them what it is, as JSON.

The weights are float32 arrays by the names that the model's ``state_dict`` has. Nothing of the
files is ever run, and no more bytes are read than the model has.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import safetensors
from safetensors.numpy import load, save

from orchestra_strategy.algorithms.model import OrchestraModel, orchestra_model
from orchestra_strategy.algorithms.own_network import fresh_network
from orchestra_strategy.errors import ModelError, OrchestraError
from orchestra_strategy.exchange.weights import PREFIX, read_weights, write_weights
from orchestra_strategy.files import PathLike, parse_json
from orchestra_strategy.global_randomness import first_weights_of
from orchestra_strategy.trained_encoder import TrainedEncoder

__all__ = [
    "CONFIG_FILE",
    "ONNX_FILE",
    "WEIGHTS_FILE",
    "load_encoder",
    "pack_encoder",
    "unpack_encoder",
]

WEIGHTS_FILE, CONFIG_FILE = "encoder.safetensors", "encoder.json"
ONNX_FILE = "encoder.onnx"
"""Beside the others where ONNX can express the encoder; :func:`load_encoder` does not need it."""

_SCHEMA = 1
_LONGEST_CONFIG = 2**24
_LONGEST_HEADER = 2**20  # of the weights: names, shapes and places of the arrays


def pack_encoder(
    weights: Mapping[str, Any],
    options: Mapping[str, Any],
    seed: int,
    strategy: str,
    rounds: int,
    data_options: Mapping[str, Any] | None = None,
    onnx: str = "not written",
    sample_shape: Sequence[int] | None = None,
) -> dict[str, bytes]:
    """Return the content of both files, by name.

    Args:
        weights: Arrays by name, as of :func:`~orchestra_strategy.exchange.weights.read_weights`.
        options: As of :class:`~orchestra_strategy.trained_encoder.TrainedEncoder`, like the rest.
        seed: As there.
        strategy: As there.
        rounds: As there.
        data_options: As there.
        onnx: A remark on the file of that kind.
        sample_shape: As of the encoder.

    Raises:
        ModelError: An option cannot be written as JSON.
    """
    arrays = {n.removeprefix(PREFIX): np.ascontiguousarray(w) for n, w in weights.items()}
    content = save(arrays)
    config = {
        "schema": _SCHEMA,
        "model": {**_of_the_model(options), "heads": list(options["heads"])},
        "seed": seed,
        "strategy": strategy,
        "rounds": rounds,
        "data_options": dict(data_options or {}),
        "sample_shape": None if sample_shape is None else list(sample_shape),
        "onnx": onnx,
        "weights_sha256": hashlib.sha256(content).hexdigest(),
    }
    try:
        text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"Expected `model` and `data_options` to be what JSON can express, got: {error}."
        ) from None
    return {WEIGHTS_FILE: content, CONFIG_FILE: f"{text}\n".encode()}


def _of_the_model(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options but for the file that a training has started from: it is of elsewhere."""
    own = {**options}
    own.pop("weights", None)
    return own


def _plain(value: Any) -> Any:
    """Return what JSON has in place of a number or an array of numpy, or of a path."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__}")


def load_encoder(path: PathLike, model: Any = None) -> TrainedEncoder:
    """Read a trained encoder; SecretFlow need not be installed.

    Args:
        path: The ``out_dir`` of a training, the folder of an export, or ``encoder.safetensors`` or
            ``encoder.json`` in it.
        model: Where a network of one's own was trained, that network or what builds it, as the
            trainer had it; its weights come from the file.

    Returns:
        The encoder, a scikit-learn transformer: ``load_encoder("out").transform(x)``.

    Raises:
        ModelError: It is missing, broken, or holds other arrays than its model has; or ``model`` is
            needed.
    """
    folder = Path(path).expanduser()
    if folder.name in (WEIGHTS_FILE, CONFIG_FILE) and not folder.is_dir():
        folder = folder.parent
    try:
        with (folder / CONFIG_FILE).open("rb") as config, (folder / WEIGHTS_FILE).open("rb") as ws:
            return unpack_encoder(config, ws, str(folder), model)
    except OSError as error:
        raise ModelError(
            f"Expected a trained encoder in `{path}` (`{WEIGHTS_FILE}` and `{CONFIG_FILE}`), got: "
            f"{error.strerror or error}. A training with `out_dir` writes one there."
        ) from error


def unpack_encoder(
    config: IO[bytes], weights: IO[bytes], name: str, model: Any = None
) -> TrainedEncoder:
    """Read the content of both files.

    Args:
        config: Of ``encoder.json``, such as an open file.
        weights: Of ``encoder.safetensors``.
        name: What they are called in messages.
        model: As of :func:`load_encoder`.

    Raises:
        ModelError: They are broken, do not belong together, or hold other arrays than the model.
    """
    try:
        return _read(config, weights, model)
    except OrchestraError as error:
        raise ModelError(f"Expected `{name}` to be a trained encoder; {error}") from error
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"Expected `{name}` to be a trained encoder, as a training writes it, got "
            f"{type(error).__name__}: {error}."
        ) from None


def _read(config: IO[bytes], weights: IO[bytes], own: Any) -> TrainedEncoder:
    about = parse_json(config.read(_LONGEST_CONFIG + 1), _LONGEST_CONFIG)
    if about["schema"] != _SCHEMA:
        raise ModelError(
            f"Expected schema {_SCHEMA}, got {about['schema']!r}: it was written by another "
            "version of this package."
        )
    options = {**_of_the_model(about["model"]), "heads": tuple(about["model"]["heads"])}
    model = _built(options, own)
    _fill(model, weights, about["weights_sha256"])
    return TrainedEncoder(
        model,
        options,
        int(about["seed"]),
        str(about["strategy"]),
        int(about["rounds"]),
        dict(about["data_options"]),
        None if about.get("sample_shape") is None else tuple(about["sample_shape"]),
        own,
    )


def _built(options: Mapping[str, Any], own: Any) -> OrchestraModel:
    """Return the network; its first weights will be overwritten."""
    if own is None and options["backbone"] is None:
        raise ModelError(
            f"Expected `model` beside the path, got none: a network of its owner's was trained "
            f"({options['own']}), which its files do not have; give it to "
            "`load_encoder(path, model=...)`, or use `encoder.onnx`."
        )
    named = {name: value for name, value in options.items() if name != "first_weights"}
    with first_weights_of(0):
        model = fresh_network(partial(orchestra_model, **named) if own is None else own)
    if not isinstance(model, OrchestraModel):
        raise ModelError(
            f"Expected `model` to be or to build an OrchestraModel, got {type(model).__name__}."
        )
    return model


def _fill(model: OrchestraModel, weights: IO[bytes], digest: str) -> None:
    """Write the arrays of a file into a model, if they are its own."""
    wanted = read_weights(model)
    most = sum(array.nbytes for array in wanted.values()) + _LONGEST_HEADER
    content = weights.read(most + 1)
    if len(content) > most:
        raise ModelError(f"Expected `{WEIGHTS_FILE}` to have {most} bytes at most, got more.")
    if hashlib.sha256(content).hexdigest() != digest:
        raise ModelError(
            f"Expected the digest of `{WEIGHTS_FILE}` that `{CONFIG_FILE}` has, got another: one "
            "of them is damaged, or they are of two trainings."
        )
    found = {PREFIX + name: array for name, array in load(content).items()}
    strange = sorted(found.keys() ^ wanted.keys())
    if strange:
        name = strange[0].removeprefix(PREFIX)
        rule = "no array" if strange[0] in found else "an array"
        raise ModelError(f"Expected {rule} `{name}` in `{WEIGHTS_FILE}`, as the model has it.")
    for name, weight in wanted.items():
        array, told = found[name], name.removeprefix(PREFIX)
        if (array.shape, array.dtype) != (weight.shape, weight.dtype):
            raise ModelError(
                f"Expected `{told}` to be {weight.dtype} {weight.shape}, got {array.dtype} "
                f"{array.shape}."
            )
        if not np.isfinite(array).all():
            raise ModelError(f"Expected `{told}` to be finite, got NaN or infinite values.")
    write_weights(model, found)
