"""Centroid route ``server``: what runs on the aggregating party, FLModel's ``server_agg_method``.

FLModel calls it afresh each time, in local mode as a new task, so it holds no state: the current
global centroids come back with every payload.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from orchestra_strategy.aggregation.weighted import FloatArray, weighted_mean
from orchestra_strategy.algorithms.clustering import global_clustering, random_unit_rows
from orchestra_strategy.errors import ParameterError, ReplyError
from orchestra_strategy.payload import WIRE_VERSION, Payload, unpack
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.threads import torch_threads

__all__ = ["AggregateWeights", "ServerAggregation", "server_aggregation"]

AggregateWeights = Callable[[Sequence[Sequence[FloatArray]], Sequence[float]], list[FloatArray]]


class ServerAggregation:
    """Average the parties' weights, cluster their local centroids, send both back.

    Args:
        num_global_clusters: N_g.
        temperature: T of the global clustering.
        clustering_steps: Upper limit of its SGD steps.
        seed: Root seed of the first global centroids.
        aggregate_weights: How weights are combined; the mean weighted by sample counts.
        torch_threads: CPU threads during a call.

    Raises:
        ParameterError: A value is out of its range.
    """

    __name__ = "orchestra_server_aggregation"  # the host asks every function for its name

    def __init__(
        self,
        num_global_clusters: int = 128,
        temperature: float = 0.1,
        clustering_steps: int = 500,
        seed: int = 42,
        aggregate_weights: AggregateWeights = weighted_mean,
        torch_threads: int = 1,
    ) -> None:
        limits = {"num_global_clusters": 2, "clustering_steps": 1, "torch_threads": 1}
        for name, lowest in limits.items():
            value = locals()[name]
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ParameterError(
                    f"Expected `{name}` to be an integer of at least {lowest}, got {value!r}."
                )
        if not temperature > 0:
            raise ParameterError(f"Expected `temperature` to be greater than 0, got {temperature}.")
        self.num_global_clusters = num_global_clusters
        self.temperature = temperature
        self.clustering_steps = clustering_steps
        self.seed = seed
        self.aggregate_weights = aggregate_weights
        self.torch_threads = torch_threads

    def __call__(self, wires: Sequence[Any]) -> list[dict[str, Any]]:
        """Combine one payload per party into one reply per party.

        Raises:
            ReplyError: Payloads of another form, of different rounds, or that do not fit together.
        """
        payloads = [unpack(wire, f"party {i}") for i, wire in enumerate(wires)]
        _check_consistent(payloads)
        with torch_threads(self.torch_threads):
            arrays = self._mean_of_weights(payloads)
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
        return [{"meta": meta, "arrays": arrays} for _ in payloads]

    def _mean_of_weights(self, payloads: Sequence[Payload]) -> dict[str, FloatArray]:
        # What a party trains, or its gradient; what else it sends has a meaning of its own.
        names = [n for n in payloads[0].arrays if n.startswith(("weights/", "gradients/"))]
        weights = [[p.arrays[name] for name in names] for p in payloads]
        return dict(zip(names, self.aggregate_weights(weights, _counts(payloads)), strict=True))

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
    qualities = [p.arrays["quality"] for p in payloads]
    for i, quality in enumerate(qualities):
        # Within these limits a party can lower its own weight, but not raise it.
        if quality.shape != (1,) or not 0 <= quality[0] <= 1:
            raise ReplyError(
                f"Expected `quality` of party {i} to be one number in [0, 1], got "
                f"{quality.tolist()}."
            )
    weighted = [n * float(quality[0]) for n, quality in zip(counts, qualities, strict=True)]
    return weighted if sum(weighted) > 0 else counts


def _check_consistent(payloads: Sequence[Payload]) -> None:
    """Refuse payloads that cannot belong to one round of one model."""
    if not payloads:
        raise ReplyError("Expected at least one payload, got none.")
    first = payloads[0]
    for i, payload in enumerate(payloads[1:], start=1):
        for what, got, want in (
            ("round", payload.round_index, first.round_index),
            ("phase", payload.phase, first.phase),
            ("names", list(payload.arrays), list(first.arrays)),
        ):
            if got != want:
                raise ReplyError(
                    f"Expected the `{what}` of all parties to agree, got {got!r} from party {i} "
                    f"and {want!r} from party 0. After an interrupted round, build a new FLModel."
                )
        if not np.array_equal(
            payload.arrays.get("global_centroids", ()), first.arrays.get("global_centroids", ())
        ):
            raise ReplyError(f"Expected `global_centroids` of party {i} to be those of party 0.")
    for i, payload in enumerate(payloads):
        for name, array in payload.arrays.items():
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ReplyError(
                    f"Expected `{name}` of party {i} to be finite float32, got {array.dtype}"
                    f"{'' if np.isfinite(array).all() else ' with NaN or infinity'}."
                )


def server_aggregation(**options: Any) -> ServerAggregation:
    """Return the ``server_agg_method`` for ``FLModel(server=..., server_agg_method=...)``.

    Args:
        **options: See :class:`ServerAggregation`.
    """
    return ServerAggregation(**options)
