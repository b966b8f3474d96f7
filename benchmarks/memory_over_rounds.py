"""Resident memory of a long training in one process, with a checkpoint each round or without.

Run: ``python -m benchmarks.memory_over_rounds --rounds 300``; prints one line of JSON.
"""

import argparse
import json
import platform
import tempfile
from typing import Any

import numpy as np

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import fed_ndarray, host, session

MODEL = {"backbone": "conv4", "in_channels": 1}


def resident_mb() -> int:
    """Return the process's resident memory in MB."""
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith("VmRSS")]
    return int(line.split()[1]) // 1024


class Watch(host.Callback):  # type: ignore[misc]
    """Notes the memory after some rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = 0
        self.seen: dict[int, int] = {}

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Note it after rounds 1, 10, 25, 50, and every fiftieth."""
        self.rounds += 1
        if self.rounds in (1, 10, 25) or self.rounds % 50 == 0:
            self.seen[self.rounds] = resident_mb()


def main() -> None:
    """Train, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--without-checkpoints", action="store_true")
    arguments = parser.parse_args()
    watch = Watch()
    rng = np.random.default_rng(0)
    with (
        session(["alice", "bob"], mode="debug") as devices,
        tempfile.TemporaryDirectory() as folder,
    ):
        config = {
            "rounds": arguments.rounds,
            "model": MODEL,
            "parameters": {"local_epochs": 1, "num_global_clusters": 8},
            "checkpoint_dir": None if arguments.without_checkpoints else folder,
            "progress": False,
        }
        data = fed_ndarray({d: rng.random((32, 8, 8), dtype=np.float32) for d in devices})
        FederatedOrchestraTrainer(config, devices).train(data, callbacks=[watch])
    checkpoints = not arguments.without_checkpoints
    told = {"checkpoints": checkpoints, "resident_mb": watch.seen, "machine": platform.processor()}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
