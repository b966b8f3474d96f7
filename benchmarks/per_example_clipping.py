"""Per-example clipping of a convolutional network: vectorised against the loop.

Claim: at batch 64 the vectorised way is several times faster than the loop, and gives the same
gradient. Both, and the plain gradient of the whole batch as the limit of what any vectorisation can
reach, run in turn within each round, in CPU time of one thread.

    python -m benchmarks.per_example_clipping --out clipping.json
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measuring import command_line, quartiles, ratios, taking_turns, write_result
from orchestra_strategy.algorithms.backbones import build_backbone
from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.privacy import PerExampleClipper
from orchestra_strategy.privacy.per_example.loop import clipped_mean_by_loop
from orchestra_strategy.threads import torch_threads

CLIP_NORM = 1.0


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Return the supervised loss."""
    return F.cross_entropy(model(batch["inputs"]), batch["labels"])


def case(batch_size: int, image_size: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return conv4 with GroupNorm and a linear head, and a random batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = build_backbone("conv4", in_channels=1, norm="group")
        model = nn.Sequential(backbone, nn.Linear(backbone.out_dim, 10))
        images = torch.randn(batch_size, 1, image_size, image_size)
    return model, {"inputs": images, "labels": torch.arange(batch_size) % 10}


def measure(batch_size: int, image_size: int, rounds: int) -> dict[str, Any]:
    """Time the three ways in turn, after one warm-up round."""
    model, batch = case(batch_size, image_size)
    clipper = PerExampleClipper(model, CLIP_NORM)
    ways: dict[str, Callable[[], Any]] = {
        "loop": lambda: clipped_mean_by_loop(cross_entropy, model, batch, CLIP_NORM),
        "vectorised": lambda: clipper(cross_entropy, batch),
        "plain": lambda: torch.autograd.grad(cross_entropy(model, batch), list(model.parameters())),
    }
    with torch_threads(1):
        pairs = zip(ways["loop"]().gradients, ways["vectorised"]().gradients, strict=True)
        error = max((a - b).abs().max().item() for a, b in pairs)
        seconds = taking_turns(ways, rounds)
    return {
        "batch_size": batch_size,
        "image_size": image_size,
        "rounds": rounds,
        "milliseconds": {name: quartiles([1e3 * s for s in v]) for name, v in seconds.items()},
        "speed_up": ratios(seconds["loop"], seconds["vectorised"]),
        "speed_up_of_the_plain_batch_gradient": ratios(seconds["loop"], seconds["plain"]),
        "largest_difference": error,
    }


def main() -> None:
    """Run all cases, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[8, 28])
    args = parser.parse_args()
    results = [measure(args.batch_size, side, args.rounds) for side in args.image_sizes]
    write_result(args.out, command_line("per_example_clipping"), results)


if __name__ == "__main__":
    main()
