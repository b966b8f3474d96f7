"""How long does it take to start, and where does the time of a short local run go?

Commands and imports are processes of their own, which take turns; CPU seconds, and seconds on the
clock. The short run is one of two parties on a local Ray with 40 digits each and two rounds.

Run: ``python -m benchmarks.start [--repeats 5] [--out FILE]``.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import child_seconds, quartiles, write_result

COMMANDS = {
    "orchestra-fl --help": ["-m", "orchestra_strategy", "--help"],
    "orchestra-fl train --help": ["-m", "orchestra_strategy", "train", "--help"],
    "import orchestra_strategy.algorithms": ["-c", "import orchestra_strategy.algorithms"],
    "import one method": ["-c", "import orchestra_strategy.algorithms.orchestra_objective"],
    "import torch": ["-c", "import torch"],
    "import secretflow": ["-c", "import secretflow"],
    "from orchestra_strategy import OrchestraFLModel": [
        "-c",
        "from orchestra_strategy import OrchestraFLModel",
    ],
}
QUIET = tuple(name for name in COMMANDS if name not in ("import torch", "import secretflow"))


def run(arguments: list[str], name: str) -> None:
    """Run a Python process to its end."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=1800
    )
    if name in QUIET and "help" not in name and (done.stdout or done.stderr):
        print(f"{name} printed: {done.stdout}{done.stderr}", file=sys.stderr)


def starts(repeats: int) -> list[dict[str, Any]]:
    """Return a row per command."""
    for name, arguments in COMMANDS.items():  # files come into the cache of the system
        run(arguments, name)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, arguments in COMMANDS.items():

            def once(arguments: list[str] = arguments, name: str = name) -> None:
                run(arguments, name)

            found[name].append(child_seconds(once))
    return [
        {
            "what": name,
            "cpu_seconds": quartiles([cpu for _, cpu in times]),
            "seconds": quartiles([wall for wall, _ in times]),
        }
        for name, times in found.items()
    ]


def short_run() -> list[dict[str, Any]]:
    """Return the phases of a short run on a local Ray, from the import to the end of the session.

    It is to be the first that this process does, for imports to count.
    """
    marks: list[tuple[str, float]] = []
    begun = time.perf_counter()

    def mark(name: str) -> None:
        nonlocal begun
        now = time.perf_counter()
        marks.append((name, now - begun))
        begun = now

    from sklearn.datasets import load_digits

    from federated_orchestra import FederatedOrchestraTrainer
    from orchestra_strategy import host, session
    from orchestra_strategy.data.sources import fed_ndarray

    images = (load_digits().images / 16.0).astype("float32")
    mark("imports at the driver")
    with session(["alice", "bob"], mode="local") as devices:
        mark("Ray starts")
        data = fed_ndarray({d: images[40 * i : 40 * (i + 1)] for i, d in enumerate(devices)})
        config = {"model": {"backbone": "conv4", "in_channels": 1}, "rounds": 2, "progress": False}
        trainer = FederatedOrchestraTrainer(config, devices)
        trainer.setup_model()
        mark("trainer is built")

        class Rounds(host.Callback):  # type: ignore[misc]
            def on_train_begin(self, logs: Any = None) -> None:
                mark("workers start, and import")

            def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
                mark(f"round {int(epoch) + 1}")

        trainer.train(data, callbacks=[Rounds()])
        mark("results are collected")
    mark("session ends")
    return [{"phase": name, "seconds": round(seconds, 2)} for name, seconds in marks]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--phases", action="store_true", help="the short run alone, as JSON")
    args = parser.parse_args()
    if args.phases:
        print(json.dumps(short_run()))
        return
    command = [sys.executable, "-m", "benchmarks.start", "--phases"]
    phases = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=1800
    ).stdout
    results = {
        "starts": starts(args.repeats),
        "short_run": json.loads(phases.splitlines()[-1]),
    }
    write_result(args.out, "python -m benchmarks.start", results)


if __name__ == "__main__":
    main()
