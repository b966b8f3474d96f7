"""Paths of FLModel's ``save_model`` and ``load_model``: one file for each party."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from orchestra_strategy.errors import CheckpointError, ParameterError

__all__ = ["model_paths", "refuse_saved_model"]


def model_paths(
    model_path: Any, devices: Sequence[Any], is_test: bool, one_disk: bool
) -> dict[Any, str]:
    """Return the path of each party's file.

    Args:
        model_path: One for all, as each party sees it; or ``{PYU: path}``.
        devices: The parties.
        is_test: Whether the party's name becomes a folder in the path, as SecretFlow has it.
        one_disk: Whether all parties are on this machine.

    Raises:
        CheckpointError: It is no path, one is missing, or all parties would write the same file.
    """
    by_party = isinstance(model_path, Mapping)
    paths = dict(model_path) if by_party else dict.fromkeys(devices, model_path)
    missing = [device.party for device in devices if device not in paths]
    if missing:
        raise CheckpointError(
            f"Expected `model_path` to have a path for each party, got none for {missing}."
        )
    for device in devices:
        path = paths[device]
        if not isinstance(path, str | os.PathLike) or os.fspath(path).endswith(("/", os.sep)):
            raise CheckpointError(
                "Expected `model_path` to be the path of a file, such as 'models/encoder', or "
                f"{{PYU: path}}, got {path!r}."
            )
    if (
        one_disk
        and not is_test
        and len({os.path.abspath(paths[d]) for d in devices}) < len(devices)
    ):
        raise CheckpointError(
            f"Expected a file for each party where all are on one machine, got {model_path!r} for "
            "all: they would write over each other. Give `is_test=True`, which adds the party's "
            "name to the path, or {PYU: path}."
        )
    found = {}
    for device in devices:
        folder, name = os.path.split(os.fspath(paths[device]))
        own = str(device).strip("_") if is_test else ""
        found[device] = os.path.join(folder, own, name)
    return found


def refuse_saved_model(saved_model: bool) -> None:
    """Refuse a format that FLModel names and does not write.

    Raises:
        ParameterError: It is asked for.
    """
    if saved_model:
        raise ParameterError(
            "Expected `saved_model` to be False, got True: weights are saved here; "
            "`orchestra-fl export` writes an encoder for use without SecretFlow."
        )
