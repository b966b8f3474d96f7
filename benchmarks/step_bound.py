"""How near is a local step of Orchestra to its lower bound, in float32 and in bfloat16?

The bound is what no implementation can leave out: the online network forward and backward on two
views, the target network forward on one, and SGD; without making views, clustering, memory or
losses (the gradient is one of a sum). It computes in the same precision, on the same images in the
same layout. CPU seconds of one thread, taking turns.

Run: ``python -m benchmarks.step_bound [--repeats 30] [--out FILE]``.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import quartiles, ratios, taking_turns, write_result
from orchestra_strategy import orchestra_model
from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.orchestra_objective import OrchestraObjective, OrchestraSettings
from orchestra_strategy.algorithms.precision import Precision, computing_in, has_bf16
from orchestra_strategy.data.augmentation.views import build_views

POINTS = (("resnet8", 32), ("resnet18", 16))
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
SIDE = 32


def sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a party."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)


def our_step(backbone: str, x: Tensor, precision: Precision) -> Callable[[], None]:
    """Return a local step as a party does it."""
    torch.manual_seed(0)
    model = orchestra_model(backbone)
    generator = torch.Generator().manual_seed(0)
    objective = OrchestraObjective(model, build_views("colour"), OrchestraSettings(), generator)
    objective.centroids = random_unit_rows(128, 512, generator)
    optimizer = sgd(model)
    ids = torch.arange(len(x))

    def step() -> None:
        optimizer.zero_grad()
        with computing_in(precision, "cpu"):
            loss: Any = objective(model, {"inputs": x, "ids": ids})
        loss.total.backward()
        optimizer.step()

    return step


def bound(backbone: str, x: Tensor, precision: Precision) -> Callable[[], None]:
    """Return the least that a step of the method does."""
    torch.manual_seed(0)
    model = orchestra_model(backbone)
    target = copy.deepcopy(parts_of(model).encoder).requires_grad_(False)
    encoder, (head,) = parts_of(model, ("degeneracy_head",))
    optimizer = sgd(model)
    views = build_views("colour")(x, torch.Generator().manual_seed(0))

    def step() -> None:
        optimizer.zero_grad()
        with computing_in(precision, "cpu"):
            with torch.no_grad():
                target(views.x1)
            total = encoder(views.x2).sum() + head(encoder(views.x3)).sum()
        total.backward()
        optimizer.step()

    return step


def compare(
    backbone: str, batch: int, repeats: int, precisions: Sequence[Precision]
) -> list[dict[str, Any]]:
    """Return a row per precision, of which the first is fp32."""
    x = torch.randint(0, 256, (batch, 3, SIDE, SIDE), dtype=torch.uint8)
    ways = {
        (precision, name): make(backbone, x, precision)
        for precision in precisions
        for name, make in (("step", our_step), ("bound", bound))
    }
    seconds = taking_turns({" ".join(key): way for key, way in ways.items()}, repeats, warm_up=3)
    return [
        {
            "backbone": backbone,
            "batch": batch,
            "precision": precision,
            "step_cpu_seconds": quartiles(seconds[f"{precision} step"]),
            "times_its_bound": ratios(seconds[f"{precision} step"], seconds[f"{precision} bound"]),
            "times_fp32_step": ratios(seconds[f"{precision} step"], seconds["fp32 step"]),
        }
        for precision in precisions
    ]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--emulated", action="store_true", help="bf16 even if it is emulated here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    # Emulated, it takes several times as long as all other benchmarks together.
    precisions = PRECISIONS if args.emulated or has_bf16("cpu") else PRECISIONS[:1]
    rows = [row for point in POINTS for row in compare(*point, args.repeats, precisions)]
    results = {"bf16_in_hardware": has_bf16("cpu"), "rows": rows}
    write_result(args.out, "python -m benchmarks.step_bound", results)


if __name__ == "__main__":
    main()
