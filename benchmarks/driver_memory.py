"""How much memory does a round take at the driver and at the server, over what leaves the parties?

Five parties send about 45 MB of weights each. ``server``: the peak of the process that aggregates,
with the payloads as they have come in and the answer, for each way to combine them. ``local``: the
peaks of the driver and of Ray's processes that run the aggregation, from before ``fit`` to behind
fetching the averaged weights; Ray's shared memory, in which payloads wait, is not among them.

Run: ``python -m benchmarks.driver_memory [--modes server local] [--out FILE]``.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import write_result
from benchmarks.round_clock import workers_of_ray
from orchestra_strategy import OrchestraFLModel, fed_ndarray, orchestra_model, session
from orchestra_strategy.aggregation.server import server_aggregation
from orchestra_strategy.exchange.half import narrowed
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.weights import read_weights
from orchestra_strategy.free_memory import free_memory
from orchestra_strategy.host import reveal

PARTIES = ("alice", "bob", "carol", "dave", "eve")
MODEL = partial(orchestra_model, "resnet18", in_channels=1, hidden_dim=16, projection_dim=16)
WAYS: dict[str, dict[str, Any]] = {
    "mean": {},
    "median": {"aggregation": "median"},
    "trimmed_mean": {"aggregation": "trimmed_mean", "trim": 0.2},
}


def reset_peak(pid: str = "self") -> int:
    """Let a process's peak be what it holds now; return that, in bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return _bytes_of(pid, "VmRSS")


def peak(pid: str = "self") -> int:
    """Return the most that a process has held since, in bytes."""
    return _bytes_of(pid, "VmHWM")


def _bytes_of(pid: str, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


def wires(dtype: str) -> list[dict[str, Any]]:
    """Return what five parties send in a round."""
    meta = {"version": 1, "round": 1, "phase": "round", "num_samples": 7}
    found = []
    for number in range(len(PARTIES)):
        torch.manual_seed(number)
        weights = read_weights(MODEL())
        entries = {
            n: Entry(n, a.shape, dtype, "weighted mean", "server", "") for n, a in weights.items()
        }
        found.append({"meta": dict(meta), "arrays": narrowed(weights, entries, "a party")})
    return found


def at_the_server(way: str, dtype: str) -> dict[str, float]:
    """Return MB that leave the parties, and those at the server over what it held before."""
    payloads = wires(dtype)
    leaves = sum(a.nbytes for wire in payloads for a in wire["arrays"].values())
    free_memory()  # so that what is needed from here on shows
    held = reset_peak()
    replies = server_aggregation(**WAYS[way])(payloads)
    grown = peak() - held + leaves
    assert len(replies) == len(PARTIES)
    return _row(leaves, {"server": grown})


def on_local_ray(dtype: str) -> dict[str, float]:
    """Return MB that leave the parties in a round, and those of the driver and of Ray's workers."""
    with session(list(PARTIES), mode="local") as devices:
        model = OrchestraFLModel(
            server=devices[0],
            device_list=devices,
            model=MODEL,
            strategy="fed_rotpred",
            batch_size=8,
            local_epochs=1,
            health_samples=0,
            payload_dtype=dtype,
        )
        images = np.random.default_rng(0).random((8, 16, 16), dtype=np.float32)
        data = fed_ndarray(dict.fromkeys(devices, images))
        rows = [row for row in model.manifest() if row["when"] in ("round", "both")]
        leaves = len(PARTIES) * sum(row["bytes"] for row in rows)
        model.fit(data, epochs=1)  # libraries are loaded, and the server's task has a process
        tasks = [str(pid) for pid in workers_of_ray(b"ray::IDLE")]
        before = {pid: reset_peak(pid) for pid in ("self", *tasks)}
        model.fit(data, epochs=2)
        reveal(next(iter(model.workers.values())).averaged_weights())
        grown = {pid: peak(pid) - held for pid, held in before.items()}
    return _row(
        leaves, {"driver": grown["self"], "server's task": max(grown[pid] for pid in tasks)}
    )


def _row(leaves: int, grown: dict[str, int]) -> dict[str, float]:
    told = {f"{who}_mb": round(n / 1e6, 1) for who, n in grown.items()}
    told |= {f"{who}_times": round(n / leaves, 2) for who, n in grown.items()}
    return {"leaves_mb": round(leaves / 1e6, 1), **told}


def main() -> None:
    """Print what was held as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--modes", nargs="+", choices=["server", "local"], default=["server", "local"]
    )
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for dtype in ("float32", "float16"):
        if "server" in given.modes:
            found |= {f"server, {way}, {dtype}": at_the_server(way, dtype) for way in WAYS}
        if "local" in given.modes:
            found[f"local, {dtype}"] = on_local_ray(dtype)
    results = {"parties": len(PARTIES), "peaks": found}
    write_result(given.out, "python -m benchmarks.driver_memory", results)


if __name__ == "__main__":
    main()
