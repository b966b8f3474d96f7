"""A lower bound on epsilon, beside the upper bound of the ledger, by a canary.

The canary is the record, or user, that moves a release most: its clipped gradient has the largest
norm allowed, in a direction in which nobody else's moves. What is run is the party's protection
itself (clipping, Poisson samples, noise) with the noise of the audited setting, on a linear model
of three weights, many times with the canary and as often without. An attacker who knows the
direction adds up what was released along it, and guesses by a threshold. How well it does bounds
epsilon from below: (TPR - delta) / FPR <= exp(epsilon), with the ends of the rates'
Clopper-Pearson intervals in their place, so that the bound holds with a confidence of 95 %.
Thresholds are chosen on one half of the runs, rates are taken on the other.

M. Jagielski, J. Ullman, A. Oprea, "Auditing Differentially Private Machine Learning", NeurIPS 2020,
https://arxiv.org/abs/2006.07709.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import beta
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.audit.attacks.scene import Attack, Scene
from orchestra_strategy.audit.audited_party import rounds_of
from orchestra_strategy.party.privacy import UserLevel
from orchestra_strategy.privacy.accounting import PrivacyLedger, Release, epsilon_of
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.noise_source import NoiseSource
from orchestra_strategy.privacy.record_level import RecordLevelPrivacy, poisson_batches
from orchestra_strategy.privacy.user_level import UserLevelPrivacy
from orchestra_strategy.rng import derive_seed

__all__ = [
    "Canary",
    "CanaryBound",
    "Mechanism",
    "lower_bound",
    "provable",
    "record_runs",
    "user_runs",
]

CONFIDENCE = 0.95
_MOST_STEPS = 12  # of one run
_OTHERS = 5  # records beside the canary
_SAMPLES = 1000  # that batches are drawn from, of which the others have no gradient
_HUGE = 100.0  # the canary's gradient before clipping, in units of the clip norm

Array = npt.NDArray[np.float64]
Mechanism = Callable[[PrivacyLedger, NoiseSource], GaussianMechanism]


@dataclass(frozen=True)
class CanaryBound:
    """What a canary has shown.

    Attributes:
        upper: Epsilon of the releases that were run, by the ledger's accounting.
        measured: The lower bound; 0 where nothing could be shown.
        provable: The largest lower bound that so many runs could have shown at all.
        delta: For both.
        releases: How many noisy releases a run had.
        runs: How many runs there were with the canary, and as many without.
        attack: The attack's name.
    """

    upper: float
    measured: float
    provable: float
    delta: float
    releases: int
    runs: int
    attack: str = "canary"

    @property
    def leaks(self) -> bool:
        """Whether more was found than epsilon allows: the protection is broken."""
        return self.measured > self.upper

    @property
    def told(self) -> str:
        """What it means, in a sentence for the report."""
        verdict = "more than the promise allows" if self.leaks else "which keeps the promise"
        return (
            f"A planted record shows that epsilon of {self.releases} noisy releases is at least "
            f"{self.measured:.2f} (confidence 95 %), {verdict}: at most {self.upper:.2f}. With "
            f"{self.runs} runs no more than {self.provable:.2f} could have been shown."
        )

    def plain(self) -> dict[str, Any]:
        """Return it as plain types."""
        return {**asdict(self), "confidence": CONFIDENCE, "leaks": self.leaks}


def lower_bound(present: Array, absent: Array, delta: float) -> float:
    """Return epsilon's lower bound from a statistic with and without the canary.

    Args:
        present: The statistic of runs with the canary, (R,); larger than without, as a rule.
        absent: Of as many runs without it.
        delta: Of differential privacy.
    """
    half = len(present) // 2
    levels = np.quantile(np.concatenate([present[:half], absent[:half]]), np.linspace(0, 1, 201))
    middles = (levels[1:] + levels[:-1]) / 2
    chosen = max(middles, key=lambda t: _at(present[:half], absent[:half], t, delta))
    return _at(present[half:], absent[half:], chosen, delta)


def _at(present: Array, absent: Array, threshold: float, delta: float) -> float:
    return _bound(
        int(np.sum(present > threshold)), int(np.sum(absent > threshold)), len(present), delta
    )


def _bound(hits: int, false: int, runs: int, delta: float) -> float:
    """Use both errors: 'present' where it is not, and 'absent' where it is."""
    alpha = (1 - CONFIDENCE) / 2
    true_low = float(beta.ppf(alpha, hits, runs - hits + 1)) if hits else 0.0
    false_high = float(beta.ppf(1 - alpha, false + 1, runs - false)) if false < runs else 1.0
    ratios = ((true_low - delta) / false_high, (1 - false_high - delta) / (1 - true_low))
    return max(0.0, *(float(np.log(ratio)) if ratio > 0 else 0.0 for ratio in ratios))


def provable(runs: int, delta: float) -> float:
    """Return the lower bound of an attacker who is always right: no more can be shown.

    >>> round(provable(100, 1e-5), 2), round(provable(2000, 1e-5), 2)
    (2.57, 5.6)
    """
    rest = runs - runs // 2
    return _bound(rest, 0, rest, delta)


class _Linear:
    """A loss whose gradient for a record is the record itself."""

    def per_example(self, model: nn.Module, batch: Batch) -> Any:
        """Return the loss, and the batch."""

        def loss(model: nn.Module, rows: Batch) -> LossParts:
            assert isinstance(model, nn.Linear)
            return LossParts((model.weight * rows["inputs"]).sum(1).mean(), {})

        return loss, batch

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return the mean loss."""
        loss, rows = self.per_example(model, batch)
        found: LossParts = loss(model, rows)
        return found


