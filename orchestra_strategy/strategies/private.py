"""Strategy ``orchestra_private``: Orchestra with differential privacy of all that leaves a party.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.moments import Moments
from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.data.batches import batch_slices
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.privacy.private_moments import MOMENTS_SENSITIVITY, privatise_moments
from orchestra_strategy.privacy.silence import work_by_row
from orchestra_strategy.strategies.centroids import Centroids
from orchestra_strategy.strategies.orchestra import OrchestraStrategy
from orchestra_strategy.strategies.orchestra_config import OrchestraConfig
from orchestra_strategy.strategies.private_centroids import (
    NoisyCentroids,
    NoisyLocalCentroids,
    NoisyMoments,
)
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

    Weights are protected as in every strategy with ``privacy``, and what is sent of the clusters
    as :mod:`~orchestra_strategy.strategies.private_centroids` says. In round 0 nothing of the
    clusters leaves: training begins with random global ones.
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

    centroid_routes: ClassVar[dict[str, type[Centroids]]] = {
        "server": NoisyLocalCentroids,
        "secure": NoisyMoments,
    }
    centroids: NoisyCentroids

    def set_up(self) -> None:
        """Start without moments."""
        super().set_up()
        self._moments: Moments | None = None

    def start_round(self) -> None:
        """Begin the sum of the users' moments, once there are global clusters.

        With zeros: a round releases moments whatever becomes of the users' work.
        """
        super().start_round()
        C = self.objective.centroids
        self._moments = None if C is None else _no_moments(C)

    def summarise(self, user: int | None) -> None:
        """Add the user's moments to the party's sum; nothing of its memory leaves.

        The sum is kept apart from what leaves, until it has its noise.
        """
        if self._moments is None:  # round 0
            return
        own = self.privacy.moments_of_user(self.moments(user), self.user_type.samples_of(user))
        self._moments = self._moments + own

    def finish_round(self) -> None:
        """Add noise to the moments, once for the party, and hand them on to be sent."""
        super().finish_round()
        if self._moments is None:
            return
        release = self.privacy.plan().moments
        assert release is not None  # moments_share is above 0
        z = release.noise_multiplier
        self._moments = privatise_moments(self._moments, z, self.privacy.mechanism)
        fewest = self.privacy.least_count(self.config.k_min)
        least = max(fewest, _LEAST_DEVIATIONS * z * MOMENTS_SENSITIVITY)
        self.centroids.release(self._moments, least)

    @torch.no_grad()
    def moments(self, user: int | None) -> Moments:
        """Return S (N_g, D) and n (N_g,) over all samples of a user, without noise.

        All samples, and not the memory's: a sample that is put in there pushes another one out, so
        that it would move the sums twice.
        """
        data, rows = self.require_data(), self.user_type.rows_of(user)
        C = self.objective.centroids
        assert C is not None
        total = _no_moments(C)
        # Its own stream: how far the training's has gone tells how many records were drawn.
        self.objective.generator = self._stream("views of the moments", user, self.exe_device)

        def moments_of(batch: Batch) -> Moments:
            view, _, _, _ = self.objective.draw(batch)
            return self.centroids.assign(F.normalize(self.objective.target(view), dim=1), C)

        with frozen_statistics(self.objective.target):
            for part in batch_slices(len(rows), max(self.config.batch_size, 256)):
                batch = data.batch(rows[part], self.exe_device)
                for some in work_by_row(batch, moments_of, self.privacy.silence):
                    total = total + some
        return total

    def receive_extras(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the global centroids; the first ones are random, and known to all."""
        C = self.centroids.receive(arrays)
        if C is not None and self.num_samples():
            self.objective.centroids = C.to(self.exe_device)


def _no_moments(C: Tensor) -> Moments:
    return Moments(torch.zeros_like(C), torch.zeros_like(C[:, 0]))
