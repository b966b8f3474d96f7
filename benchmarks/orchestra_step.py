"""How many images a second does a local step of Orchestra train on, and against which step?

Three steps side by side in one run, in CPU time, on the same random 32x32 images and network:

- ``ours``: views ``colour``, the objective, backward, SGD, as a party does it.
- ``published order``: the same views, and the online network on view 1 too, whose result the
  published code throws away; images laid out channel by channel.
- ``published order, PIL views``: that, and the views made one by one with PIL.

Run: ``python -m benchmarks.orchestra_step [--backbone resnet8] [--batch 32] [--out FILE]``.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms as v1
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from benchmarks.measuring import command_line, quartiles, ratios, taking_turns, write_result
from orchestra_strategy import orchestra_model
from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.orchestra_objective import OrchestraObjective, OrchestraSettings
from orchestra_strategy.data.augmentation.view_set import ViewSet
from orchestra_strategy.data.augmentation.views import build_views

SIDE = 32
Step = Callable[[], None]


def one_step(
    backbone: str, x: Tensor, views: Callable[[Tensor, torch.Generator], Any], twice: bool
) -> Step:
    """Return a local step: objective, backward, SGD; ``twice`` runs view 1 online as well."""
    torch.manual_seed(0)
    model = orchestra_model(backbone)
    generator = torch.Generator().manual_seed(0)
    seen: list[Tensor] = []

    def draw(batch: Tensor, stream: torch.Generator) -> Any:
        drawn = views(batch, stream)
        seen[:] = [drawn[0]]
        return drawn

    objective = OrchestraObjective(model, draw, OrchestraSettings(), generator)
    objective.centroids = random_unit_rows(128, 512, generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    ids = torch.arange(len(x))

    def step() -> None:
        optimizer.zero_grad()
        loss: Any = objective(model, {"inputs": x, "ids": ids}).total
        if twice:
            model.forward_orchestra(seen[0])
        loss.backward()
        optimizer.step()

    return step


def pil_views() -> Callable[[Tensor, torch.Generator], ViewSet]:
    """Return the views as the published code makes them: one image and one view after the other."""

    def chain(blur: float, solarise: float) -> Any:
        return v1.Compose(
            [
                v1.RandomResizedCrop(SIDE, scale=(0.5, 1.0)),
                v1.RandomHorizontalFlip(),
                v1.RandomApply([v1.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                v1.RandomGrayscale(p=0.2),
                v1.RandomApply([v1.GaussianBlur(3, (0.1, 2.0))], p=blur),
                v1.RandomSolarize(128, p=solarise),
                v1.ToTensor(),
                v1.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    t, t2 = chain(0.5, 0.0), chain(0.1, 0.2)

    def draw(x: Tensor, generator: torch.Generator) -> ViewSet:
        target = torch.randint(4, (len(x),), generator=generator)
        images = [to_pil_image(image) for image in x]
        x3 = [torch.rot90(t(i), int(k), (1, 2)) for i, k in zip(images, target, strict=True)]
        return ViewSet(
            torch.stack([t(i) for i in images]),
            torch.stack([t2(i) for i in images]),
            torch.stack(x3),
            target,
        )

    return draw


def channel_by_channel(x: Tensor, generator: torch.Generator) -> ViewSet:
    views = build_views("colour")(x, generator)
    x1, x2, x3 = (view.contiguous() for view in views[:3])
    return ViewSet(x1, x2, x3, views.pretext_target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--backbone", default="resnet8")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    x = torch.randint(0, 256, (args.batch, 3, SIDE, SIDE), dtype=torch.uint8)
    steps = {
        "ours": one_step(args.backbone, x, build_views("colour"), twice=False),
        "published order": one_step(args.backbone, x, channel_by_channel, twice=True),
        "published order, PIL views": one_step(args.backbone, x, pil_views(), twice=True),
    }
    seconds = taking_turns(steps, args.rounds, warm_up=3)
    found = {
        name: {
            "images_per_cpu_second": quartiles([args.batch / s for s in each]),
            "ours_is_faster_by": ratios(each, seconds["ours"]),
        }
        for name, each in seconds.items()
    }
    result = {"backbone": args.backbone, "batch": args.batch, "rounds": args.rounds, "steps": found}
    write_result(args.out, command_line("orchestra_step"), result)


if __name__ == "__main__":
    main()
