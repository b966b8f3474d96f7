"""The parameters of Orchestra, and the sizes that a party's data allow."""

from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from orchestra_strategy.aggregation.fields import ClusteringFields
from orchestra_strategy.algorithms.orchestra_objective import ContrastWith, OrchestraSettings
from orchestra_strategy.algorithms.orchestra_targets import Balance
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.errors import DataError

__all__ = ["ClusterSizes", "OrchestraConfig", "faded"]

_PUBLISHED = OrchestraSettings()


class ClusterSizes(NamedTuple):
    """Memory size m and number of local clusters N_l that a party's data allow."""

    memory_size: int
    num_local_clusters: int


def faded(round_index: int, rounds: int | None) -> float:
    """Return the share of a weight in a round, which falls in equal steps from 1 to 0.

    Args:
        round_index: 1 for the first round of training.
        rounds: How many rounds have a share above 0; None is all, with a share of 1.

    >>> [faded(r, 2) for r in (0, 1, 2, 3)], faded(9, None)
    ([1.0, 1.0, 0.5, 0.0], 1.0)
    """
    return 1.0 if rounds is None else min(1.0, max(0.0, 1.0 - (round_index - 1) / rounds))


class OrchestraConfig(StrategyConfig, ClusteringFields):
    """Parameters of strategy ``orchestra``; defaults are the published ones.

    Those of the global clusters are
    :class:`~orchestra_strategy.aggregation.fields.ClusteringFields`.

    Attributes:
        ema_decay: tau of the target network.
        deg_weight: Weight of the rotation loss.
        deg_length: Length of the projections that the rotation is told from; None, as published,
            leaves them at about sqrt(512), which makes the rotation loss diverge at learning rates
            above 0.01.
        num_local_clusters: N_l.
        memory_size: m, rows of the projection memory.
        k_min: The least number of samples behind a centroid that leaves the party.
        balance: What the targets are centred by, so that the samples of a party do not share one
            cluster: ``none``, as published; the mean of the party's ``memory``; or that of the
            global ``clusters``, which keeps the skew between parties, and samples from acting on
            each other.
        target_temperature: T of the target's assignments; lower makes them sharper. None is
            ``temperature``, as published.
        contrast_weight: Weight of NT-Xent between two views; 0 as published. It is in
            ``train_loss`` and no loss of its own.
        contrast_with: Whose view 1 it compares the online network's view 2 with: the ``target``'s,
            which costs nothing, or the ``online`` network's, one more pass forward and back.
        contrast_temperature: T of NT-Xent.
        contrast_rounds: Rounds in which ``contrast_weight`` falls in equal steps to 0; None leaves
            it as it is.
    """

    ema_decay: float = Field(_PUBLISHED.ema_decay, ge=0, le=1)
    deg_weight: float = Field(_PUBLISHED.deg_weight, ge=0)
    deg_length: float | None = Field(_PUBLISHED.deg_length, gt=0)
    num_local_clusters: int = Field(16, ge=1)
    memory_size: int = Field(_PUBLISHED.memory_size, ge=2)
    k_min: int = Field(4, ge=2)
    balance: Balance = _PUBLISHED.balance
    target_temperature: float | None = Field(_PUBLISHED.target_temperature, gt=0)
    contrast_weight: float = Field(_PUBLISHED.contrast_weight, ge=0)
    contrast_temperature: float = Field(_PUBLISHED.contrast_temperature, gt=0)
    contrast_with: ContrastWith = _PUBLISHED.contrast_with
    contrast_rounds: int | None = Field(None, ge=1)

    sends_clusters: ClassVar[bool] = True

    @model_validator(mode="after")
    def _clusters_fit_memory(self) -> "OrchestraConfig":
        if self.num_local_clusters * self.k_min > self.memory_size:
            raise ValueError(
                "Expected `num_local_clusters` * `k_min` to be at most `memory_size`, so that "
                f"every centroid is a mean of `k_min` samples, got {self.num_local_clusters} * "
                f"{self.k_min} > {self.memory_size}; lower `num_local_clusters` or raise "
                "`memory_size`"
            )
        return self

    @model_validator(mode="after")
    def _rows_stay_apart(self) -> "OrchestraConfig":
        if self.privacy != "record":
            return self
        reason = "a sample would move the gradients of others, which clipping cannot bound"
        if self.balance == "memory":
            raise ValueError(
                "Expected `balance` to be 'none' or 'clusters' with privacy='record', got "
                f"'memory': through the mean of the memory {reason}; use 'clusters'"
            )
        if self.contrast_weight:
            raise ValueError(
                "Expected `contrast_weight` to be 0 with privacy='record', got "
                f"{self.contrast_weight:g}: as a negative of the others {reason}; use "
                "privacy='user' for it"
            )
        return self

    def sizes_for(self, num_samples: int, who: str = "this party") -> ClusterSizes:
        """Scale memory and clusters down to a party's data: m <= samples, N_l <= m // k_min.

        Args:
            num_samples: The party's number of samples.
            who: Named in the error.

        Raises:
            DataError: Fewer samples than ``k_min``.
        """
        if num_samples < self.k_min:
            raise DataError(
                f"Expected {who} to have at least `k_min` = {self.k_min} samples, since no "
                f"centroid of fewer may leave it, got {num_samples}."
            )
        m = min(self.memory_size, num_samples)
        n_l = min(self.num_local_clusters, m // self.k_min)
        return ClusterSizes(m, n_l)
