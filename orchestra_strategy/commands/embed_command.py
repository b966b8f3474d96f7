"""``orchestra-fl embed``: features of samples, by a trained encoder, on this machine."""

import argparse
import io
from pathlib import Path
from typing import Any

from orchestra_strategy.commands.data_arguments import (
    add_data_option,
    add_encoder,
    features_of,
    read_path,
    writable,
)
from orchestra_strategy.commands.parser import SentenceParser

__all__ = ["HELP", "add_arguments", "run"]

HELP = "write a trained encoder's features of one's own samples"

_SUFFIXES = (".npy", ".npz", ".csv")


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    add_encoder(parser)
    parser.add_argument("data", metavar="DATA", help="images or a table, as for a training")
    add_data_option(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("features.npy"),
        metavar="FILE",
        help=".npy; .npz, with labels as y where there are any; or .csv (features.npy)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write one row of features per sample, in the order of the data."""
    from orchestra_strategy.encoder_file import load_encoder
    from orchestra_strategy.files import write_private

    out = writable(arguments.out, "--out", _SUFFIXES)
    trained = load_encoder(arguments.encoder)
    data = read_path(arguments.data, arguments, trained, labels_needed=False)
    features = features_of(trained, data, arguments.data)
    write_private(out, _content(out.suffix.lower(), features, data.labels))
    print(f"{out}: features of {features.shape[0]} samples, {features.shape[1]} each")
    return 0


def _content(suffix: str, features: Any, labels: Any) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, features)
    elif suffix == ".npz":
        np.savez(buffer, x=features, **({} if labels is None else {"y": labels}))
    else:
        header = ",".join(f"f{i}" for i in range(features.shape[1]))
        np.savetxt(buffer, features, delimiter=",", header=header, comments="", fmt="%.9g")
    return buffer.getvalue()
