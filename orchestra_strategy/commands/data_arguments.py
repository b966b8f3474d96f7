"""Arguments that commands share: a trained encoder, data on this machine, files to write."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra_strategy.commands.name_values import name_values
from orchestra_strategy.errors import DataError, ParameterError

if TYPE_CHECKING:
    from orchestra_strategy.commands.parser import SentenceParser
    from orchestra_strategy.data import LocalData
    from orchestra_strategy.trained_encoder import TrainedEncoder

__all__ = [
    "add_data_option",
    "add_encoder",
    "features_of",
    "labels_of",
    "read_path",
    "writable",
]

_OF_LABELS = ("label_column", "class_names")


def add_encoder(parser: SentenceParser) -> None:
    """Declare the trained encoder."""
    parser.add_argument(
        "encoder",
        type=Path,
        metavar="ENCODER",
        help="the `out_dir` of a training, or the folder of an export",
    )


def add_data_option(parser: SentenceParser) -> None:
    """Declare ``--data-option``."""
    parser.add_argument(
        "--data-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of reading, as `load_local` has it, its value as JSON; may be repeated",
    )


def read_path(
    path: str,
    arguments: argparse.Namespace,
    trained: TrainedEncoder | None = None,
    labels_needed: bool = True,
) -> LocalData:
    """Read images or a table of this machine.

    Args:
        path: The data.
        arguments: With ``--data-option``.
        trained: They are read as its training did, where ``--data-option`` does not say otherwise.
        labels_needed: Otherwise a table may lack the training's column of labels, as that of people
            who have not answered yet does.

    Raises:
        DataError: They cannot be read.
        ParameterError: An option is unknown.
    """
    from orchestra_strategy.data import load_local
    from orchestra_strategy.data.readers.loading import applicable, lacks_labels

    given = name_values("--data-option", arguments.data_option)
    as_trained = {} if trained is None else trained.data_options or {}
    options = applicable(as_trained, path)
    if not labels_needed and "label_column" not in given and lacks_labels(path, options):
        options = {name: options[name] for name in options if name not in _OF_LABELS}
    return load_local(path, **{**options, **given})


def labels_of(data: LocalData, path: str) -> Any:
    """Return the labels (n,) of data that have some.

    Raises:
        DataError: They have none.
    """
    if data.labels is None:
        raise DataError(
            f"Expected `{path}` to have labels, got none: sub-folders of an image folder, `y` of a "
            ".npz file, or `--data-option labels=...` of a table (see docs/data.md)."
        )
    return data.labels


def features_of(trained: TrainedEncoder, data: LocalData, path: str) -> Any:
    """Return the encoder's features (n, d) of data.

    Raises:
        DataError: The samples have another form than those of the training.
    """
    try:
        trained.check(data.samples, path)
    except DataError as error:
        told = str(error).rstrip(".")
        raise DataError(f"{told}; `--data-option` says how they are read.") from None
    return trained.features(data.samples)


def writable(path: Path, option: str, suffixes: tuple[str, ...] = ()) -> Path:
    """Return a path that a file can be written to, before hours of work go into it.

    Raises:
        ParameterError: It is a folder, its folder is missing, or it ends in another way.
    """
    path = path.expanduser()
    if suffixes and not path.name.lower().endswith(suffixes):
        raise ParameterError(f"Expected `{option}` to end in {', '.join(suffixes)}, got `{path}`.")
    if path.is_dir() or not path.parent.is_dir():
        found = "a folder" if path.is_dir() else f"no folder `{path.parent}`"
        raise ParameterError(f"Expected `{option}` to be a file in a folder, got {found}.")
    return path
