"""Views of colour photographs: crop, flip, colour jitter, grey, blur, solarise, turn.

The augmentation of Orchestra's experiments (Lubana et al., ICML 2022, arXiv 2205.11506), which is
that of BYOL (Grill et al., NeurIPS 2020, arXiv 2006.07733, appendix B) with milder crops.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from orchestra_strategy.algorithms.devices import constant, sent_to
from orchestra_strategy.algorithms.model_input import channels_last, to_unit_images
from orchestra_strategy.data.augmentation import colour_transforms as colours
from orchestra_strategy.data.augmentation.transforms import rotate_quarters
from orchestra_strategy.data.augmentation.view_set import (
    ViewSet,
    check_batch,
    check_range,
    check_square,
    draw_pretext_target,
)
from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["ColourViews"]


@dataclass(frozen=True)
class ColourViews:
    """Views of square colour images, (B, 3, H, H).

    t' (view 2) differs from t (views 1 and 3) in ``blur_2`` and ``solarise_2`` alone. The strengths
    of the jitter are half widths: a factor is uniform in 1 plus or minus it.

    Attributes:
        min_area: A crop keeps a part of the picture's area uniform in [min_area, 1].
        max_ratio: Width / height of a crop is log-uniform in [1 / max_ratio, max_ratio].
        flip: Probability of a flip from left to right.
        jitter: Probability of the colour jitter.
        brightness: Strength.
        contrast: Strength.
        saturation: Strength.
        hue: Largest turn of the hue, in parts of a full turn.
        grey: Probability that the picture loses its colours.
        blur: Probability of a blur in t.
        blur_2: Probability of a blur in t'.
        solarise_2: Probability in t' that bright pixels are inverted.
    """

    name: ClassVar[str] = "colour"
    row_wise: ClassVar[bool] = True

    min_area: float = 0.5
    max_ratio: float = 4 / 3
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey: float = 0.2
    blur: float = 0.5
    blur_2: float = 0.1
    solarise_2: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what is no probability and no strength."""
        for option in ("flip", "jitter", "grey", "blur", "blur_2", "solarise_2"):
            check_range(option, getattr(self, option), 1.0)
        for option in ("brightness", "contrast", "saturation"):
            check_range(option, getattr(self, option), 1.0)
        check_range("hue", self.hue, 0.5)
        check_range("min_area", self.min_area, 1.0)
        check_range("max_ratio", self.max_ratio)
        if self.min_area == 0:
            raise ParameterError("Expected `min_area` to be above 0, got 0: nothing would be left.")
        if self.max_ratio < 1:
            raise ParameterError(f"Expected `max_ratio` to be at least 1, got {self.max_ratio}.")

    @torch.no_grad()
    def __call__(self, x: Tensor, generator: torch.Generator) -> ViewSet:
        """Draw the views; the pretext turns x3 by 90 degrees times the target.

        Args:
            x: (B, 3, H, H) images, uint8 or floats in [0, 1].
            generator: Where all draws come from, on any device.

        Raises:
            DataError: If ``x`` is not a batch of square colour images.
        """
        check_batch(x, self.name, (4,), "colour images (B, 3, H, W)")
        check_square(x, self.name)
        if x.shape[1] != 3:
            raise DataError(
                f"Expected `x` to have 3 channels (R, G, B) for views `{self.name}`, got "
                f"{x.shape[1]}; for grey images use views='grey'."
            )
        target = draw_pretext_target(x, generator)
        draws = torch.rand(14, 3, len(x), generator=generator, device=generator.device)
        changed = self._change(to_unit_images(x), sent_to(draws, x.device))
        x1, x2, x3 = changed.sub_(0.5).div_(0.5).chunk(3)
        x3 = rotate_quarters(x3, target)
        return ViewSet(channels_last(x1), channels_last(x2), channels_last(x3), target)

    def _change(self, x: Tensor, draws: Tensor) -> Tensor:
        """Return t(x), t'(x) and t(x) below each other, (3 B, 3, H, H), from draws (14, 3, B)."""
        chance = draws[9:].flatten(1)  # (5, 3 B): what happens to which image
        x = self._cut(x.repeat(3, 1, 1, 1), draws[:4].flatten(1), chance[0] < self.flip)
        x = self._colour(x, draws[4:8].flatten(1), chance[1] < self.jitter, chance[2] < self.grey)
        x = self._blur(x, draws[8].flatten(), draws[12])
        second = x.chunk(3)[1]
        second.copy_(colours.solarise(second, draws[13, 1] < self.solarise_2))
        return x

    def _cut(self, x: Tensor, unit: Tensor, flip: Tensor) -> Tensor:
        area = self.min_area + (1 - self.min_area) * unit[0]
        log_ratio = math.log(self.max_ratio) * (2 * unit[1] - 1)
        position = torch.stack((unit[2], unit[3]), dim=1)
        grid = colours.crop_grid(area, log_ratio, position, flip, x.shape[-1])
        return grid_sample(x, grid, padding_mode="border", align_corners=False)

    def _colour(self, x: Tensor, unit: Tensor, jitter: Tensor, grey: Tensor) -> Tensor:
        strength = (self.brightness, self.contrast, self.saturation, self.hue)
        widths = constant(strength, x.device).view(4, 1) * jitter  # 0 where there is no jitter
        change = widths * (2 * unit - 1)
        b, c, s = (1 + change[:3]).unbind()
        s = s.masked_fill(grey, 0.0)
        return colours.apply_colour(
            x, colours.colour_matrices(b, c, s, change[3], colours.grey_means(x))
        )

    def _blur(self, x: Tensor, width: Tensor, chance: Tensor) -> Tensor:
        p = constant((self.blur, self.blur_2, self.blur), x.device).view(3, 1)
        blurred = (chance < p).flatten()
        sigma = 0.1 + 1.9 * width
        if x.device.type != "cpu":  # to blur all takes less time than to wait for which
            whole = colours.blur(x, sigma, self._radius(x))
            return torch.where(blurred.view(-1, 1, 1, 1), whole, x)
        rows = blurred.nonzero().squeeze(1)
        if len(rows):
            x[rows] = colours.blur(x[rows], sigma[rows], self._radius(x))
        return x

    @staticmethod
    def _radius(x: Tensor) -> int:
        """Return a kernel of a tenth of the side, as in SimCLR (T. Chen et al., ICML 2020)."""
        return max(1, x.shape[-1] // 20)
