"""``orchestra-fl partition``: one data set dealt out to several parties, for simulations."""

import argparse
import io
from pathlib import Path
from typing import Any

from orchestra_strategy.commands.data_arguments import add_data_option, labels_of, read_path
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.errors import ParameterError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "deal one data set out to several parties, for a simulation"


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "data", metavar="DATA", help="images or a table, or digits for scikit-learn's"
    )
    add_data_option(parser)
    parser.add_argument(
        "--parties", nargs="+", required=True, metavar="NAME", help="a file is written for each"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for NAME.npz")
    parser.add_argument(
        "--how",
        choices=["iid", "dirichlet", "shards"],
        default="iid",
        help="at random; by label, unevenly; or a few labels for each (iid)",
    )
    parser.add_argument(
        "--alpha", type=float, default=0.5, help="of dirichlet: small is uneven (0.5)"
    )
    parser.add_argument("--shards", type=int, default=2, help="of shards: labels per party (2)")
    parser.add_argument(
        "--min-size", type=int, default=1, help="of dirichlet: least samples of a party (1)"
    )
    parser.add_argument(
        "--test-fraction", type=float, default=0.0, help="kept back in test.npz, at random (0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all draws (0)")


def run(arguments: argparse.Namespace) -> int:
    """Write a file for each party, and one for tests."""
    import numpy as np

    from orchestra_strategy.files import write_private
    from orchestra_strategy.rng import numpy_generator

    names = [*arguments.parties, *(["test"] if arguments.test_fraction else [])]
    files = _files(arguments.out, names)
    if not 0 <= arguments.test_fraction < 1:
        raise ParameterError(
            f"Expected `--test-fraction` to be in [0, 1), got {arguments.test_fraction:g}."
        )
    data = _read(arguments)
    order = numpy_generator(arguments.seed, "partition", 0, "test").permutation(len(data))
    num_test = round(arguments.test_fraction * len(data))
    rest = np.sort(order[num_test:])
    parts = [rest[part] for part in _parts(arguments, data, rest)]
    parts += [np.sort(order[:num_test])] if arguments.test_fraction else []
    for name, path, rows in zip(names, files, parts, strict=True):
        arrays = {"x": np.asarray(data.samples[rows])}
        if data.labels is not None:
            arrays["y"] = data.labels[rows]
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_private(path, buffer.getvalue())
        print(f"{path}: {len(rows)} samples{_classes(name, arrays)}")
    return 0


def _read(arguments: argparse.Namespace) -> Any:
    """Return the data set: scikit-learn's digits, or what is in a path."""
    if arguments.data != "digits" or Path("digits").exists():
        return read_path(arguments.data, arguments)
    from sklearn.datasets import load_digits

    from orchestra_strategy.data import LocalData

    if arguments.data_option:
        raise ParameterError(
            "Expected no `--data-option` for scikit-learn's digits, got "
            f"{arguments.data_option[0]!r}."
        )
    digits = load_digits()
    return LocalData((digits.images / 16.0).astype("float32"), digits.target.astype("int64"))


def _files(folder: Path, names: list[str]) -> list[Path]:
    """Return the files to write, none of which may be there already."""
    if len(set(names)) != len(names) or any(Path(name).name != name for name in names):
        raise ParameterError(
            f"Expected `--parties` to be different names that make file names, got {names}."
        )
    files = [folder.expanduser() / f"{name}.npz" for name in names]
    there = [str(path) for path in files if path.exists()]
    if there:
        raise ParameterError(
            f"Expected `--out` to have no file of that name, got {there[0]}; remove it, or give "
            "another folder."
        )
    return files


def _parts(arguments: argparse.Namespace, data: Any, rest: Any) -> list[Any]:
    from orchestra_strategy.data import dirichlet_partition, iid_partition, shard_partition

    parties, seed = len(arguments.parties), arguments.seed
    if arguments.how == "iid":
        return iid_partition(len(rest), parties, seed)
    labels = labels_of(data, arguments.data)[rest]
    if arguments.how == "shards":
        return shard_partition(labels, parties, arguments.shards, seed)
    return dirichlet_partition(labels, parties, arguments.alpha, seed, arguments.min_size)


def _classes(name: str, arrays: dict[str, Any]) -> str:
    import numpy as np

    if "y" not in arrays:
        return ""
    classes, counts = np.unique(arrays["y"], return_counts=True)
    told = ", ".join(f"{c}: {n}" for c, n in zip(classes, counts, strict=True))
    return f", by class {told}"
