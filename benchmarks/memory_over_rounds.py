"""Memory of a long training, with a checkpoint each round or without.

Run: ``python -m benchmarks.memory_over_rounds --rounds 300``, in one process; with ``--cluster``
two parties are processes of cluster mode over 127.0.0.1, with ``--cluster ray`` on a Ray each.
Prints one line of JSON.
"""

import argparse
import json
import multiprocessing
import os
import platform
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import fed_ndarray, host, session

MODEL = {"backbone": "conv4", "in_channels": 1}
PARTIES = ("alice", "bob")


def memory_mb() -> int:
    """Return the resident memory of this process and those below it, in MB, without files'.

    Pages of files, such as torch's libraries, come and go with what else the machine does.
    """
    status = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        except OSError:  # it has just ended
            continue
        status[int(path.parent.name)] = {line[0]: line[1] for line in lines if len(line) > 1}
    family = [os.getpid()]
    for one in family:
        family += [pid for pid, told in status.items() if int(told["PPid:"]) == one]
    return sum(int(status[pid].get("RssAnon:", 0)) for pid in family if pid in status) // 1024


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
            self.seen[self.rounds] = memory_mb()


def config_of(rounds: int, folder: str | None) -> dict[str, Any]:
    """Return the training's settings."""
    return {
        "rounds": rounds,
        "model": MODEL,
        "parameters": {"local_epochs": 1, "num_global_clusters": 8},
        "checkpoint_dir": folder,
        "progress": False,
    }


def samples(party: str) -> Any:
    """Return a party's images."""
    return np.random.default_rng(PARTIES.index(party)).random((32, 8, 8), dtype=np.float32)


def in_one_process(rounds: int, folder: str | None) -> dict[int, int]:
    """Train in debug mode, and return what was seen."""
    watch = Watch()
    with session(list(PARTIES), mode="debug") as devices:
        data = fed_ndarray({d: samples(d.party) for d in devices})
        FederatedOrchestraTrainer(config_of(rounds, folder), devices).train(data, callbacks=[watch])
    return watch.seen


def as_party(me: str, cluster: dict[str, Any], rounds: int, folder: str | None, out: Any) -> None:
    """Train as one party, and put what was seen into a queue."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as own:
        np.save(Path(own) / "samples.npy", samples(me))
        with session(mode="cluster", cluster={**cluster, "self_party": me}) as devices:
            paths = {d: str(Path(own) / "samples.npy") for d in devices}  # another's is not read
            kept = None if folder is None else str(Path(folder) / me)
            trainer = FederatedOrchestraTrainer(config_of(rounds, kept), devices)
            trainer.train(paths, callbacks=[watch])
    out.put((me, watch.seen))


def in_a_cluster(backend: str, rounds: int, folder: str | None) -> dict[str, dict[int, int]]:
    """Train as two processes, and return what each party saw."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PARTIES]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    addresses = {p: {"address": f"127.0.0.1:{n}"} for p, n in zip(PARTIES, ports, strict=True)}
    cluster = {"parties": addresses, "backend": backend}
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    processes = [
        context.Process(target=as_party, args=(me, cluster, rounds, folder, out)) for me in PARTIES
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode != 0:
            raise SystemExit(process.exitcode)
    return dict(out.get() for _ in PARTIES)


def main() -> None:
    """Train, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--without-checkpoints", action="store_true")
    parser.add_argument("--cluster", nargs="?", const="threads", choices=["threads", "ray"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = None if arguments.without_checkpoints else folder
        seen = (
            in_one_process(arguments.rounds, kept)
            if arguments.cluster is None
            else in_a_cluster(arguments.cluster, arguments.rounds, kept)
        )
    told = {"checkpoints": kept is not None, "cluster": arguments.cluster, "memory_mb": seen}
    print(json.dumps({**told, "machine": platform.processor()}))


if __name__ == "__main__":
    main()
