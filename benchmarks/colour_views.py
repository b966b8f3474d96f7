"""How fast are the three colour views of a batch, and against which way of making them?

Four ways side by side in one run, in CPU time of one thread, on random 32x32 images:

- ``ours``: views ``colour``: one draw per sample, the whole batch at once.
- ``kornia``: kornia.augmentation, one draw per sample, the whole batch at once.
- ``torchvision``: torchvision.transforms.v2, image by image: on a batch, it has one draw for all.
- ``pil``: torchvision's transforms on PIL images, one by one, as the published code does it.

Run: ``python -m benchmarks.colour_views [--batch 32] [--out FILE]``; kornia is left out where it is
not installed.
"""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms as v1
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from benchmarks.measuring import command_line, quartiles, ratios, taking_turns, write_result
from orchestra_strategy.data.augmentation.views import build_views

MakeViews = Callable[[Tensor], object]


def ours() -> MakeViews:
    views, generator = build_views("colour"), torch.Generator().manual_seed(0)
    return lambda x: views(x, generator)


def kornia_views() -> MakeViews:
    import kornia.augmentation as K

    def chain(blur: float, solarise: float) -> Any:
        return K.AugmentationSequential(
            K.RandomResizedCrop((32, 32), scale=(0.5, 1.0)),
            K.RandomHorizontalFlip(),
            K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
            K.RandomGrayscale(p=0.2),
            K.RandomGaussianBlur((3, 3), (0.1, 2.0), p=blur),
            K.RandomSolarize(0.0, 0.0, p=solarise),
        )

    t, t2 = chain(0.5, 0.0), chain(0.1, 0.2)

    def make(x: Tensor) -> object:
        unit = x.float() / 255
        quarters = torch.randint(4, (len(x),))
        third = torch.stack(
            [torch.rot90(image, int(k), (1, 2)) for image, k in zip(t(unit), quarters, strict=True)]
        )
        return t(unit), t2(unit), third

    return make


def one_by_one(t: Any, t2: Any, to_image: Callable[[Tensor], Any]) -> MakeViews:
    def make(x: Tensor) -> object:
        views = []
        for image in map(to_image, x):
            third = torch.rot90(t(image), int(torch.randint(4, ())), (1, 2))
            views.append((t(image), t2(image), third))
        return [torch.stack(view) for view in zip(*views, strict=True)]

    return make


def torchvision_views(library: Any) -> MakeViews:
    """Return v2's transforms on tensors, or v1's on PIL images."""
    pil = library is v1

    def chain(blur: float, solarise: float) -> Any:
        to_tensor = v1.ToTensor() if pil else v2.ToDtype(torch.float32, scale=True)
        return library.Compose(
            [
                library.RandomResizedCrop(32, scale=(0.5, 1.0)),
                library.RandomHorizontalFlip(),
                library.RandomApply([library.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                library.RandomGrayscale(p=0.2),
                library.RandomApply([library.GaussianBlur(3, (0.1, 2.0))], p=blur),
                library.RandomSolarize(128, p=solarise),
                to_tensor,
                library.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    return one_by_one(
        chain(0.5, 0.0), chain(0.1, 0.2), to_pil_image if pil else lambda image: image
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ways = {"ours": ours(), "torchvision": torchvision_views(v2), "pil": torchvision_views(v1)}
    if find_spec("kornia"):
        ways["kornia"] = kornia_views()
    x = torch.randint(0, 256, (args.batch, 3, 32, 32), dtype=torch.uint8)
    seconds = taking_turns({name: partial(way, x) for name, way in ways.items()}, args.rounds)
    found = {
        name: {
            "ms_per_image": quartiles([1e3 * s / args.batch for s in each]),
            "times_faster_than_pil": ratios(seconds["pil"], each),
        }
        for name, each in seconds.items()
    }
    result = {"batch": args.batch, "rounds": args.rounds, "ways": found}
    write_result(args.out, command_line("colour_views"), result)


if __name__ == "__main__":
    main()
