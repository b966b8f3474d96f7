"""Centroid route ``server``: what runs on the aggregating party, FLModel's ``server_agg_method``.

FLModel calls it afresh each time, in local mode as a new task, so it holds no state: the current
global centroids come back with every payload.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from orchestra_strategy.aggregation.replies import check_party_names, party_labels, read_replies
from orchestra_strategy.aggregation.robust import combiner, trimmed_mean
from orchestra_strategy.aggregation.weighted import AggregateWeights, FloatArray
from orchestra_strategy.algorithms.clustering import global_clustering, random_unit_rows
from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.payload import WIRE_VERSION, Payload
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.threads import torch_threads

__all__ = ["AggregateWeights", "ServerAggregation", "server_aggregation"]

_log = logging.getLogger(__name__)


class ServerAggregation:
    """Combine the parties' weights, cluster their local centroids, send both back.

    Args:
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
        min_parties: With ``leave_out``, how many sound replies a round needs, at least 2: a mean
            of one is that party's weights.
        party_names: The parties in the order of FLModel's ``device_list``, for messages.

    Raises:
        ParameterError: A value is out of its range, or two contradict each other.
    """

    __name__ = "orchestra_server_aggregation"  # the host asks every function for its name

    def __init__(
        self,
        num_global_clusters: int = 128,
        temperature: float = 0.1,
        clustering_steps: int = 500,
        seed: int = 42,
        aggregate_weights: AggregateWeights | None = None,
        torch_threads: int = 1,
        aggregation: str = "mean",
        trim: float = 0.1,
        on_bad_reply: str = "fail",
        min_parties: int = 2,
        party_names: Sequence[str] | None = None,
    ) -> None:
        limits = {
            "num_global_clusters": 2,
            "clustering_steps": 1,
            "torch_threads": 1,
            "min_parties": 2,
        }
        for name, lowest in limits.items():
            value = locals()[name]
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ParameterError(
                    f"Expected `{name}` to be an integer of at least {lowest}, got {value!r}."
                )
        if not temperature > 0:
            raise ParameterError(f"Expected `temperature` to be greater than 0, got {temperature}.")
        if on_bad_reply not in ("fail", "leave_out"):
            raise ParameterError(
                f"Expected `on_bad_reply` to be 'fail' or 'leave_out', got {on_bad_reply!r}."
            )
        self.num_global_clusters = num_global_clusters
        self.temperature = temperature
        self.clustering_steps = clustering_steps
        self.seed = seed
        self.aggregation = aggregation
        self.trim = trim
        self.aggregate_weights = combiner(aggregation, trim, aggregate_weights)
        self.torch_threads = torch_threads
        self.on_bad_reply = on_bad_reply
        self.min_parties = min_parties
        self.party_names = check_party_names(party_names)

    def __call__(self, wires: Sequence[Any]) -> list[dict[str, Any]]:
        """Combine one payload per party into one reply per party.

        Returns:
            The same for all, but for ``left_out`` in the ``meta`` of a party whose reply was.

        Raises:
            ReplyError: Payloads of another form, of different rounds, or that do not fit together,
                unless those can be left out.
        """
        if not wires:
            raise ReplyError("Expected at least one payload, got none.")
        labels = party_labels(self.party_names, len(wires))
        sound, refused = read_replies(wires, labels, self.aggregation == "quality")
        self._settle(len(wires), refused)
        payloads = list(sound.values())
        with torch_threads(self.torch_threads):
            arrays = self._mean_of_weights(payloads, len(wires))
            centroids = self._global_centroids(payloads)
        if centroids is not None:
            arrays["global_centroids"] = centroids
        first = payloads[0]
        meta = {
            "version": WIRE_VERSION,
            "round": first.round_index,
            "phase": first.phase,
            "num_samples": sum(p.num_samples for p in payloads),
        }
        told = [{"left_out": refused[i]} if i in refused else {} for i in range(len(wires))]
        return [{"meta": meta | more, "arrays": arrays} for more in told]

    def _settle(self, replies: int, refused: Mapping[int, str]) -> None:
        """Fail, or go on without the refused replies."""
        reasons = " ".join(refused.values())
        if refused and self.on_bad_reply == "fail":
            raise ReplyError(reasons)
        sound = replies - len(refused)
        if self.on_bad_reply == "leave_out" and sound < self.min_parties:
            raise ReplyError(
                f"Expected at least `min_parties` = {self.min_parties} sound replies, got {sound} "
                f"of {replies}. {reasons}".rstrip()
            )
        if refused:
            _log.warning("%d of %d replies are left out. %s", len(refused), replies, reasons)

    def _mean_of_weights(self, payloads: Sequence[Payload], parties: int) -> dict[str, FloatArray]:
        # What a party trains, or its gradient; what else it sends has a meaning of its own.
        names = [n for n in payloads[0].arrays if n.startswith(("weights/", "gradients/"))]
        weights = [[p.arrays[name] for name in names] for p in payloads]
        combine = self.aggregate_weights
        if self.aggregation == "trimmed_mean":  # the cut does not shrink with what is left out
            combine = partial(trimmed_mean, trim=self.trim, parties=parties)
        return dict(zip(names, combine(weights, _counts(payloads)), strict=True))

    def _global_centroids(self, payloads: Sequence[Payload]) -> FloatArray | None:
        first = payloads[0].arrays
        if "local_centroids" not in first:
            return None  # a strategy without clustering
        current = torch.from_numpy(np.array(first["global_centroids"]))
        if len(current) != self.num_global_clusters:
            raise ReplyError(
                "Expected `num_global_clusters` of `server_aggregation(...)` and of the parties to "
                f"be equal, got {self.num_global_clusters} and {len(current)}."
            )
        if payloads[0].phase == "sync":
            return first["global_centroids"]
        Z = torch.from_numpy(np.concatenate([p.arrays["local_centroids"] for p in payloads]))
        if not bool(current.any()):  # all zeros: none have been made so far
            generator = torch_generator(self.seed, "server", 0, "global centroids")
            current = random_unit_rows(self.num_global_clusters, Z.shape[1], generator)
        if len(Z) == 0:
            return current.numpy()
        clusters = global_clustering(
            Z, current, temperature=self.temperature, max_steps=self.clustering_steps
        )
        return clusters.centroids.numpy()


def _counts(payloads: Sequence[Payload]) -> Sequence[float]:
    """Return the parties' numbers of samples, times their ``quality`` where they send one."""
    counts = [p.num_samples for p in payloads]
    if "quality" not in payloads[0].arrays:
        return counts
    weighted = [p.num_samples * float(p.arrays["quality"][0]) for p in payloads]
    return weighted if sum(weighted) > 0 else counts


def server_aggregation(**options: Any) -> ServerAggregation:
    """Return the ``server_agg_method`` for ``FLModel(server=..., server_agg_method=...)``.

    Args:
        **options: See :class:`ServerAggregation`.
    """
    return ServerAggregation(**options)
