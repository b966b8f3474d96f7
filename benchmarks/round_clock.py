"""A clock for the rounds of FLModel: wall and CPU seconds, those of the local steps taken off."""

import importlib
import time
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from orchestra_strategy import host
from orchestra_strategy.users import UserMultiStep

__all__ = ["RoundClock", "steps_of", "watch_steps", "workers_of_ray"]

_steps: list[float] = []


def watch_steps() -> None:
    """From now on note the CPU seconds of the local steps in this process."""
    base = importlib.import_module(f"{host.host_root}.ml.nn.core.torch.module").BaseModule
    _time(UserMultiStep, "_run_steps", opens=True)
    # Not `next_batch`: SecretFlow has copied a worker's public methods before a network is built.
    _time(DataLoader, "__iter__", opens=True)
    _time(_BaseDataLoaderIter, "__next__")
    _time(base, "training_step")
    _time(base, "backward_step")


def steps_of(worker: Any) -> list[float]:
    """Return the CPU seconds of each local step, and forget them; for ``worker.apply``."""
    taken = list(_steps)
    _steps.clear()
    return taken


def _time(owner: Any, name: str, opens: bool = False) -> None:
    """Let calls of a method be timed; ``opens`` says whether it begins a step."""
    plain = getattr(owner, name)
    if hasattr(plain, "timed"):
        return

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        begun = time.thread_time()
        result = plain(self, *args, **kwargs)
        if opens:
            _steps.append(0.0)
        _steps[-1] += time.thread_time() - begun
        return result

    timed.timed = True  # type: ignore[attr-defined]
    setattr(owner, name, timed)


def _cpu_seconds(pids: list[int]) -> float:
    """Return the CPU seconds of processes so far, to the nanosecond that Linux counts them in."""
    seconds = 0.0
    for pid in pids:
        try:
            seconds += time.clock_gettime(~pid << 3 | 2)
        except OSError:  # it has ended
            continue
    return seconds


def workers_of_ray(kind: bytes = b"ray::") -> list[int]:
    """Return Ray's processes that compute: the parties' actors, and idle ones for tasks."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:  # it has just ended
            continue
        if command.startswith(kind):
            found.append(int(path.parent.name))
    return found


class RoundClock(host.Callback):  # type: ignore[misc]
    """Notes wall and CPU seconds of each round.

    Args:
        with_ray: Whether the parties are processes of a Ray.
    """

    def __init__(self, with_ray: bool) -> None:
        super().__init__()
        self.with_ray = with_ray
        self.rounds: list[list[float]] = []

    def _now(self) -> list[float]:
        others = workers_of_ray() if self.with_ray else []
        return [time.perf_counter(), time.process_time() + _cpu_seconds(others)]

    def on_epoch_begin(self, epoch: Any = None, logs: Any = None) -> None:
        """Start the clock."""
        self._begun = self._now()

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Stop it: all parties have taken the average in."""
        self.rounds.append([b - a for a, b in zip(self._begun, self._now(), strict=True)])
