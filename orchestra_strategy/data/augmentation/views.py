"""The families of views of a batch that the objectives compare.

A view set is ``x1 = t(x)``, ``x2 = t'(x)`` and ``x3 = pretext(t(x))``, as in Orchestra (Lubana et
al., ICML 2022, arXiv 2205.11506), where the pretext is a rotation by 90 degrees times a random
``a`` that the model has to tell. The three draws of t are independent, per sample and view; t and
t' have the same distribution here. Views take samples as a party stores them and return model
inputs; with all widths at 0, x1 is ``to_model_input(x)``. Which changes are fit depends on the
data: it is chosen by name in the configuration, never guessed. Whether rows of a batch act on each
other's views is declared, see :attr:`Views.row_wise`.
"""

import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from orchestra_strategy.algorithms.devices import sent_to
from orchestra_strategy.algorithms.model_input import to_model_input, to_unit_images
from orchestra_strategy.data.augmentation import transforms
from orchestra_strategy.data.augmentation.colour_views import ColourViews
from orchestra_strategy.data.augmentation.table_views import TableViews
from orchestra_strategy.data.augmentation.view_set import (
    Views,
    ViewSet,
    check_batch,
    check_range,
    check_square,
    draw_pretext_target,
)
from orchestra_strategy.errors import ParameterError, PrivacyError, did_you_mean

__all__ = [
    "VIEWS",
    "ColourViews",
    "SmallGreyViews",
    "TableViews",
    "ViewSet",
    "Views",
    "build_row_wise_views",
    "build_views",
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
    row_wise: ClassVar[bool] = True

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
        unit = sent_to(draws, x.device).mul_(2).sub_(1)  # (7, B) in [-1, 1)
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
        return (
            moved.mul_(gain).add_(offset + level).add_(sent_to(noise, x.device), alpha=self.noise)
        )


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
            f"Expected `views` to be a known name, got {name!r}: {did_you_mean(str(name), VIEWS)}."
        )
    known = inspect.signature(VIEWS[name]).parameters
    for option in sorted(options.keys() - known.keys()):
        raise ParameterError(
            f"Expected the options of views `{name}` to be known, got `{option}`: "
            f"{did_you_mean(option, known)}."
        )
    views: Views = VIEWS[name](**options)
    return views


def build_row_wise_views(name: str, /, **options: Any) -> Views:
    """Return the named views in a form in which no row acts on another one's views.

    Args:
        name: A key of :data:`VIEWS`.
        **options: As for :func:`build_views`; those that decide the form are set here.

    Raises:
        ParameterError: As :func:`build_views`.
        PrivacyError: The views have no such form, or an option asks for another one.

    >>> build_row_wise_views("table").replacement
    'marginals'
    """
    form = dict(getattr(VIEWS.get(name), "row_wise_form", {}))
    views = build_views(name, **{**form, **options})
    if not getattr(views, "row_wise", False):
        asked = "".join(f" with {key}={options[key]!r}" for key in form.keys() & options.keys())
        remedy = f"leave {', '.join(f'`{key}`' for key in form)} out" if form else "use others"
        raise PrivacyError(
            f"Expected `views` to be row-wise with differential privacy, got {name!r}{asked}: a "
            f"sample would act on the views of others in its batch; {remedy}."
        )
    return views