def record_runs(
    release: Release, steps: int, runs: int, mechanism: GaussianMechanism, present: bool
) -> Array:
    """Return what ``runs`` runs of record-level privacy release along the canary, (runs,).

    Args:
        release: Noise multiplier and sampling probability of the audited setting.
        steps: Noisy gradients of a run.
        runs: How many.
        mechanism: Adds the noise, and draws the samples.
        present: Whether the canary is among the records.
    """
    z, q = release
    model = nn.Linear(3, 1, bias=False)
    others = torch.tensor([[0.0, _HUGE, 0.0]]).repeat(_OTHERS, 1)
    records = torch.cat([others, torch.tensor([[_HUGE, 0.0, 0.0]])]) if present else others
    size = max(1, round(q * _SAMPLES))
    private = RecordLevelPrivacy(model, 1.0, z, _SAMPLES, size, mechanism)
    private.release = release
    found = np.zeros(runs)
    for run in range(runs):
        for rows in poisson_batches(_OTHERS + 1, q, steps, mechanism.source):
            batch = {"inputs": records[rows[rows < len(records)]]}
            gradient, _ = private.gradient(_Linear(), batch)
            found[run] += float(gradient[0][0, 0]) * private.expected_batch_size
    return found


def user_runs(
    release: Release, steps: int, runs: int, mechanism: GaussianMechanism, present: bool
) -> Array:
    """Return the same of user-level privacy, with a canary among the users of a party."""
    private = UserLevelPrivacy(1.0, release.noise_multiplier, mechanism)
    own = torch.tensor([_HUGE, 0.0]) if present else torch.zeros(2)
    users = [private.clip([torch.tensor([0.0, _HUGE])])] * _OTHERS + [private.clip([own])]
    mean: list[Tensor] = [torch.stack([user[0] for user in users]).mean(0)]
    count = len(users)
    found = [
        sum(float(private.noisy_mean(mean, count, count)[0][0]) * count for _ in range(steps))
        for _ in range(runs)
    ]
    return np.array(found)


class Canary(Attack):
    """The planted record, or user."""

    name = "canary"
    sees = "the noisy releases of a planted record or user, the worst that there can be"
    limits = (
        "It tries the noise and its accounting, not the network, and can show no more than its few "
        "runs allow; a small lower bound is no proof of a small epsilon."
    )

    def __init__(self, mechanism: Mechanism = GaussianMechanism) -> None:
        self.mechanism = mechanism

    def reason_against(self, scene: Scene) -> str | None:
        """Refuse settings without epsilon."""
        return None if scene.row.private else "without privacy there is no epsilon to bound"

    def run(self, scene: Scene) -> tuple[CanaryBound]:
        """Run the setting's releases with and without the canary."""
        config, party = scene.config, scene.party
        assert party.privacy.protected
        plan = party.privacy.plan()
        release = plan.update
        sizes = {name: getattr(party.config, name) for name in ("batch_size", "local_epochs")}
        rounds = rounds_of(scene.row.user_type, config.rounds, party.num_samples(), **sizes)
        steps, delta = min(plan.steps * rounds, _MOST_STEPS), party.config.delta
        released = user_runs if isinstance(party.privacy, UserLevel) else record_runs
        found = []
        for present in (True, False):
            seed = derive_seed(config.seed, "canary", int(present), scene.row.user_type)
            mechanism = self.mechanism(PrivacyLedger(), NoiseSource(seed, "canary"))
            found.append(released(release, steps, config.canary_runs, mechanism, present))
        upper = epsilon_of({release: steps}, delta, party.config.accountant)
        measured = lower_bound(found[0], found[1], delta)
        most = provable(config.canary_runs, delta)
        return (CanaryBound(upper, measured, most, delta, steps, config.canary_runs),)
