"""Progress of a training, and its costs: one row per round."""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from statistics import median
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from orchestra_strategy import host
from orchestra_strategy.party.privacy.protected import EPSILON, SNR
from orchestra_strategy.runtime.privacy_budget import spent
from orchestra_strategy.runtime.traffic import Exchange

__all__ = ["RoundProgress"]

_LINE_SECONDS = 600.0
_NARROW, _WIDE = 60, 80  # columns


class _Left(ProgressColumn):
    """The time that is left, by the newest rounds; rich's own forgets what is older than 30 s."""

    def render(self, task: Task) -> Text:
        ends = task.fields["ends"]
        if ends is None:
            return Text("-:--:--", style="progress.remaining")
        left = timedelta(seconds=max(0, round(ends - time.monotonic())))
        return Text(str(left), style="progress.remaining")


class _Bar(Progress):
    """A line with the bar and the times, and one with the losses, which a narrow window cuts."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            yield Text(f"  {task.fields['status']}", no_wrap=True, overflow="ellipsis")


class RoundProgress(host.Callback):  # type: ignore[misc]
    """FLModel callback: a progress bar with the losses and the speed, and the cost ledger.

    Args:
        rounds: How many rounds there will be.
        exchange: Bytes that a party sends and gets in a round.
        console: Where to draw; None draws nothing.
        past: The ledger of the rounds that a resumed training has behind it.
        absent: Parties that the training goes on without.

    Attributes:
        ledger: Per epoch of FLModel: ``round`` (the last one), ``rounds``, ``seconds``, ``samples``
            (that all parties trained on), ``images_per_second``, ``bytes_up_per_party`` (at most),
            ``bytes_down_per_party``,
            ``left_out`` (parties that the server did without) and the losses of the last round.
    """

    def __init__(
        self,
        rounds: int,
        exchange: Exchange,
        console: Console | None,
        past: Sequence[dict[str, Any]] = (),
        absent: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.absent = list(absent)
        self.rounds = rounds
        self._done = {"rounds": 0, "rows": 0}
        self._left_out: dict[str, int] = {}
        self.exchange = exchange
        self.ledger: list[dict[str, Any]] = [*past]
        self._console = console
        drawn = console is not None and (console.is_terminal or console.is_jupyter)
        width = console.width if console is not None else 0
        said = [TextColumn("training")] if width >= _NARROW else []
        elapsed = [TimeElapsedColumn()] if width >= _NARROW else []
        self._bar = _Bar(
            *said,
            BarColumn(bar_width=24 if width >= _WIDE else 8),
            MofNCompleteColumn(),
            TextColumn("rounds"),
            *elapsed,
            _Left(),
            TextColumn("left"),
            console=console,
            disable=not drawn,
        )
        self._task: Any = None
        self._begun = 0.0
        self._last_line = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        """Draw the bar; round 0 is over by now."""
        by_party = self._work()
        self._left_out = {party: work["left_out"] for party, work in by_party.items()}
        self._done = self._total(by_party)
        self._bar.start()
        self._task = self._bar.add_task(
            "training", total=self.rounds, completed=len(self.ledger), status="", ends=None
        )

    def on_epoch_begin(self, epoch: Any = None, logs: Any = None) -> None:
        """Start the clock of a round."""
        self._begun = time.perf_counter()

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Note what the round cost and yielded; asking for the losses waits for the parties."""
        metrics = {k: float(v) for k, v in self._calc_aggregated_metrics().items()}
        if EPSILON in metrics:  # the host has taken the mean of what is a bound
            metrics[EPSILON] = spent(self._workers or {})["epsilon"]
        seconds = time.perf_counter() - self._begun
        by_party = self._work()
        done = self._total(by_party)
        left_out, self._left_out = self._left_out, {p: w["left_out"] for p, w in by_party.items()}
        rounds, samples = (done[key] - self._done[key] for key in ("rounds", "rows"))
        self._done = done
        row = {
            "round": done["rounds"],
            "rounds": rounds,
            "seconds": seconds,
            "samples": samples,
            "images_per_second": samples / seconds,
            "bytes_up_per_party": self.exchange.up * rounds,
            "bytes_down_per_party": self.exchange.down * rounds,
            "left_out": self.absent
            + [p for p, n in self._left_out.items() if n > left_out.get(p, 0)],
            **metrics,
        }
        self.ledger.append(row)
        self._show(row, metrics)

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the finished bar standing."""
        self.close()

    def close(self) -> None:
        """Stop drawing; also after an error, so that the terminal is left in order."""
        self._bar.stop()

    def _work(self) -> dict[str, dict[str, int]]:
        workers = self._workers or {}
        work: dict[str, dict[str, int]] = host.reveal(
            {d.party: worker.work_done() for d, worker in workers.items()}
        )
        return work

    @staticmethod
    def _total(by_party: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
        work = by_party.values()
        return {"rounds": max(w["rounds"] for w in work), "rows": sum(w["rows"] for w in work)}

    def _show(self, row: dict[str, Any], metrics: dict[str, float]) -> None:
        losses = "  ".join(
            f"{name.removeprefix('train_')} {value:.3f}"
            for name, value in metrics.items()
            if name.startswith("train_")
        )
        if EPSILON in metrics:
            losses += f"  epsilon {metrics[EPSILON]:.3g}"
        if SNR in metrics:
            losses += f"  signal/noise {metrics[SNR]:.2g}"
        status = f"{losses}  {row['images_per_second']:,.0f} samples/s"
        newest = [row["seconds"] for row in self.ledger[-10:]]
        left = median(newest) * (self.rounds - len(self.ledger))
        ends = time.monotonic() + left
        self._bar.update(self._task, advance=1, status=status, ends=ends)
        if self._console is not None and self._bar.disable:
            self._show_line(self._console, status, left)

    def _show_line(self, console: Console, status: str, left: float) -> None:
        """Print a line in place of the bar: about ten in all, and one every ten minutes."""
        every = max(1, self.rounds // 10)
        epoch, now = len(self.ledger), time.monotonic()
        due = epoch % every == 0 or epoch in (1, self.rounds)
        if not due and now - self._last_line < _LINE_SECONDS:
            return
        self._last_line = now
        told = f"  round {epoch:>3}/{self.rounds}  {timedelta(seconds=round(left))} left  {status}"
        console.print(told, soft_wrap=True)  # a line of a file is one line, whatever its length
