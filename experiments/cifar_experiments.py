"""Orchestra and its baselines on CIFAR-10 or CIFAR-100: config in, results and report out.

    python -m experiments.cifar_experiments --data FOLDER --config smoke --out results

``FOLDER`` holds ``train/`` and ``test/`` with a folder per class, or CIFAR's python batches.
``--config`` is a preset (``smoke``: 1 minute on 2 cores, and a
test of the machinery alone; ``cpu``: 10 parties, an hour; ``paper``:
the published setting, for a GPU) or a JSON file with the same fields. Every run is written to
``OUT/runs`` when it is done, and is not run again: an interrupted experiment goes on where it was.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.cifar import make_split, read_cifar
from experiments.cifar_report import write_report
from experiments.runs import measure_controls, run_one
from experiments.settings import PRESETS, Experiment, load_experiment
from orchestra_strategy import orchestra_model
from orchestra_strategy.errors import DataError, OrchestraError
from orchestra_strategy.evaluation import write_json
from orchestra_strategy.files import parse_json

__all__ = ["main", "report", "run_experiment"]


def run_experiment(setting: Experiment, data: str | Path, out: str | Path) -> dict[str, Any]:
    """Run what is missing in ``out/runs``, then write ``out/results.json`` and ``out/report.html``.

    Args:
        setting: The experiment.
        data: Folder of the images.
        out: Folder of the results.

    Returns:
        What :func:`report` returns.

    Raises:
        OrchestraError: The data or the parameters cannot be used, or ``out`` holds the results of
            another setting.
    """
    out = Path(out)
    _claim(out, setting)
    train, test, class_names = read_cifar(data)
    for seed in setting.seeds:
        split = make_split(train, test, class_names, setting, seed)
        file = out / "runs" / f"controls-{seed}.json"
        _once(file, partial(_controls, setting, split, seed, out / "pictures"))
        for strategy in setting.strategies:
            file = out / "runs" / f"{strategy}-{seed}.json"
            _once(file, partial(run_one, setting, split, strategy, seed, out / "pictures", _tell))
    return report(setting, out)


def report(setting: Experiment, out: str | Path) -> dict[str, Any]:
    """Write ``out/results.json`` and ``out/report.html`` of all runs in ``out/runs``.

    Returns:
        The content of ``results.json``: ``setting``, ``controls`` by seed, ``runs``.

    Raises:
        DataError: There are no runs so far.
    """
    out = Path(out)
    files = sorted((out / "runs").glob("*.json"))
    found = [parse_json(file.read_bytes()) for file in files]
    results = {
        "setting": setting.model_dump(),
        "controls": [run for run in found if "strategy" not in run],
        "runs": [run for run in found if "strategy" in run],
    }
    if not results["runs"]:
        raise DataError(f"Expected finished runs in `{out / 'runs'}`, got none.")
    write_json(out / "results.json", results)
    write_report(out, results)
    return results


def _controls(setting: Experiment, split: Any, seed: int, pictures: Path) -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        untrained = orchestra_model(**setting.model.model_dump()).eval()
    names = {"class_names": list(split.class_names)}
    return {"seed": seed, **names, **measure_controls(untrained, split, seed, pictures)}


def _tell(line: str) -> None:
    # Not sys.stdout as it is during a run: there the host's own prints are caught.
    print(line, file=sys.__stdout__, flush=True)


def _once(file: Path, run: Callable[[], Any]) -> None:
    """Run and write ``file``, unless it is there."""
    if not file.is_file():
        write_json(file, run())


def _claim(out: Path, setting: Experiment) -> None:
    """Write the setting into ``out``, or refuse a folder that has another one's results."""
    file, wanted = out / "setting.json", json.loads(setting.model_dump_json())
    if not file.is_file():
        write_json(file, wanted)
        return
    known = parse_json(file.read_bytes())
    # More seeds or strategies extend an experiment; anything else makes another one of it.
    free = ("seeds", "strategies", "note")
    different = sorted(k for k in wanted if k not in free and known.get(k) != wanted[k])
    if different:
        raise DataError(
            f"Expected `out` to be empty or to hold this experiment, got {out} with another "
            f"{', '.join(f'`{name}`' for name in different)}: choose another folder."
        )


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder with the images")
    parser.add_argument(
        "--config", default="smoke", help=f"a preset ({', '.join(PRESETS)}) or file"
    )
    parser.add_argument("--out", default="results", help="folder for results and report")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--strategies", nargs="+")
    parser.add_argument(
        "--report-only", action="store_true", help="run nothing, report what is in OUT"
    )
    args = parser.parse_args(arguments)
    if args.data is None and not args.report_only:
        parser.error("--data is needed, or --report-only")
    chosen = {k: getattr(args, k) for k in ("rounds", "seeds", "strategies")}
    try:
        setting = load_experiment(args.config, {k: v for k, v in chosen.items() if v is not None})
        if args.report_only:
            report(setting, args.out)
        else:
            run_experiment(setting, args.data, args.out)
    except OrchestraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"report: {Path(args.out) / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
