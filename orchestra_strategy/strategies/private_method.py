"""The work of ``orchestra_private`` around local training: moments, and the noise on them."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.moments import Moments
from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.data.batches import batch_slices
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.privacy.private_moments import MOMENTS_SENSITIVITY, privatise_moments
from orchestra_strategy.privacy.silence import work_by_row
from orchestra_strategy.strategies.centroids import Centroids
from orchestra_strategy.strategies.orchestra_method import OrchestraMethod
from orchestra_strategy.strategies.private_centroids import (
    NoisyCentroids,
    NoisyLocalCentroids,
    NoisyMoments,
)

__all__ = ["PrivateMethod"]

_LEAST_DEVIATIONS = 2.0  # a cluster whose noisy count is below this is as good as noise


class PrivateMethod(OrchestraMethod):
    """Orchestra's, of which nothing leaves without noise.

    Attributes:
        moments_sum: Of the users so far; with noise once the round is finished. None in round 0.
    """

    protected_entries: ClassVar[tuple[str, ...]] = (
        *("local_centroids", "moments/S", "moments/n"),
        "global_centroids",  # what the server has sent
    )
    centroid_routes: ClassVar[dict[str, type[Centroids]]] = {
        "server": NoisyLocalCentroids,
        "secure": NoisyMoments,
    }
    centroids: NoisyCentroids

    def __init__(self, party: Any) -> None:
        super().__init__(party)
        self.moments_sum: Moments | None = None

    def start_round(self) -> None:
        """Begin the sum of the users' moments, once there are global clusters.

        With zeros: a round releases moments whatever becomes of the users' work.
        """
        super().start_round()
        C = self.objective.centroids
        self.moments_sum = None if C is None else _no_moments(C)

    def summary(self, user: int | None) -> Moments | None:
        """Return the user's moments; nothing of its memory leaves."""
        if self.objective.centroids is None:  # round 0
            return None
        samples = self.party.user_type.samples_of(user)
        own: Moments = self.party.privacy.moments_of_user(self.moments(user), samples)
        return own

    def take_summary(self, summary: Moments | None) -> None:
        """Add the user's moments to the party's sum.

        The sum is kept apart from what leaves, until it has its noise.
        """
        if summary is not None and self.moments_sum is not None:
            self.moments_sum = self.moments_sum + summary

    def finish_round(self) -> None:
        """Add noise to the moments, once for the party, and hand them on to be sent."""
        super().finish_round()
        if self.moments_sum is None:
            return
        release = self.party.privacy.plan().moments
        assert release is not None  # moments_share is above 0
        z = release.noise_multiplier
        self.moments_sum = privatise_moments(self.moments_sum, z, self.party.privacy.mechanism)
        fewest = self.party.privacy.least_count(self.party.config.k_min)
        least = max(fewest, _LEAST_DEVIATIONS * z * MOMENTS_SENSITIVITY)
        self.centroids.release(self.moments_sum, least)

    @torch.no_grad()
    def moments(self, user: int | None) -> Moments:
        """Return S (N_g, D) and n (N_g,) over all samples of a user, without noise.

        All samples, and not the memory's: a sample that is put in there pushes another one out, so
        that it would move the sums twice.
        """
        party = self.party
        data, rows = party.require_data(), party.user_type.rows_of(user)
        C = self.objective.centroids
        assert C is not None
        total = _no_moments(C)
        # Its own stream: how far the training's has gone tells how many records were drawn.
        self.objective.generator = party.stream("views of the moments", user, party.exe_device)

        def moments_of(batch: Batch) -> Moments:
            view, _, _, _ = self.objective.draw(batch)
            return self.centroids.assign(F.normalize(self.objective.target(view), dim=1), C)

        with frozen_statistics(self.objective.target):
            for part in batch_slices(len(rows), max(party.config.batch_size, 256)):
                batch = data.batch(rows[part], party.exe_device)
                for some in work_by_row(batch, moments_of, party.privacy.silence):
                    total = total + some
        return total

    def receive(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the global centroids; the first ones are random, and known to all."""
        C = self.centroids.receive(arrays)
        if C is not None and self.party.num_samples():
            self.objective.centroids = C.to(self.party.exe_device)


def _no_moments(C: Tensor) -> Moments:
    return Moments(torch.zeros_like(C), torch.zeros_like(C[:, 0]))
