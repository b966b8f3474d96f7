"""Options of the aggregating party's :func:`~orchestra_strategy.server_aggregation`."""

from typing import Any, Literal

from pydantic import Field, field_validator

from orchestra_strategy.aggregation.weighted import AggregateWeights
from orchestra_strategy.config import FrozenConfig

__all__ = ["ServerOptions"]


class ServerOptions(FrozenConfig):
    """What the server is told; what a strategy has too must be the same there.

    Attributes:
        num_global_clusters: N_g.
        temperature: T of the global clustering.
        clustering_steps: Upper limit of its SGD steps.
        seed: Root seed of the first global centroids.
        aggregate_weights: Combines weights in place of the mean.
        torch_threads: CPU threads during a call.
        aggregation: How weights are combined: ``mean``, weighted by numbers of samples;
            ``quality``, weighted by them times how compact a party's clusters are; ``median`` or
            ``trimmed_mean``, see :mod:`~orchestra_strategy.aggregation.robust`.
        trim: Fraction of the parties, those left out included, that ``trimmed_mean`` cuts at each
            end; the median is what it leaves at least.
        on_bad_reply: ``fail``, or ``leave_out`` for a round without the replies that are refused.
        max_local_centroids: How many rows of local centroids a party may send: its
            ``num_local_clusters`` times its virtual users. More are refused before any work.
        min_parties: With ``leave_out``, how many sound replies a round needs, at least 2: a mean
            of one is that party's weights.
        party_names: The parties in the order of FLModel's ``device_list``, for messages.
    """

    num_global_clusters: int = Field(128, ge=2)
    temperature: float = Field(0.1, gt=0)
    clustering_steps: int = Field(500, ge=1)
    seed: int = 42
    aggregate_weights: AggregateWeights | None = None
    torch_threads: int = Field(1, ge=1)
    aggregation: Literal["mean", "median", "trimmed_mean", "quality"] = "mean"
    trim: float = Field(0.1, ge=0, lt=0.5)
    on_bad_reply: Literal["fail", "leave_out"] = "fail"
    max_local_centroids: int = Field(1024, ge=1)
    min_parties: int = Field(2, ge=2)
    party_names: Any = None

    @field_validator("aggregate_weights", mode="before")
    @classmethod
    def _can_be_called(cls, value: Any) -> Any:
        if value is not None and not callable(value):
            raise ValueError(
                f"Expected `aggregate_weights` to be a function, got {value!r}; what has a name is "
                "chosen by `aggregation`"
            )
        return value
