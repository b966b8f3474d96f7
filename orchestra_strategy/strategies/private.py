"""Strategy ``orchestra_private``: Orchestra with differential privacy of all that leaves a party.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.moments import Moments, moments
from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.data.batches import batch_slices
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.privacy.private_moments import (
    MOMENTS_SENSITIVITY,
    bounded,
    centroids_of_moments,
    nearest_moments,
    privatise_moments,
    user_moments,
)
from orchestra_strategy.privacy.silence import work_by_row
from orchestra_strategy.strategies.orchestra import OrchestraStrategy
from orchestra_strategy.strategies.orchestra_config import OrchestraConfig
from orchestra_strategy.strategies.registry import register_strategy

__all__ = ["OrchestraPrivateConfig", "OrchestraPrivateStrategy"]

_LEAST_DEVIATIONS = 2.0  # a cluster whose noisy count is below this is as good as noise


class OrchestraPrivateConfig(OrchestraConfig):
    """Orchestra's parameters; privacy is on, with ``noise_multiplier`` or ``target_epsilon``.

    Attributes:
        moments_share: Share of a round's privacy loss that goes into the moments of the clusters.
    """

    privacy: Literal["user", "record"] = "user"
    moments_share: float = Field(0.1, gt=0, lt=1)


@register_strategy(strategy_name="orchestra_private", backend="torch")
class OrchestraPrivateStrategy(OrchestraStrategy):
    """Orchestra whose weights and centroids are private releases.

    Weights are protected as in every strategy with ``privacy``. The local centroids of Orchestra
    have no useful sensitivity, since clustering depends on all samples at once; so a party releases
    the noisy moments of the global clusters over its samples. On route ``server`` it makes its
    centroids of them, on route ``secure`` they are what is summed up over the parties. In round 0
    nothing of the clusters leaves: training begins with random global ones.
    """

    config_class: ClassVar[type[StrategyConfig]] = OrchestraPrivateConfig
    protected_entries: ClassVar[tuple[str, ...]] = (
        *("local_centroids", "moments/S", "moments/n"),
        "global_centroids",  # what the server has sent
    )

    @classmethod
    def sends_unprotected(cls, route: str) -> tuple[str, ...]:
        """Return nothing: centroids and moments carry noise."""
        return ()

    def make_objective(self) -> Any:
        """Return Orchestra's objective."""
        self._moments: Moments | None = None
        self._centroids: Tensor | None = None
        return super().make_objective()

    def forget_data(self) -> None:
        """Drop what is tied to the samples of a former fit."""
        super().forget_data()
        self._centroids = None

    def kept_state(self) -> dict[str, Any]:
        """Return what Orchestra keeps, and the last noisy centroids."""
        return {**super().kept_state(), "noisy_centroids": self._centroids}

    def load_kept_state(self, state: dict[str, Any]) -> None:
        """Take the state of :meth:`kept_state`."""
        super().load_kept_state(state)
        self._centroids = state["noisy_centroids"]

    def start_round(self) -> None:
        """Begin the sum of the users' moments, once there are global clusters.

        With zeros: a round releases moments whatever becomes of the users' work.
        """
        super().start_round()
        C = self.objective.centroids
        self._moments = None if C is None else _no_moments(C)

    def summarise(self, user: int | None) -> None:
        """Add the user's moments to the party's sum; its memory is told nothing of.

        The sum is kept apart from what leaves, until it has its noise.
        """
        if self._moments is None:  # round 0
            return
        own = self.moments(user)
        if self.config.privacy == "user":
            own = user_moments(own, self.user_type.samples_of(user))
        self._moments = self._moments + own

    def finish_round(self) -> None:
        """Add noise to the moments, once for the party; on route ``server`` cluster by them."""
        super().finish_round()
        if self._moments is None or self.privacy is None:
            return
        release = self.privacy.plan().moments
        assert release is not None  # moments_share is above 0
        z = release.noise_multiplier
        noisy = privatise_moments(self._moments, z, self.privacy.mechanism)
        self._moments = noisy
        if self.shared is not None:
            self.shared.send(noisy)
            return
        # Counted in samples with privacy='record', in users with 'user'.
        fewest = self.config.k_min if self.config.privacy == "record" else 0
        least = max(fewest, _LEAST_DEVIATIONS * z * MOMENTS_SENSITIVITY)
        most = self.config.num_local_clusters * self.user_type.num_users()
        self._centroids = centroids_of_moments(noisy, most, least).to(torch.float32)

    @torch.no_grad()
    def moments(self, user: int | None) -> Moments:
        """Return S (N_g, D) and n (N_g,) over all samples of a user, without noise.

        All samples, and not the memory's: a sample that is put in there pushes another one out, so
        that it would move the sums twice.
        """
        data, rows = self.require_data(), self.user_type.rows_of(user)
        C = self.objective.centroids
        assert C is not None
        assert self.privacy is not None
        total = _no_moments(C)
        # Its own stream: how far the training's has gone tells how many records were drawn.
        self.objective.generator = self._stream("views of the moments", user, self.exe_device)

        def moments_of(batch: Batch) -> Moments:
            view, _, _, _ = self.objective.draw(batch)
            return self._assigned(F.normalize(self.objective.target(view), dim=1), C)

        with frozen_statistics(self.objective.target):
            for part in batch_slices(len(rows), max(self.config.batch_size, 256)):
                batch = data.batch(rows[part], self.exe_device)
                for some in work_by_row(batch, moments_of, self.privacy.silence):
                    total = total + some
        return total

    def _assigned(self, Z: Tensor, C: Tensor) -> Moments:
        if self.shared is None:
            return nearest_moments(Z, C)
        own = moments(bounded(Z).cpu(), self.shared.clusters)
        return Moments(own.S.to(C), own.n.to(C))

    def extra_entries(self) -> tuple[Entry, ...]:
        """What Orchestra sends, with another meaning of the local centroids."""
        noisy = "noisy sums of projections by global cluster"
        meanings = {
            "local_centroids": f"directions of the {noisy}; none in round 0",
            "moments/S": f"{noisy}; zeros in round 0",
            "moments/n": "noisy sizes of the global clusters; zeros in round 0",
        }
        return tuple(
            entry._replace(meaning=meanings.get(entry.name, entry.meaning))
            for entry in super().extra_entries()
        )

    def extras(self) -> dict[str, FloatArray]:
        """Return the arrays of :meth:`extra_entries`."""
        arrays = super().extras()
        if self._centroids is not None:
            arrays["local_centroids"] = self._centroids.cpu().numpy()
        return arrays

    def receive_extras(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the global centroids; the first ones are random, and known to all."""
        if self.shared is not None:
            self.shared.receive(arrays)
            centroids = self.shared.clusters.C.clone()
        else:
            centroids = torch.from_numpy(np.array(arrays["global_centroids"]))
        if self.num_samples():
            self.objective.centroids = centroids.to(self.exe_device)


def _no_moments(C: Tensor) -> Moments:
    return Moments(torch.zeros_like(C), torch.zeros_like(C[:, 0]))
