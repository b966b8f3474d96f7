"""The parameters that a server and the strategies have in common, written once."""

from typing import Literal

from pydantic import BaseModel, Field

from orchestra_strategy.aggregation.table import AGGREGATIONS, Aggregation, AggregationName
from orchestra_strategy.algorithms.orchestra_objective import OrchestraSettings

__all__ = ["AggregationFields", "ClusteringFields"]


class AggregationFields(BaseModel):
    """How the server combines the parties' weights, and what it does with a bad reply.

    Attributes:
        aggregation: How the server combines weights: ``mean`` by sample counts, coordinate-wise
            ``median`` or ``trimmed_mean``, or by ``quality``, the sample count times how compact a
            party's clusters are, where local clusters leave the party.
        trim: Fraction of the parties, those left out included, that ``trimmed_mean`` cuts at each
            end; the median is what it leaves at least.
        on_bad_reply: What a reply that cannot be used does, NaN for instance: the round has to
            ``fail``, or goes on and the reply is left out (``leave_out``).
        min_parties: With ``leave_out``, how many sound replies a round needs, at least 2: a mean of
            one is that party's weights.
    """

    aggregation: AggregationName = "mean"
    trim: float = Field(0.1, ge=0, lt=0.5)
    on_bad_reply: Literal["fail", "leave_out"] = "fail"
    min_parties: int = Field(2, ge=2)

    @property
    def combining(self) -> Aggregation:
        """The way to combine weights that ``aggregation`` names."""
        return AGGREGATIONS[self.aggregation]


class ClusteringFields(BaseModel):
    """The global clusters, of which server and parties must think alike.

    Attributes:
        num_global_clusters: N_g; the server's ``server_aggregation`` must be given the same.
        temperature: T of the cluster assignments.
        clustering_steps: Upper limit of the server's SGD steps in global clustering, over which
            their rate falls to zero; with more than 4,096 local centroids it grows in proportion.
    """

    num_global_clusters: int = Field(128, ge=2)
    temperature: float = Field(OrchestraSettings().temperature, gt=0)
    clustering_steps: int = Field(100, ge=1)
