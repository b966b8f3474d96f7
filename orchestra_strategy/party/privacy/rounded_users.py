"""The unit ``user`` with ``payload_bits``: noisy updates travel on a grid, and not weights.

Rounding comes after the noise and looks at nothing else of the party's data, so it is
post-processing: epsilon is what it is without. The party's own model has its update as it was.
"""

from typing import Any

import numpy as np

from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray, Payload
from orchestra_strategy.exchange.received import STEPS, UPDATE_PREFIX
from orchestra_strategy.exchange.rounded import restored, rounded, rounded_entries
from orchestra_strategy.party.privacy.protected_users import UserLevel

__all__ = ["RoundedUserLevel"]


class RoundedUserLevel(UserLevel):
    """Each user's whole update is clipped; their mean is rounded after the noise."""

    def __init__(self, party: Any) -> None:
        super().__init__(party)
        self._errors = (0.0, 0.0)  # mean variance of the rounding of a number: here, at the server

    # ---- What travels --------------------------------------------------------------------------

    def outgoing_entries(self, entries: tuple[Entry, ...], trained: bool) -> tuple[Entry, ...]:
        """Return the entries with rounded updates in place of weights or gradients."""
        if not trained:
            return entries
        meaning = "noisy mean of the clipped updates of the party's users"
        updates = rounded_entries(self._shapes(), self.party.config.payload_bits, meaning)
        return super().outgoing_entries(updates, trained)

    def outgoing(self, arrays: dict[str, FloatArray], trained: bool) -> dict[str, FloatArray]:
        """Return the noisy mean of the last round, on grids that follow from it alone."""
        if not trained:
            return arrays
        party, users = self.party, self.num_units()
        sums = party.user_type.user.update_privacy.released
        updates = {
            UPDATE_PREFIX + name: (total / users).float().cpu().numpy()
            for name, total in zip(self._shapes(), sums, strict=True)
        }
        generator = party.streams.for_numpy(party.party, party.rounds_done, "rounding")
        told = rounded(updates, party.config.payload_bits, generator)
        self._errors = (self._variance(told[STEPS]), 0.0)
        return super().outgoing(told, trained)

    def incoming(self, reply: Payload) -> dict[str, FloatArray]:
        """Return weights or gradients that follow from the parties' mean update."""
        arrays = restored(reply.arrays)
        if reply.phase != "round":
            return arrays
        moved = {}
        for name, shape in self._shapes().items():
            flat = arrays.pop(UPDATE_PREFIX + name).reshape(-1)
            moved[name] = flat[: int(np.prod(shape, dtype=np.int64))].reshape(shape)
        return arrays | self.moved_by(moved)

    # ---- Signal and noise ----------------------------------------------------------------------

    def end_exchange(self, reply: Payload, before: Any) -> dict[str, float]:
        """Return signal over noise, with what the server has rounded counted as noise."""
        if reply.phase == "round":
            self._errors = (self._errors[0], self._variance(reply.arrays[STEPS]))
        return super().end_exchange(reply, before)

    def noise_std(self, parties: int) -> float:
        """Return the standard deviation of noise and rounding on the sum of all parties' updates.

        Other parties' grids are taken to be as fine as this one's.
        """
        users, (up, down) = self.num_units(), self._errors
        errors = parties * users**2 * up + (parties * users) ** 2 * down
        return float(np.sqrt(super().noise_std(parties) ** 2 + errors))

    def _variance(self, steps: FloatArray) -> float:
        """Return the mean variance of the rounding of a number."""
        sizes = [np.prod(shape) for shape in self._shapes().values()]
        return float(np.average(np.square(steps, dtype=np.float64), weights=sizes)) / 6

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {n: tuple(p.shape) for n, p in self.party.model.named_parameters()}
        return {name: shapes[name] for name in self.trained_names()}
