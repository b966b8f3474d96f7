"""Options of the aggregating party's :func:`~orchestra_strategy.server_aggregation`."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from orchestra_strategy.aggregation.fields import AggregationFields, ClusteringFields
from orchestra_strategy.aggregation.weighted import AggregateWeights
from orchestra_strategy.config import FrozenConfig
from orchestra_strategy.rng import DEFAULT_SEED

__all__ = ["ServerOptions"]


class ServerOptions(FrozenConfig, AggregationFields, ClusteringFields):
    """What the server is told; what a strategy has too must be the same there.

    Those of :class:`~orchestra_strategy.aggregation.fields.AggregationFields` and
    :class:`~orchestra_strategy.aggregation.fields.ClusteringFields`, and:

    Attributes:
        seed: Root seed of the first global centroids.
        aggregate_weights: Combines weights in place of what ``aggregation`` names.
        torch_threads: CPU threads during a call.
        max_local_centroids: How many rows of local centroids a party may send: its
            ``num_local_clusters`` times its virtual users. More are refused before any work.
        party_names: The parties in the order of FLModel's ``device_list``, for messages.
    """

    seed: int = DEFAULT_SEED
    aggregate_weights: AggregateWeights | None = None
    torch_threads: int = Field(1, ge=1)
    max_local_centroids: int = Field(1024, ge=1)
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

    @model_validator(mode="after")
    def _combine_in_one_way(self) -> "ServerOptions":
        if self.aggregate_weights is not None and self.aggregation != "mean":
            own = getattr(self.aggregate_weights, "__qualname__", self.aggregate_weights)
            raise ValueError(
                "Expected either an `aggregate_weights` of one's own or an `aggregation`, got "
                f"both: {own!r} and {self.aggregation!r}; set `aggregation='mean'` to keep it"
            )
        return self
