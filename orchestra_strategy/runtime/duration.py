"""The length of a training: its steps before it begins, and its time after the first round."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.party.user_types import USER_TYPES

__all__ = ["TimeOfAll", "about", "steps_of_round", "warn_of_many_steps"]

_log = logging.getLogger(__name__)

MANY_STEPS = 100_000
"""Of one party: on a CPU, with a small network, from a quarter of an hour to a day."""

_LONG = 3600.0  # seconds that nobody waits for by mistake


def steps_of_round(config: Any, num_samples: int) -> int:
    """Return the local steps of a party in a round, those of all its users.

    Args:
        config: The strategy's parameters.
        num_samples: The party's.
    """
    kind = USER_TYPES[config.user_type]
    hosted = kind.users_of(config)
    users = hosted if hosted == 1 else config.users_per_round or hosted
    return int(users * kind.steps_per_round(config, max(1, num_samples // hosted)))


def warn_of_many_steps(config: Any, sizes: Mapping[str, int], rounds: int) -> None:
    """Say so before a training that is longer than whoever starts it is likely to want.

    Args:
        config: The strategy's parameters.
        sizes: Number of samples by party.
        rounds: How many there will be.
    """
    party = max(sizes, key=lambda name: sizes[name])
    steps = steps_of_round(config, sizes[party])
    if rounds * steps <= MANY_STEPS:
        return
    _log.warning(
        "Party `%s` will do %s local steps, %s rounds of %s: on a CPU that is hours or days. Less "
        "work: fewer rounds, a lower `local_epochs` (%d), or a larger `batch_size` (%d). After the "
        "first round its time is told.",
        party,
        f"{rounds * steps:,}",
        f"{rounds:,}",
        f"{steps:,}",
        config.local_epochs,
        config.batch_size,
    )


class TimeOfAll(host.Callback):  # type: ignore[misc]
    """FLModel callback that tells after the first epoch how long all of them will take.

    Args:
        epochs: How many there will be.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs
        self._begun: float | None = None

    def on_epoch_begin(self, epoch: Any = None, logs: Any = None) -> None:
        """Start the clock before the first one."""
        if not epoch:
            self._begun = time.monotonic()

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Tell the time, once; the parties' answers are waited for."""
        if self._begun is None or self.epochs < 2:
            return
        host.reveal([worker.work_done() for worker in (self._workers or {}).values()])
        seconds, self._begun = time.monotonic() - self._begun, None
        level = logging.WARNING if seconds * self.epochs > _LONG else logging.INFO
        _log.log(
            level,
            "The first of %d epochs took %s; all of them will take about %s.",
            self.epochs,
            about(seconds),
            about(seconds * self.epochs),
        )


def about(seconds: float) -> str:
    """Return a time in words.

    >>> about(0.4), about(59), about(1200), about(20_000), about(400_000)
    ('0.4 s', '59 s', '20 min', '5 h 33 min', '4 days 15 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"
