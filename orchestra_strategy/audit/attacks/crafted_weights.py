"""The trap: weights with which one record's numbers overflow, and no other's.

A server that may send any weights picks a record, and looks for a sum of features that is above a
threshold for it alone. Units of the projector that fire above it multiply the largest numbers that
a party accepts, so that the projection becomes infinite for this record and no other: the party's
reply is then not finite, or its round fails, if and only if it has the record. Without privacy
nothing stands against it; with it such a record counts as zero, and nothing shows, see
:mod:`orchestra_strategy.privacy.silence`.

What is tried is the real strategy, with a party of few samples: once with the record, once without.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import fisher_exact
from torch import Tensor, nn

from orchestra_strategy.audit.attacks.scene import Attack, Scene
from orchestra_strategy.audit.audited_party import new_party, server_of
from orchestra_strategy.data.augmentation.views import Views
from orchestra_strategy.errors import ModelError, OrchestraError
from orchestra_strategy.exchange.weights import PREFIX
from orchestra_strategy.rng import derive_seed, torch_generator
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy

__all__ = ["CraftedWeights", "Trap", "craft", "outstanding"]

_TARGETS = 8
_ROWS = 16  # samples of the party that the trap is tried on
_DRAWS = 24  # of three views each, by which the trap is made
_RIDGE = 0.01  # of the features' mean variance, in the fit of the sum
_QUANTILE = 0.4  # of the target's views; one of a round's three views is enough
_MARGIN = 0.4  # of the way from the others' highest to the target
_CHANCE = 0.01
# Of two layers' weights: their product squared is infinite, which GroupNorm takes; it is not after
# a hundredth of each has gone into a target network.
_LARGE = 2.0**36
_FIRES = 1.0  # in standard deviations: a unit alone in its group is at sqrt(3) or below 0
_UNITS = 16  # of which each adds that product, times what it fires with
_SMALL = {"batch_size": _ROWS + 1, "local_epochs": 1}  # a round is one batch of all samples
_USERS = 2


@dataclass(frozen=True)
class Trap:
    """How often a round showed that something was not finite.

    Attributes:
        shown_with: Trials with the record in which the round failed or the reply was not finite.
        shown_without: Of those without it.
        trials: How many there were of each.
        chance: The probability of such a difference, or a larger one, where there is none (Fisher's
            exact test).
        attack: The attack's name.
    """

    shown_with: int
    shown_without: int
    trials: int
    chance: float
    attack: str = "crafted_weights"

    @property
    def leaks(self) -> bool:
        """Whether the difference is more than chance."""
        return self.chance < _CHANCE

    @property
    def told(self) -> str:
        """What was found, as a part of a sentence."""
        return (
            "weights made for one record fail, or come back with numbers that are not finite, in "
            f"{self.shown_with} of {self.trials} rounds with it and {self.shown_without} of "
            f"{self.trials} without it"
        )

    def plain(self) -> dict[str, Any]:
        """Return it as plain types."""
        return {**asdict(self), "leaks": self.leaks}


@torch.no_grad()
def craft(
    model: nn.Module, target: Tensor, others: Tensor, views: Views, generator: torch.Generator
) -> None:
    """Set the projector's first two layers so that the target alone overflows.

    In half of the groups that are normalised together one channel has the sum of features, the
    rest none: the normalisation leaves of it whether it is above 0.

    Args:
        model: As it will be sent; changed in place.
        target: The record, (1, ...).
        others: What the attacker knows of other records, (m, ...).
        views: The augmentation.
        generator: Source of the attacker's views.
    """
    model.train()
    first, norm, second = _layers(model)
    row = _separating(*_features(model, target, others, views, generator))
    width = first.out_features // norm.num_groups
    count = min(_UNITS, first.out_features // width // 2)  # the others' projections go on
    units = torch.arange(count) * width
    first.weight[: count * width] = 0.0
    first.weight[units] = row.to(first.weight)
    norm.weight[units], norm.bias[units] = _LARGE, -_FIRES * _LARGE
    second.weight[:, units] = _LARGE


def _layers(model: Any) -> tuple[nn.Linear, nn.GroupNorm, nn.Linear]:
    """Return the projector's first layer, its normalisation, and its second layer.

    Raises:
        ModelError: It is built otherwise.
    """
    layers = [m for m in model.projector.modules() if not isinstance(m, nn.Sequential)]
    kinds = (nn.Linear, nn.GroupNorm, nn.ReLU, nn.Linear)
    if len(layers) < 4 or not all(map(isinstance, layers, kinds)):
        raise ModelError(
            "Expected a projector of linear, GroupNorm, ReLU and linear layers for the attack "
            "'crafted_weights', got another one; use other attacks."
        )
    return layers[0], layers[1], layers[3]


def _separating(own: Tensor, usual: Tensor) -> Tensor:
    """Return weights w (d,) with w f > 0 for features of the target, and below 0 for others'.

    Fisher's linear discriminant, with the mean features in place of a constant, since the layer has
    no bias.
    """
    centred = usual - usual.mean(0)
    scatter = centred.T @ centred / len(usual)
    ridge = _RIDGE * scatter.diagonal().mean() * torch.eye(len(scatter), dtype=scatter.dtype)
    w = torch.linalg.solve(scatter + ridge, own.mean(0) - usual.mean(0))
    mean = usual.mean(0)
    heights = [(features @ w) / (features @ mean) for features in (own, usual)]
    highest = heights[1].max()  # of many views, so that a new one is rarely above it
    limit = highest + _MARGIN * (heights[0].quantile(_QUANTILE) - highest)
    row: Tensor = w - limit * mean
    return row / row.abs().max()


def _features(
    model: nn.Module, target: Tensor, others: Tensor, views: Views, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return features of views of the target (a, d) and of others (b, d), in float64."""
    backbone = model.backbone
    assert isinstance(backbone, nn.Module)
    own, usual = [], []
    for _ in range(_DRAWS):  # each a batch of the target among others, for BatchNorm's sake
        rows = torch.randperm(len(others), generator=generator)[:_ROWS]
        for view in views(torch.cat([target, others[rows]]), generator)[:3]:
            features = backbone(view).double()
            own.append(features[:1])
            usual.append(features[1:])
    return torch.cat(own), torch.cat(usual)


