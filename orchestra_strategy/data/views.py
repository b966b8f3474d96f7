"""The families of views of a batch that the objectives compare.

A view set is ``x1 = t(x)``, ``x2 = t'(x)`` and ``x3 = pretext(t(x))``, as in Orchestra (Lubana et
al., ICML 2022, arXiv 2205.11506), where the pretext is a rotation by 90 degrees times a random
``a`` that the model has to tell. The three draws of t are independent, per sample and view; t and
t' have the same distribution here. Views take samples as a party stores them and return model
inputs; with all widths at 0, x1 is ``to_model_input(x)``. Which changes are fit depends on the
data: it is chosen by name in the configuration, never guessed.
"""

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from orchestra_strategy.data import transforms
from orchestra_strategy.data.colour_views import ColourViews
from orchestra_strategy.data.view_set import (
    Views,
    ViewSet,
    check_batch,
    check_range,
    check_square,
    draw_pretext_target,
    to_model_input,
    to_unit_images,
)
from orchestra_strategy.errors import DataError, ParameterError, did_you_mean

__all__ = [
    "VIEWS",
    "ColourViews",
    "SmallGreyViews",
    "TableViews",
    "ViewSet",
    "Views",
    "build_views",
    "to_model_input",
]


@dataclass(frozen=True)
class SmallGreyViews:
    """Views of small square images without colour changes: move, brighten, add noise, turn.

    The numbers are half widths of uniform draws; brightness in units of black 0 and white 1.

    Attributes:
        rotation: Degrees, within plus or minus this.
        translation: Fraction of the side, in both directions.
        scale: The size is 1 plus or minus this.
        shear: Sideways movement per unit of height.
        gain: The contrast to the background is 1 plus or minus this.
        offset: Brightness added to the whole picture.
        noise: Standard deviation of the Gaussian noise per pixel.
        background: What is outside the picture, black as in digits; None repeats its edge.
    """

    name: ClassVar[str] = "grey"

    rotation: float = 15.0
    translation: float = 0.125
    scale: float = 0.15
    shear: float = 0.1
    gain: float = 0.2
    offset: float = 0.05
    noise: float = 0.05
    background: float | None = 0.0

    def __post_init__(self) -> None:
        """Refuse widths that are negative, or that turn a picture inside out."""
        for option in ("translation", "shear", "offset", "noise"):
            check_range(option, getattr(self, option))
        check_range("rotation", self.rotation, 180.0)
        check_range("scale", self.scale, 0.9)
        check_range("gain", self.gain, 1.0)
        if self.background is not None:
            check_range("background", self.background, 1.0)

    @torch.no_grad()
    def __call__(self, x: Tensor, generator: torch.Generator) -> ViewSet:
        """Draw the views; the pretext turns x3 by 90 degrees times the target.

        Args:
            x: (B, C, H, H) or (B, H, H) images, uint8 or floats in [0, 1].
            generator: Where all draws come from, on any device.

        Raises:
            DataError: If ``x`` is not a batch of square images.
        """
        check_batch(x, self.name, (3, 4), "images (B, C, H, W) or (B, H, W)")
        check_square(x, self.name)
        target = draw_pretext_target(x, generator)
        thrice = to_unit_images(x).repeat(3, 1, 1, 1)
        x1, x2, x3 = to_model_input(self._change(thrice, generator)).chunk(3)
        return ViewSet(x1, x2, transforms.rotate_quarters(x3, target), target)

    def _change(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return t(x), one draw per image; called once, for sampling has a fixed cost per call."""
        draws = torch.rand(7, len(x), generator=generator, device=generator.device)
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        unit = draws.to(x.device).mul_(2).sub_(1)  # (7, B) in [-1, 1)
        matrices = transforms.affine_matrices(
            degrees=unit[0] * self.rotation,
            shear=unit[1] * self.shear,
            scale=unit[2] * self.scale + 1,
            shift=(unit[3:5] * self.translation).T,
        )
        gain = (unit[5] * self.gain + 1).view(-1, 1, 1, 1)
        offset = (unit[6] * self.offset).view(-1, 1, 1, 1)
        # Zeros are the only constant to pad with, so the background is moved to zero and back.
        level = self.background or 0.0
        padding = "border" if self.background is None else "zeros"
        moved = transforms.warp(x - level, matrices, padding)
        return moved.mul_(gain).add_(offset + level).add_(noise.to(x.device), alpha=self.noise)


@dataclass(frozen=True)
class TableViews:
    """Views of table rows, columns standardised: features of other rows (SCARF), noise, a roll.

    Attributes:
        corruption: Probability that a feature is replaced by that of another row of the batch; a
            batch of one row has no other.
        noise: Standard deviation of the Gaussian noise per feature.
    """

    name: ClassVar[str] = "table"

    corruption: float = 0.3
    noise: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what is no probability and no standard deviation."""
        check_range("corruption", self.corruption, 1.0)
        check_range("noise", self.noise)

    @torch.no_grad()
    def __call__(self, x: Tensor, generator: torch.Generator) -> ViewSet:
        """Draw the views; the pretext rolls x3 by the target's number of quarters.

        Args:
            x: (B, F) rows, F >= 4.
            generator: Where all draws come from, on any device.

        Raises:
            DataError: If ``x`` is not a batch of rows of at least four features.
        """
        check_batch(x, self.name, (2,), "rows (B, F)")
        rows, num_features = x.shape
        if num_features < 4:
            raise DataError(
                f"Expected `x` to have at least 4 features for views `{self.name}` (its pretext "
                f"tells four rolls apart), got F={num_features}"
            )
        target = draw_pretext_target(x, generator)
        shape, device = (3, rows, num_features), generator.device
        replaced = torch.rand(shape, generator=generator, device=device) < self.corruption
        # A step of 1 to B-1 rows never leads back to the row itself.
        steps = torch.randint(1, max(rows, 2), shape, generator=generator, device=device)
        donors = (steps + torch.arange(rows, device=device).view(-1, 1)).remainder_(rows)
        noise = torch.randn(shape, generator=generator, device=device).to(x.device)
        replaced, donors = replaced.to(x.device), donors.to(x.device)
        changed = transforms.corrupt_features(to_model_input(x), replaced, donors)
        x1, x2, x3 = changed.add_(noise, alpha=self.noise)
        return ViewSet(x1, x2, transforms.roll_quarters(x3, target), target)


VIEWS: dict[str, type[Any]] = {
    views.name: views for views in (ColourViews, SmallGreyViews, TableViews)
}


def build_views(name: str, /, **options: Any) -> Views:
    """Return the named views with the given options, the rest at their defaults.

    Args:
        name: A key of :data:`VIEWS`.
        **options: Fields of that dataclass.

    Raises:
        ParameterError: If the name or an option is unknown, or an option is out of its range.

    >>> build_views("grey", rotation=10.0).rotation
    10.0
    """
    if name not in VIEWS:
        raise ParameterError(
            f"Expected `views` to be a known name, got {name!r}: {did_you_mean(str(name), VIEWS)}"
        )
    known = inspect.signature(VIEWS[name]).parameters
    for option in sorted(options.keys() - known.keys()):
        raise ParameterError(
            f"Expected the options of views `{name}` to be known, got `{option}`: "
            f"{did_you_mean(option, known)}"
        )
    views: Views = VIEWS[name](**options)
    return views
