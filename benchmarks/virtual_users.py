"""Does a worker's memory grow with the number of virtual users it hosts?

Runs one round of ``orchestra_aggregate`` on a local Ray with two parties, once with 10 and once
with 1,000 virtual users of 20 digits each (1,797 digits, drawn with replacement), each in a fresh
Ray, and compares the workers' peak resident memory. Writes JSON:
``python benchmarks/virtual_users.py --out F``.
"""

import argparse
import resource
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.datasets import load_digits

from orchestra_strategy import OrchestraFLModel, host, orchestra_model, session
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.evaluation import write_json

PARTIES = ("alice", "bob")
SAMPLES_PER_USER = 20
LIMIT_MB = 150.0


def peak_megabytes(worker: Any) -> float:
    """Return the peak resident memory of the process that a worker runs in (Linux: KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_round(num_users: int) -> dict[str, Any]:
    """Run round 0 and one round of training with ``num_users`` users over two parties."""
    per_party = num_users // len(PARTIES)
    images = (load_digits().images / 16.0).astype(np.float32)
    rng = np.random.default_rng(0)
    with session(PARTIES, mode="local") as devices:
        draws = {d: rng.integers(len(images), size=per_party * SAMPLES_PER_USER) for d in devices}
        model = OrchestraFLModel(
            server=devices[0],
            device_list=devices,
            model=partial(orchestra_model, "conv4", in_channels=1),
            strategy="orchestra_aggregate",
            num_virtual_users=per_party,
            batch_size=SAMPLES_PER_USER,
            local_epochs=1,
            num_global_clusters=32,
        )
        begun = time.perf_counter()
        model.fit(fed_ndarray({d: images[rows] for d, rows in draws.items()}), epochs=1)
        seconds = time.perf_counter() - begun
        workers = {d.party: w.apply(peak_megabytes) for d, w in model.workers.items()}
        done = {d.party: w.apply(_users_done) for d, w in model.workers.items()}
        peaks, users = host.reveal(workers), host.reveal(done)
    return {"users": sum(users.values()), "seconds": seconds, "peak_mb": peaks}


def _users_done(worker: Any) -> int:
    return len(worker.user_type.user.users_done)


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("virtual_users.json"))
    parser.add_argument("--users", type=int, nargs=2, default=[10, 1000])
    arguments = parser.parse_args(argv)
    few, many = (one_round(n) for n in arguments.users)
    growth = {p: many["peak_mb"][p] - few["peak_mb"][p] for p in PARTIES}
    result = {"few": few, "many": many, "growth_mb": growth, "limit_mb": LIMIT_MB}
    result["within_limit"] = max(growth.values()) <= LIMIT_MB
    write_json(arguments.out, result)
    Console().print_json(data=result)


if __name__ == "__main__":
    main()
