"""What all benchmarks here share: CPU time, taking turns, medians and quartiles, a result file."""

import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import torch

__all__ = [
    "child_seconds",
    "command_line",
    "machine",
    "quartiles",
    "ratios",
    "taking_turns",
    "write_result",
]


def machine() -> dict[str, Any]:
    """Return what a number depends on: processor, cores, versions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    {'median': 3.0, 'first_quartile': 2.0, 'third_quartile': 4.0}
    """
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    numbers = {"median": statistics.median(values), "first_quartile": low, "third_quartile": high}
    return {name: round(number, 4) for name, number in numbers.items()}


def taking_turns(
    ways: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return the CPU seconds of every call of every way; they take turns, and share the noise."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(-warm_up, repeats):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            if repeat >= 0:
                seconds[name].append(time.process_time() - begun)
    return seconds


def child_seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """Return wall and CPU seconds of the processes that a call starts and waits for."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run()
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begun
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall, cpu


def ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles of the ratios of two ways, turn by turn."""
    return quartiles([a / b for a, b in zip(over, under, strict=True)])


def command_line(benchmark: str) -> str:
    """Return how this process was started, for the result."""
    return " ".join([f"python -m benchmarks.{benchmark}", *map(quote, sys.argv[1:])])


def write_result(out: Path | None, command: str, results: Any) -> None:
    """Print a result as JSON, and write it with its command and machine where ``out`` says so."""
    whole = {"command": command, "machine": machine(), "results": results}
    text = json.dumps(whole, indent=1)
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
