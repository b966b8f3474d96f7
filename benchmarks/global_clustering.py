"""How long does global clustering take, and how low does it get, against the published way?

The published way: 500 SGD steps at a constant rate of 0.01, every step's balanced assignment solved
anew. Both minimise the same objective, which is measured with the assignment solved in full, from a
random start and, after the local centroids have moved, from a warm one. CPU seconds of one thread,
taking turns.

Run: ``python -m benchmarks.global_clustering [--sizes 160 1600] [--groups "40 groups"]
[--repeats 3] [--out FILE]``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measuring import command_line, write_result
from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.global_clustering import global_clustering
from orchestra_strategy.algorithms.sinkhorn import sinkhorn

CLUSTERS, WIDTH, TEMPERATURE = 128, 512, 0.1
GROUPS = {"40 groups": (40, 0.8), "128 groups, wide": (128, 2.0)}
Fit = Callable[[Tensor, Tensor], Tensor]


def published(Z: Tensor, C: Tensor) -> Tensor:
    """Minimise by the published steps."""
    C = C.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([C], lr=0.01, momentum=0.9, weight_decay=1e-4)
    for _ in range(500):
        S = Z @ C.T
        A = sinkhorn(S)
        P = torch.softmax(S / TEMPERATURE, dim=1)
        optimizer.zero_grad()
        (-F.cosine_similarity(A, P, dim=1).mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            C.copy_(F.normalize(C, dim=1))
    return C.detach()


def ours(Z: Tensor, C: Tensor) -> Tensor:
    """Minimise as the server does."""
    generator = torch.Generator().manual_seed(0)
    return global_clustering(Z, C, temperature=TEMPERATURE, generator=generator).centroids


def objective(Z: Tensor, C: Tensor) -> float:
    """Return the published objective with its assignment solved in full."""
    S = Z @ C.T
    A = sinkhorn(S, max_iters=1000)
    P = torch.softmax(S / TEMPERATURE, dim=1)
    return -float(F.cosine_similarity(A, P, dim=1).mean())


def measure(fit: Fit, Z: Tensor, moved: Tensor, start: Tensor) -> dict[str, tuple[float, float]]:
    """Return CPU seconds and objective from a random and from a warm start."""
    begun = time.process_time()
    cold = fit(Z, start)
    between = time.process_time()
    warm = fit(moved, cold)
    ended = time.process_time()
    return {
        "random start": (between - begun, objective(Z, cold)),
        "warm start": (ended - between, objective(moved, warm)),
    }


def compare(size: int, groups: int, spread: float, repeats: int) -> list[dict[str, Any]]:
    """Return a row per kind of start: medians of both ways, taking turns."""
    found: dict[str, list[dict[str, tuple[float, float]]]] = {"published": [], "ours": []}
    for seed in range(repeats):
        generator = torch.Generator().manual_seed(seed)
        centres = random_unit_rows(groups, WIDTH, generator)
        group = torch.randint(groups, (size,), generator=generator)
        Z = F.normalize(centres[group] + spread * random_unit_rows(size, WIDTH, generator), dim=1)
        moved = F.normalize(Z + 0.5 * random_unit_rows(size, WIDTH, generator), dim=1)
        start = random_unit_rows(CLUSTERS, WIDTH, generator)
        for name, fit in (("published", published), ("ours", ours)):
            found[name].append(measure(fit, Z, moved, start))
    return [
        {
            "start": kind,
            "cpu_s": {n: [round(run[kind][0], 3) for run in runs] for n, runs in found.items()},
            "times_faster": round(
                statistics.median(
                    a[kind][0] / b[kind][0]
                    for a, b in zip(found["published"], found["ours"], strict=True)
                ),
                1,
            ),
            "objective": {
                n: round(statistics.median(run[kind][1] for run in runs), 4)
                for n, runs in found.items()
            },
        }
        for kind in ("random start", "warm start")
    ]


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[160, 1600])
    parser.add_argument("--groups", nargs="+", choices=[*GROUPS], default=[*GROUPS])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        {"local_centroids": size, "rows": name, **row}
        for size in given.sizes
        for name in given.groups
        for row in compare(size, *GROUPS[name], given.repeats)
    ]
    write_result(given.out, command_line("global_clustering"), rows)


if __name__ == "__main__":
    main()
