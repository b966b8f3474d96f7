"""The ways in which a server combines the parties' weights, by name."""

from collections.abc import Sequence
from typing import Literal

from orchestra_strategy.aggregation.robust import coordinate_median, trimmed_mean, trimmed_parties
from orchestra_strategy.aggregation.weighted import weighted_mean
from orchestra_strategy.exchange.payload import FloatArray

__all__ = ["AGGREGATIONS", "Aggregation", "AggregationName"]

AggregationName = Literal["mean", "median", "trimmed_mean", "quality"]
"""The keys of :data:`AGGREGATIONS`."""


class Aggregation:
    """The mean, weighted by numbers of samples; a subclass combines in another way.

    Attributes:
        needs_quality: Whether every party has to send how compact its clusters are.
    """

    needs_quality = False

    def check(self, parties: int, trim: float) -> None:
        """Refuse numbers of parties with which it cannot do what it says; by default none."""

    def combine(
        self,
        weights_list: Sequence[Sequence[FloatArray]],
        sample_counts: Sequence[float],
        *,
        trim: float,
        parties: int,
    ) -> list[FloatArray]:
        """Combine the weights of the replies that can be used.

        Args:
            weights_list: One list of float32 or float16 arrays per reply, alike in length and
                shapes.
            sample_counts: The parties' weights, one per reply.
            trim: Fraction cut at each end, where something is cut.
            parties: How many parties there are, those left out included.
        """
        return weighted_mean(weights_list, sample_counts)


class Median(Aggregation):
    """The coordinate-wise median; numbers of samples do not count."""

    def combine(
        self,
        weights_list: Sequence[Sequence[FloatArray]],
        sample_counts: Sequence[float],
        *,
        trim: float,
        parties: int,
    ) -> list[FloatArray]:
        """Return the medians."""
        return coordinate_median(weights_list, sample_counts)


class TrimmedMean(Aggregation):
    """The coordinate-wise mean without the lowest and the highest values."""

    def check(self, parties: int, trim: float) -> None:
        """Refuse a fraction that leaves nobody, or is above 0 and yet cuts nobody."""
        trimmed_parties(trim, parties)

    def combine(
        self,
        weights_list: Sequence[Sequence[FloatArray]],
        sample_counts: Sequence[float],
        *,
        trim: float,
        parties: int,
    ) -> list[FloatArray]:
        """Return the means; what is cut does not shrink with what has been left out."""
        return trimmed_mean(weights_list, sample_counts, trim=trim, parties=parties)


class QualityWeighted(Aggregation):
    """The mean, weighted by numbers of samples times how compact a party's clusters are."""

    needs_quality = True


AGGREGATIONS: dict[AggregationName, Aggregation] = {
    "mean": Aggregation(),
    "median": Median(),
    "trimmed_mean": TrimmedMean(),
    "quality": QualityWeighted(),
}
