"""Starting weights of a model: those of an encoder that this package has exported."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from orchestra_strategy.encoder_file import CONFIG_FILE, WEIGHTS_FILE, load_encoder
from orchestra_strategy.errors import ModelError
from orchestra_strategy.files import PathLike

__all__ = ["start_digest", "start_from"]

_MUST_FIT = ("backbone", "in_channels", "norm")


def start_from(model: torch.nn.Module, path: PathLike, options: dict[str, Any]) -> None:
    """Give a model the weights of an exported encoder.

    The backbone's have to fit; projector and heads get theirs where the file has some of the same
    name and shape, and else keep their own.

    Args:
        model: Made by ``options``.
        path: As of :func:`~orchestra_strategy.load_encoder`.
        options: Arguments of :func:`~orchestra_strategy.orchestra_model`.

    Raises:
        ModelError: There is no such encoder, or it is of another backbone.
    """
    trained = load_encoder(path)
    for name in _MUST_FIT:
        if trained.options[name] != options[name]:
            raise ModelError(
                f"Expected `weights` to be those of an encoder with {name}={options[name]!r}, got "
                f"{trained.options[name]!r} in `{path}`; change the model, or give another file."
            )
    own, given = model.state_dict(), trained.model.state_dict()
    fitting = {n: t for n, t in given.items() if n in own and own[n].shape == t.shape}
    model.load_state_dict({**own, **fitting})


def start_digest(path: PathLike) -> str:
    """Return a digest of an exported encoder's weights, which all parties have to start from.

    Raises:
        ModelError: There is no such file.
    """
    folder = Path(path).expanduser()
    if folder.name in (WEIGHTS_FILE, CONFIG_FILE):
        folder = folder.parent
    try:
        return hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(
            f"Expected `weights` to be the folder of an exported encoder, got `{path}`: "
            f"{error.strerror or error}."
        ) from error
