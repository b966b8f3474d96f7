"""Views of table rows: some of the features replaced, noise, and a pretext of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from orchestra_strategy.algorithms.devices import constant, sent_to
from orchestra_strategy.algorithms.model_input import to_model_input
from orchestra_strategy.data.augmentation import transforms
from orchestra_strategy.data.augmentation.view_set import (
    ViewSet,
    check_batch,
    check_range,
    draw_pretext_target,
)
from orchestra_strategy.errors import DataError, ParameterError

__all__ = ["TableViews"]

_FEWEST = 4  # the pretext tells four changes apart
_LEVELS = 3  # thirds of the features are replaced: none, one, two or all three


@dataclass(frozen=True)
class TableViews:
    """Views of table rows, columns standardised: features replaced (SCARF), and noise.

    Attributes:
        pretext: What the third view had, which the model has to tell: ``"replaced"``, how many of
            its features were replaced (none, or each with probability 1/3, 2/3 or 1), for which it
            has to know which values go together; or ``"rolled"``, by how many quarters the row was
            rolled, which the columns' own distributions tell already.
        corruption: Probability that a feature is replaced.
        noise: Standard deviation of the Gaussian noise per feature.
        replacement: Where the new value is from: ``"rows"`` takes that of another row of the batch
            (a batch of one row has no other); ``"marginals"`` draws it from what is known of every
            standardised table, N(0, 1) for numbers and any of a column's categories alike, so that
            no row acts on another one's views.
        one_hot: Columns that hold one category together, as zeros and ones: one sequence of column
            numbers for each, such as ``LocalData.one_hot``. They are replaced together.
    """

    name: ClassVar[str] = "table"
    row_wise_form: ClassVar[Mapping[str, Any]] = {"replacement": "marginals"}

    corruption: float = 0.3
    noise: float = 0.05
    replacement: str = "rows"
    one_hot: Sequence[Sequence[int]] = ()
    pretext: str = "replaced"

    def __post_init__(self) -> None:
        """Refuse what is no probability, no standard deviation and no set of columns."""
        check_range("corruption", self.corruption, 1.0)
        check_range("noise", self.noise)
        if self.replacement not in ("rows", "marginals"):
            raise ParameterError(
                f"Expected `replacement` to be 'rows' or 'marginals', got {self.replacement!r}."
            )
        if self.pretext not in ("replaced", "rolled"):
            raise ParameterError(
                f"Expected `pretext` to be 'replaced' or 'rolled', got {self.pretext!r}."
            )
        object.__setattr__(self, "one_hot", _checked_groups(self.one_hot))

    @property
    def row_wise(self) -> bool:
        """Whether no row acts on another one's views."""
        return self.replacement == "marginals"

    @torch.no_grad()
    def __call__(self, x: Tensor, generator: torch.Generator) -> ViewSet:
        """Draw the views; x3 has the pretext's change.

        Args:
            x: (B, F) rows, F >= 4.
            generator: Where all draws come from, on any device.

        Raises:
            DataError: If ``x`` is not a batch of rows of at least four features, or has fewer than
                ``one_hot`` names.
        """
        check_batch(x, self.name, (2,), "rows (B, F)")
        self._check_width(x.shape[1])
        change = self._with_marginals if self.row_wise else self._with_rows
        changed, noise, target = change(x, generator)
        x1, x2, x3 = changed.add_(noise, alpha=self.noise)
        if self.pretext == "rolled":
            x3 = transforms.roll_quarters(x3, target)
        return ViewSet(x1, x2, x3, target)

    def _chances(self, target: Tensor) -> Tensor:
        """Return the probability that a feature is replaced, (3, B, 1): by view, and by target."""
        usual = torch.full((len(target),), self.corruption, device=target.device)
        third = target / _LEVELS if self.pretext == "replaced" else usual
        return torch.stack((usual, usual, third)).unsqueeze(-1)

    def _with_rows(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return (3, B, F) with features of other rows, standard normal noise, and the target."""
        target = draw_pretext_target(x, generator)
        shape, device = (3, *x.shape), generator.device
        draw = torch.rand(shape, generator=generator, device=device)
        replaced = self._same_in_groups(sent_to(draw, x.device) < self._chances(target))
        donors = sent_to(self._same_in_groups(_other_rows(shape, generator)), x.device)
        noise = sent_to(torch.randn(shape, generator=generator, device=device), x.device)
        return transforms.corrupt_features(to_model_input(x), replaced, donors), noise, target

    def _with_marginals(
        self, x: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same as :meth:`_with_rows`, with features drawn from the marginals.

        All that a row needs is drawn in one piece, before the next row's, so that a further row at
        the end of a batch changes nothing for those before it.
        """
        rows, num_features = x.shape
        per_view = 3 * num_features + len(self.one_hot)
        unit = torch.rand((rows, 1 + 3 * per_view), generator=generator, device=generator.device)
        unit = sent_to(unit, x.device)
        target = (4 * unit[:, 0]).long()
        views = unit[:, 1:].view(rows, 3, per_view).transpose(0, 1)  # (3, B, ...)
        widths = [num_features, num_features, num_features, len(self.one_hot)]
        chance, value, noise, category = torch.split(views, widths, dim=-1)
        drawn = _normal(value)
        for i, group in enumerate(self.one_hot):
            chosen = (len(group) * category[..., i]).long()
            columns = constant(group, x.device, torch.long)
            drawn[..., columns] = F.one_hot(chosen, len(group)).to(drawn)
        replaced = self._same_in_groups(chance < self._chances(target))
        return torch.where(replaced, drawn, to_model_input(x)), _normal(noise), target

    def _check_width(self, features: int) -> None:
        if features < _FEWEST:
            raise DataError(
                f"Expected `x` to have at least 4 features for views `{self.name}` (its pretext "
                f"tells four changes of them apart), got F={features}."
            )
        last = max((column for group in self.one_hot for column in group), default=0)
        if last >= features:
            raise DataError(
                f"Expected `x` to have the columns that `one_hot` of views `{self.name}` names, up "
                f"to number {last}, got F={features}; columns count from 0, without the label."
            )

    def _same_in_groups(self, drawn: Tensor) -> Tensor:
        """Let the first column of each group stand for all of it; changes (V, B, F) in place."""
        for group in self.one_hot:
            drawn[..., constant(group, drawn.device, torch.long)] = drawn[..., group[0], None]
        return drawn


def _normal(unit: Tensor) -> Tensor:
    """Return standard normal deviates for uniform ones on the multiples of 2^-24 in [0, 1)."""
    # In float64: 1 - 2^-25 would be 1 in float32, whose deviate is infinite.
    deviates: Tensor = torch.special.ndtri(unit.double() + 2.0**-25)
    return deviates.to(unit)


def _other_rows(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw the number of another row for each feature of (V, B, F)."""
    rows, device = shape[1], generator.device
    # A step of 1 to B-1 rows never leads back to the row itself.
    steps = torch.randint(1, max(rows, 2), shape, generator=generator, device=device)
    return (steps + torch.arange(rows, device=device).view(-1, 1)).remainder_(rows)


def _checked_groups(one_hot: Any) -> tuple[tuple[int, ...], ...]:
    """Return the groups of columns as tuples, which JSON does not have.

    Raises:
        ParameterError: They are no column numbers, or a column is in two places.
    """
    groups = isinstance(one_hot, (list, tuple)) and all(
        isinstance(group, (list, tuple)) and group for group in one_hot
    )
    columns = [column for group in one_hot for column in group] if groups else [None]
    numbers = all(type(column) is int and column >= 0 for column in columns)
    if not numbers or len(set(columns)) != len(columns):
        raise ParameterError(
            "Expected `one_hot` to be lists of column numbers, no column twice, such as [[3, 4, "
            f"5], [6, 7]], got {one_hot!r}; `LocalData.one_hot` has those of a CSV table."
        )
    return tuple(tuple(group) for group in one_hot)
