"""The parameters of Orchestra, and the sizes that a party's data allow."""

from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from orchestra_strategy.aggregation.fields import ClusteringFields
from orchestra_strategy.algorithms.orchestra_objective import OrchestraSettings
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.errors import DataError

__all__ = ["ClusterSizes", "OrchestraConfig"]

_PUBLISHED = OrchestraSettings()


class ClusterSizes(NamedTuple):
    """Memory size m and number of local clusters N_l that a party's data allow."""

    memory_size: int
    num_local_clusters: int


class OrchestraConfig(StrategyConfig, ClusteringFields):
    """Parameters of strategy ``orchestra``; defaults are the published ones.

    Those of the global clusters are
    :class:`~orchestra_strategy.aggregation.fields.ClusteringFields`.

    Attributes:
        ema_decay: tau of the target network.
        deg_weight: Weight of the rotation loss.
        num_local_clusters: N_l.
        memory_size: m, rows of the projection memory.
        k_min: The least number of samples behind a centroid that leaves the party.
    """

    ema_decay: float = Field(_PUBLISHED.ema_decay, ge=0, le=1)
    deg_weight: float = Field(_PUBLISHED.deg_weight, ge=0)
    num_local_clusters: int = Field(16, ge=1)
    memory_size: int = Field(_PUBLISHED.memory_size, ge=2)
    k_min: int = Field(4, ge=2)

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
