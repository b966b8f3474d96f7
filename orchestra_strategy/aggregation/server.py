"""Centroid route ``server``: what runs on the aggregating party, FLModel's ``server_agg_method``.

FLModel calls it afresh each time, in local mode as a new task, so it holds no state: the current
global centroids come back with every payload.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from orchestra_strategy.aggregation.replies import check_party_names, party_labels, read_replies
from orchestra_strategy.aggregation.server_options import ServerOptions
from orchestra_strategy.aggregation.weighted import AggregateWeights
from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.global_clustering import global_clustering
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import ReplyError
from orchestra_strategy.exchange.half import as_sent, widened
from orchestra_strategy.exchange.payload import LONGEST_REASON, WIRE_VERSION, FloatArray, Payload
from orchestra_strategy.exchange.received import (
    UPDATE_PREFIX,
    check_plain,
    check_values,
    described,
)
from orchestra_strategy.exchange.rounded import bits_of, restored, rounded
from orchestra_strategy.rng import numpy_generator, torch_generator
from orchestra_strategy.threads import torch_threads

__all__ = ["AggregateWeights", "ServerAggregation", "server_aggregation"]

_log = logging.getLogger(__name__)

_COMBINED = "the combined weights"


class ServerAggregation:
    """Combine the parties' weights, cluster their local centroids, send both back.

    Args:
        **options: See :class:`~orchestra_strategy.aggregation.server_options.ServerOptions`.

    Raises:
        ParameterError: A name is unknown, a value out of its range, or two contradict each other.
    """

    __name__ = "orchestra_server_aggregation"  # the host asks every function for its name

    def __init__(self, **options: Any) -> None:
        given = parse_config(ServerOptions, options, of="`server_aggregation(...)`")
        self.num_global_clusters = given.num_global_clusters
        self.temperature = given.temperature
        self.clustering_steps = given.clustering_steps
        self.seed = given.seed
        self.aggregation = given.aggregation
        self.trim = given.trim
        self.combining = given.combining
        self.aggregate_weights = given.aggregate_weights
        self.torch_threads = given.torch_threads
        self.on_bad_reply = given.on_bad_reply
        self.min_parties = given.min_parties
        self.max_local_centroids = given.max_local_centroids
        self.party_names = check_party_names(given.party_names)

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
        sound, refused = read_replies(
            wires, labels, self.combining.needs_quality, self.max_local_centroids
        )
        self._settle(len(wires), refused)
        bits = bits_of(next(iter(sound.values())).arrays)
        payloads = [p._replace(arrays=restored(p.arrays)) for p in sound.values()]
        with torch_threads(self.torch_threads):
            arrays = self._mean_of_weights(payloads, len(wires))
            centroids = self._global_centroids(payloads)
        if centroids is not None:
            arrays["global_centroids"] = centroids
        first = payloads[0]
        if bits is not None:
            generator = numpy_generator(self.seed, "server", first.round_index, "rounding")
            arrays = rounded(arrays, bits, generator)
        meta = {
            "version": WIRE_VERSION,
            "round": first.round_index,
            "phase": first.phase,
            "num_samples": sum(p.num_samples for p in payloads),
        }
        told = [
            {"left_out": refused[i][:LONGEST_REASON]} if i in refused else {}
            for i in range(len(wires))
        ]
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
        kinds = ("weights/", "gradients/", UPDATE_PREFIX)
        names = [n for n in payloads[0].arrays if n.startswith(kinds)]
        weights = [[p.arrays[name] for name in names] for p in payloads]
        counts = _counts(payloads)
        with np.errstate(over="ignore"):  # what overflows is refused by its name
            if self.aggregate_weights is not None:
                whole = [[widened(array) for array in arrays] for arrays in weights]
                combined = self.aggregate_weights(whole, counts)
            else:
                combined = self.combining.combine(weights, counts, trim=self.trim, parties=parties)
        _check_combined(names, combined, payloads[0].arrays)
        told = dict(zip(names, combined, strict=True))
        return as_sent(told, payloads[0].arrays, _COMBINED) | _mean_of_counts(payloads)

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
            Z,
            current,
            temperature=self.temperature,
            generator=torch_generator(
                self.seed, "server", payloads[0].round_index, "order of local centroids"
            ),
            max_steps=self.clustering_steps,
        )
        centroids: FloatArray = clusters.centroids.numpy()
        check_values({"global_centroids": centroids}, "the server")
        return centroids


def _mean_of_counts(payloads: Sequence[Payload]) -> dict[str, FloatArray]:
    """Return the mean over users of what private parties count, whatever combines their weights."""
    names = [n for n in payloads[0].arrays if n.startswith("counts/")]
    weights = [p.num_samples for p in payloads]
    means = {n: np.average([p.arrays[n] for p in payloads], axis=0, weights=weights) for n in names}
    return {n: np.asarray(mean, np.float32) for n, mean in means.items()}


def _check_combined(names: Sequence[str], combined: Any, like: Mapping[str, FloatArray]) -> None:
    """Refuse weights that no party could take; an ``aggregate_weights`` can return anything."""
    if not isinstance(combined, list | tuple) or len(combined) != len(names):
        got = f"{len(combined)}" if isinstance(combined, list | tuple) else described(combined)
        raise ReplyError(
            f"Expected `aggregate_weights` to return a list of {len(names)} arrays, got {got}."
        )
    for name, array in zip(names, combined, strict=True):
        check_plain(name, array, _COMBINED)
        if array.shape != like[name].shape:
            raise ReplyError(
                f"Expected `{name}` of {_COMBINED} to have the shape {like[name].shape} that the "
                f"parties sent, got {array.shape}."
            )
    check_values(dict(zip(names, combined, strict=True)), _COMBINED)


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
        **options: See :class:`~orchestra_strategy.aggregation.server_options.ServerOptions`.
    """
    return ServerAggregation(**options)