def outstanding(members: Tensor, count: int) -> list[int]:
    """Return the members (n, ...) whose nearest other member is farthest: the easiest to trap."""
    distances = torch.cdist(members.flatten(1), members.flatten(1))
    distances.fill_diagonal_(float("inf"))
    return distances.amin(1).argsort(descending=True)[:count].tolist()


class CraftedWeights(Attack):
    """The trap, sprung on several records."""

    name = "crafted_weights"
    sees = (
        "whether a round fails, or comes back with numbers that are not finite, after weights that "
        "the server made for one record"
    )
    limits = (
        "It makes one kind of trap, by infinity, for the records that stand out most, in networks "
        "with GroupNorm; others are possible without privacy."
    )

    def reason_against(self, scene: Scene) -> str | None:
        """Refuse projectors of another build."""
        try:
            _layers(scene.party.model)
        except ModelError:
            return "it knows projectors with GroupNorm alone"
        return None

    def run(self, scene: Scene) -> tuple[Trap]:
        """Try each target with and without it."""
        shown = [0, 0]
        for target in outstanding(scene.split.members, _TARGETS):
            weights = self._crafted(scene, target)
            for side, present in enumerate((True, False)):
                shown[side] += self._shows(scene, target, present, weights)
        table = [[count, _TARGETS - count] for count in shown]
        chance = float(fisher_exact(table, alternative="greater").pvalue)
        return (Trap(shown[0], shown[1], _TARGETS, chance),)

    def _crafted(self, scene: Scene, index: int) -> dict[str, Any]:
        """Return weights made for one record, by what is known of others."""
        members, others = scene.split.members, scene.split.others
        seed = _seed_of(scene, index)
        model = self._party(scene, index, members[:_ROWS]).model
        known = torch.cat([others[:index], others[index + 1 :]])
        stream = torch_generator(seed, "server", 0, "trap")
        craft(model, members[index : index + 1], known, scene.views, stream)
        return {n: p.detach().numpy().copy() for n, p in model.named_parameters()}

    def _shows(self, scene: Scene, index: int, present: bool, weights: Mapping[str, Any]) -> bool:
        """Return whether a party's round shows what only one record can have caused."""
        members = scene.split.members
        target, rest = members[index : index + 1], members.roll(-index - 1, 0)[:_ROWS]
        stranger = scene.split.others[index : index + 1]
        # The same number of records in both cases: how many there are is no secret.
        party = self._party(scene, index, torch.cat([target if present else stranger, rest]))
        reply = server_of(party)([party.get_weights()])[0]
        types = {name: array.dtype for name, array in reply["arrays"].items()}
        with np.errstate(over="ignore"):  # beyond float16's range it is infinite, and refused
            reply["arrays"] |= {
                PREFIX + name: weight.astype(types[PREFIX + name])
                for name, weight in weights.items()
            }
        try:
            party.apply_weights(reply)
            wire: Any = party.train_step(None, 0, 1)[0]
        except OrchestraError:
            return True
        return not all(np.isfinite(array).all() for array in wire["arrays"].values())

    @staticmethod
    def _party(scene: Scene, index: int, samples: Tensor) -> SelfSupervisedStrategy:
        """Return a party of few samples; it needs no rehearsal, which the audited one has held."""
        fields = type(scene.party).config_class.model_fields
        few = {"num_virtual_users": _USERS, "num_global_clusters": 4, "clustering_steps": 5}
        small = {**_SMALL, **{name: n for name, n in few.items() if name in fields}}
        party = new_party(scene.config, scene.row, samples, _seed_of(scene, index), **small)
        party.privacy.rehearsed = None
        return party


def _seed_of(scene: Scene, index: int) -> int:
    return derive_seed(scene.config.seed, "auditor", index, "trap") % 2**31
