"""Changes of a method one at a time and together, on CIFAR: a list of points in, a table out.

    python -m experiments.ablation --data FOLDER --points points.json --out ablation --held-out

``points.json`` holds, by names of your choice, ``{"strategy": "orchestra", "parameters": {...}}``;
the parameters are put over those of the preset. Every point with every seed is one run, written to
``OUT/runs/POINT-SEED.json`` when it is done and not run again: an interrupted list goes on where it
was. With ``--held-out`` accuracies are those on training images that neither parties nor probes
have, which is what choices are made by; the test set is for what has been chosen.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.cifar import make_split, read_cifar
from experiments.cifar_report import spread
from experiments.runs import run_one
from experiments.settings import Experiment, load_experiment
from orchestra_strategy.errors import DataError, OrchestraError
from orchestra_strategy.evaluation import write_json
from orchestra_strategy.files import parse_json

__all__ = ["ablation_rows", "point_setting", "run_points"]

_HELD_OUT = 10_000  # as many as the test set has
_KEPT = ("curve", "seconds", "cpu_seconds", "ledger")
_COMMON = ("rounds", "alpha", "held_out")  # what the command line changes for all points


def point_setting(setting: Experiment, point: Mapping[str, Any]) -> tuple[str, Experiment]:
    """Return a point's strategy, and the experiment with its parameters over the common ones.

    Raises:
        DataError: The point has no ``strategy``, or fields beside it and ``parameters``.
    """
    if "strategy" not in point or point.keys() - {"strategy", "parameters"}:
        raise DataError(
            "Expected a point to have `strategy` and perhaps `parameters`, got "
            f"{', '.join(f'`{key}`' for key in point) or 'nothing'}."
        )
    name, _, _ = point["strategy"].partition("+")
    # A named point of Orchestra has Orchestra's sizes, unless the preset has its own.
    own = setting.only_for.get(name, setting.only_for.get(name.split("_")[0], {}))
    own = {**own, **point.get("parameters", {})}
    return point["strategy"], setting.model_copy(update={"only_for": {name: own}})


def run_points(
    setting: Experiment, points: Mapping[str, Any], data: str | Path, out: str | Path
) -> list[dict[str, Any]]:
    """Run what is missing, and return all runs of these points and seeds.

    Args:
        setting: What the points have in common; its seeds are used.
        points: Points by name.
        data: Folder of the images.
        out: Folder of the results.

    Returns:
        A run each: ``point``, ``seed``, ``curve``, ``seconds``, ``cpu_seconds``, ``ledger``.

    Raises:
        OrchestraError: The data or a point cannot be used, or ``out`` has runs of other settings.
    """
    folder = Path(out) / "runs"
    common = {name: getattr(setting, name) for name in _COMMON}
    wanted = {name: point_setting(setting, point) for name, point in points.items()}
    runs: list[dict[str, Any]] = []
    images = None
    for seed in setting.seeds:
        for name, (strategy, own) in wanted.items():
            file = folder / f"{name}-{seed}.json"
            if not file.is_file():
                images = images or read_cifar(data)
                split = make_split(*images, setting, seed)
                run = run_one(own, split, strategy, seed, None, _tell)
                kept = {key: run[key] for key in _KEPT}
                told = {"point": name, **points[name], "seed": seed, **common}
                write_json(file, {**told, **kept})
            runs.append(parse_json(file.read_bytes()))
            found = {name: runs[-1].get(name) for name in _COMMON}
            if found != common:
                raise DataError(
                    f"Expected `out` to have runs of {common}, got {found} in `{file}`; use "
                    "another folder."
                )
    return runs


def _tell(line: str) -> None:
    print(line, file=sys.__stdout__, flush=True)


def ablation_rows(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return headers and rows: a point each, with its accuracies at every round that was measured.

    Args:
        runs: As of :func:`run_points`.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["point"], []).append(run)
    rounds = sorted({row["round"] for run in runs for row in run["curve"]})
    rows = []
    for name, same in groups.items():
        at = [[row for run in same for row in run["curve"] if row["round"] == r] for r in rounds]
        cells = [spread([row[p] for row in some]) for some in at for p in ("knn", "linear")]
        cpu = f"{mean(run['cpu_seconds'] for run in same):.0f}"
        rows.append([name, str(len(same)), *cells, cpu])
    accuracies = [f"{p} % at {r}" for r in rounds for p in ("kNN", "linear")]
    return ["point", "seeds", *accuracies, "CPU s"], rows


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder with the images")
    parser.add_argument("--config", default="cpu", help="a preset or file")
    parser.add_argument("--points", required=True, type=Path, help="JSON file of the points")
    parser.add_argument("--only", nargs="+", help="names of points; all by default")
    parser.add_argument("--out", default="ablation", help="folder for the results")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--alpha", type=float, help="of the Dirichlet split; 1000 is iid")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--held-out", action="store_true", help="do not open the test set")
    args = parser.parse_args(arguments)
    chosen = {"rounds": args.rounds, "alpha": args.alpha, "seeds": args.seeds}
    changed = {key: value for key, value in chosen.items() if value is not None}
    try:
        setting = load_experiment(args.config, changed)
        if args.held_out:
            size = setting.test_size or _HELD_OUT
            setting = setting.model_copy(update={"held_out": True, "test_size": size})
        points = parse_json(args.points.read_bytes())
        names = args.only or list(points)
        runs = run_points(setting, {n: points[n] for n in names}, args.data, args.out)
    except OrchestraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    headers, rows = ablation_rows(runs)
    for cells in (headers, ["---"] * len(headers), *rows):
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
