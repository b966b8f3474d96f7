"""How do time and memory grow with the users of a party, and with the number of parties?

A point is a process of its own: digits dealt out to users of 20 images each, strategy
``orchestra_aggregate`` on ``conv4``, one local epoch, in one process (debug mode), one thread. Its
CPU seconds are those of the first round, round 0 apart, its memory is the peak of the whole
process, in which two parties host half of the users each. A line a + b n is fitted to the smaller
points (relative errors count, so that a is not lost), and then held against a point of four times
the largest of them.

Run: ``python -m benchmarks.scale [--most 10000] [--out FILE] [--picture FILE]``.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from benchmarks.measuring import write_result
from orchestra_strategy import OrchestraFLModel, fed_ndarray, host, orchestra_model, session

SAMPLES_PER_USER = 20
USERS_WHERE_PARTIES_VARY = 8
PARTIES = (2, 3, 4, 16)
_LONGEST = 3600  # seconds of a point


class Rounds(host.Callback):  # type: ignore[misc]
    """Notes the CPU seconds of every round."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[float] = []

    def on_epoch_begin(self, epoch: Any = None, logs: Any = None) -> None:
        """Note the start."""
        self.marks.append(time.process_time())

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Note the end."""
        self.marks[-1] = time.process_time() - self.marks[-1]


def point(users: int, parties: int) -> dict[str, float]:
    """Train a round in this process, with so many users at each party, and return what it took."""
    torch.set_num_threads(1)
    images = (load_digits().images / 16.0).astype(np.float32)
    rng = np.random.default_rng(0)
    watch = Rounds()
    with session([f"party{i:02d}" for i in range(parties)], mode="debug") as devices:
        size = users * SAMPLES_PER_USER
        data = {d: images[rng.integers(len(images), size=size)] for d in devices}
        model = OrchestraFLModel(
            server=devices[0],
            device_list=devices,
            model=partial(orchestra_model, "conv4", in_channels=1),
            strategy="orchestra_aggregate",
            num_virtual_users=users,
            batch_size=SAMPLES_PER_USER,
            local_epochs=1,
            num_global_clusters=32,
        )
        model.fit(fed_ndarray(data), epochs=1, verbose=0, callbacks=[watch])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux: KiB
    return {"cpu_seconds": watch.marks[0], "peak_mb": peak}


def measured(users: int, parties: int) -> dict[str, Any]:
    """Return a point, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--point", str(users), str(parties)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_LONGEST)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{users} users at {parties} parties: {told}", file=sys.stderr)
    return {"users": users, "parties": parties, **told}


def line(n: list[int], values: list[float]) -> tuple[float, float]:
    """Return a and b of the line a + b n with the least squares of relative errors.

    >>> [round(x, 6) for x in line([1, 2, 4], [3.0, 5.0, 9.0])]
    [1.0, 2.0]
    """
    weights = 1.0 / np.array(values)
    rows = np.stack([weights, weights * np.array(n)], axis=1)
    (a, b), *_ = np.linalg.lstsq(rows, np.ones(len(n)), rcond=None)
    return float(a), float(b)


def fitted(points: list[dict[str, Any]], of: str) -> dict[str, Any]:
    """Return the lines of all points but the last, and what they say of the last."""
    *known, last = points
    found = {}
    for what in ("cpu_seconds", "peak_mb"):
        a, b = line([p[of] for p in known], [p[what] for p in known])
        told = a + b * last[of]
        found[what] = {
            "a": round(a, 5),
            "b": round(b, 6),
            "at": last[of],
            "predicted": round(told, 3),
            "measured": round(last[what], 3),
            "off_by": round(told / last[what] - 1, 3),
        }
    return found


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draw time and memory over users, with the fitted lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    names = {"cpu_seconds": "CPU seconds of a round", "peak_mb": "peak memory, MB"}
    for axes, (what, title) in zip(figure.subplots(1, 2), names.items(), strict=True):
        points = results["users"]["points"]
        n = np.array([p["users"] for p in points])
        fit = results["users"]["fit"][what]
        axes.loglog(n, [p[what] for p in points], "o", label="measured")
        axes.loglog(n, fit["a"] + fit["b"] * n, label="a + b n, fitted without the last point")
        axes.set(xlabel="virtual users of both parties", title=title)
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=10_000, help="users of the last point")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--point", type=int, nargs=2, help="users and parties: one point alone")
    args = parser.parse_args()
    if args.point:
        print(json.dumps(point(*args.point)))
        return
    users = sorted({2, *(max(2, args.most // 4**k) for k in range(6))})
    by_users = [measured(n // 2, 2) | {"users": n} for n in users]
    by_parties = [measured(USERS_WHERE_PARTIES_VARY, k) for k in PARTIES]
    results = {
        "users": {"points": by_users, "fit": fitted(by_users, "users")},
        "parties": {"points": by_parties, "fit": fitted(by_parties, "parties")},
    }
    write_result(args.out, f"python -m benchmarks.scale --most {args.most}", results)
    if args.picture:
        draw(args.picture, results)


if __name__ == "__main__":
    main()
