"""The driver's part in a federated linear probe, around SecretFlow's FLModel."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from orchestra_strategy import host
from orchestra_strategy.data.arrays import check_parties
from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.runtime import probe_party
from orchestra_strategy.runtime.checks import federated_values

__all__ = ["LabelledParts", "check_numbers", "global_state_kept", "sampling_rate"]

_START_SECONDS = 300.0  # starting a worker takes seconds, on a busy machine minutes
_HOST_MAX_BATCH = 1000  # FLModel refuses a step of 1024 rows or more at any party


class LabelledParts:
    """Samples and labels by device, and the check of both."""

    def __init__(self, x: Any, y: Any, devices: list[Any], names: tuple[str, str]) -> None:
        self.names, self.devices = names, devices
        self.x, self.y = (federated_values(v).partitions for v in (x, y))
        for name, parts in zip(names, (self.x, self.y), strict=True):
            if set(parts) != set(devices):
                raise DataError(
                    f"Expected `{name}` to have one partition per device, got "
                    f"{sorted(d.party for d in parts)} for {sorted(d.party for d in devices)}."
                )

    def check(self, num_classes: int, k_min: int) -> dict[str, int]:
        """Refuse what the parties cannot be trained or tested on; return their numbers of rows."""
        asked = {d.party: d(probe_party.describe)(self.x[d], self.y[d]) for d in self.devices}
        found = host.reveal_within(asked, _START_SECONDS, "a description of the data")
        check_parties({party: report["samples"] for party, report in found.items()}, k_min)
        wrong = [
            f"party `{party}` has {report['labels']}"
            for party, report in found.items()
            if not 0 <= report["lowest"] <= report["highest"] < num_classes
        ]
        if wrong:
            raise DataError(
                f"Expected `{self.names[1]}` to be integer classes from 0 to {num_classes - 1}, "
                f"got: {'; '.join(wrong)}."
            )
        return {party: report["samples"]["num_samples"] for party, report in found.items()}


def sampling_rate(num_train: dict[str, int], batch_size: int) -> float:
    """Return the fraction of its rows that each party takes in a step.

    FLModel rounds a party's share down, so the smallest party must have a row in every step; the
    small factor keeps rounding from making 49 * (1 / 49) less than 1.
    """
    largest, smallest = max(num_train.values()), min(num_train.values())
    rate = min(1.0, max(batch_size / largest, (1 + 1e-9) / smallest))
    if largest * rate > _HOST_MAX_BATCH:
        raise DataError(
            "Expected the parties' numbers of rows to be nearer to each other, got "
            f"{num_train}: FLModel takes at most {_HOST_MAX_BATCH} rows of a party in a step, and "
            "at least one of each party."
        )
    return rate


def check_numbers(
    num_classes: int,
    rounds: int,
    batch_size: int,
    lr: float,
    momentum: float,
    seed: int,
    k_min: int,
) -> None:
    """Refuse numbers with which a probe makes no sense, or the host fails late.

    Raises:
        ParameterError: Naming the number, its range and the value.
    """
    as_count("num_classes", num_classes, 2)
    as_count("seed", seed, 0)
    as_count("k_min", k_min)
    as_count("rounds", rounds)
    if as_count("batch_size", batch_size) > _HOST_MAX_BATCH:
        raise ParameterError(
            f"Expected `batch_size` to be at most {_HOST_MAX_BATCH}, got {batch_size}."
        )
    if not 0 < lr < math.inf:
        raise ParameterError(f"Expected `lr` to be a finite number above 0, got {lr}.")
    if not 0 <= momentum < 1:
        raise ParameterError(f"Expected `momentum` to be in [0, 1), got {momentum}.")


@contextmanager
def global_state_kept() -> Iterator[None]:
    """Put back what FLModel's sampler sets for the whole process, where parties run in this one."""
    state, deterministic = random.getstate(), torch.backends.cudnn.deterministic
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(state)
            torch.backends.cudnn.deterministic = deterministic
