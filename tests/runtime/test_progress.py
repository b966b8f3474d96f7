"""Progress as it looks: in windows of several widths, and in a file."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from orchestra_strategy.runtime import progress as module
from orchestra_strategy.runtime.progress import RoundProgress
from orchestra_strategy.runtime.traffic import Exchange

NOTHING = Exchange(0, 0, 0, 0)
METRICS = {"train_loss": 1.25, "train_cluster": 0.5, "train_degeneracy": 0.75, "health_x": 1.0}


class Clock:
    """The module's time, which passes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    perf_counter = monotonic


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(module, "time", fake)
    return fake


class Told(RoundProgress):
    """Progress of parties that are not there: a round is what a test says."""

    done = 0

    def _work(self):
        return {"alice": {"rounds": self.done, "rows": 100 * self.done, "left_out": 0}}

    def _calc_aggregated_metrics(self):
        return {name: np.float64(value) for name, value in METRICS.items()}


def train(console, clock, rounds, seconds):
    """Draw rounds of so many seconds each, of ``rounds`` that there will be."""
    bar = Told(rounds, NOTHING, console)
    bar.on_train_begin()
    for length in seconds:
        bar.on_epoch_begin()
        clock.now += length
        bar.done += 1
        bar.on_epoch_end()
    bar.close()
    return bar


def lines(console):
    """What stands in the window at the end, without colours and cursor movements."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.mark.parametrize("width", [44, 60, 80, 120])
def test_a_window_shows_round_and_times_whole_at_any_width(width, clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    train(console, clock, 26, [90.0] * 3)
    *_, bar, losses = lines(console)
    assert bar.endswith(" 0:34:30 left")
    assert "3/26 rounds" in bar
    assert "…" not in bar
    assert len(bar) <= width
    assert len(losses) <= width
    assert losses.startswith("  loss 1.250  cluster 0.500")
    assert losses.endswith("samples/s" if width >= 60 else "…")


def test_what_is_left_is_known_of_rounds_of_minutes_and_counts_down(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    bar = Told(10, NOTHING, console)
    bar.on_train_begin()
    column = module._Left()
    task = bar._bar.tasks[0]
    assert column.render(task).plain == "-:--:--"
    bar.on_epoch_begin()
    clock.now += 300
    bar.done += 1
    bar.on_epoch_end()
    assert column.render(task).plain == "0:45:00"
    clock.now += 60
    assert column.render(task).plain == "0:44:00"
    clock.now += 10_000  # a round that takes longer than those before
    assert column.render(task).plain == "0:00:00"
    bar.close()


def test_a_file_has_a_line_for_a_tenth_of_the_rounds_and_no_bar(clock):
    console = Console(file=io.StringIO(), width=40)
    train(console, clock, 40, [2.0] * 40)
    found = lines(console)
    assert [re.search(r"round +(\d+)/40", line)[1] for line in found] == [
        *("1", "4", "8", "12", "16", "20", "24", "28", "32", "36", "40")
    ]
    assert found[1] == (
        "  round   4/40  0:01:12 left  loss 1.250  cluster 0.500  degeneracy 0.750  50 samples/s"
    )


def test_a_file_hears_of_long_rounds_every_ten_minutes(clock):
    console = Console(file=io.StringIO(), width=80)
    train(console, clock, 1000, [250.0] * 7)
    assert [re.search(r"round +(\d+)/", line)[1] for line in lines(console)] == ["1", "4", "7"]


def test_without_a_console_nothing_is_drawn(clock, capsys):
    bar = train(None, clock, 3, [1.0] * 3)
    assert len(bar.ledger) == 3
    assert capsys.readouterr().out == ""
