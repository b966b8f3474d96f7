"""Parties of a job as processes of the operating system, forked from one that has imported all.

Importing SecretFlow takes seconds; a fork server that has done it starts a party in no time. Each
party runs ``orchestra-fl train`` in a folder, and writes to ``NAME.log`` there.
"""

import faulthandler
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import yaml

from tests.cluster.ports import NAMES, free_ports

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.cluster.party_process", "federated_orchestra"])
AGAIN = 75  # the exit code of a party that is to be forked anew


def die_at(number):
    """End this process by force when it is about to change the name of a checkpoint, or remove one.

    Args:
        number: How many times it may do so before.
    """
    left = [number]

    def dying(real):
        def act(path, *more, **options):
            if Path(path).name.startswith(("round-", ".round-")) and Path(path).exists():
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
            return real(path, *more, **options)

        return act

    os.replace, os.unlink = dying(os.replace), dying(os.unlink)
    Path._accessor.unlink = staticmethod(os.unlink)  # Python 3.10 has taken it at its import


def main(folder, name, arguments, file_limit, dies, forks):
    """Be a party; runs in the forked process."""
    os.chdir(folder)
    log = os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable()  # says where it is busy when a test ends it
    os.environ["PYTHONFAULTHANDLER"] = "1"  # and if it starts its command anew
    if file_limit is not None:  # a disk that is full
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    if dies is not None:
        die_at(dies)
    from orchestra_strategy import cli

    if forks:
        cli.start_again = lambda asked: fork_again(name, asked)
    sys.argv = ["orchestra-fl", "train", *arguments]
    sys.exit(cli.process())


def fork_again(name, arguments):
    """End, and ask to be forked with other arguments, in place of a Python that imports all."""
    sys.stdout.flush()
    sys.stderr.flush()
    Path(f"{name}.again").write_text(json.dumps(arguments[1:]), encoding="utf-8")
    os._exit(AGAIN)


class Job:
    """A job in a folder; files, processes, and what came of them.

    Args:
        folder: An empty one.
        parties: How many.
        **changed: Fields of the job's file.
    """

    def __init__(self, folder, parties=2, **changed):
        self.folder = Path(folder)
        self.names = list(NAMES[:parties])
        self.processes = {}
        ports = free_ports(parties)
        self.values = {
            "strategy": "orchestra",
            "rounds": 2,
            "model": {"backbone": "conv4", "in_channels": 1, "hidden_dim": 16},
            "parameters": {
                **{"local_epochs": 1, "batch_size": 8, "memory_size": 16, "health_samples": 0},
                **{"num_global_clusters": 4, "num_local_clusters": 2, "streams": "seed"},
            },
            "parties": {
                name: {"address": f"127.0.0.1:{port}"}
                for name, port in zip(self.names, ports, strict=True)
            },
            "data": "{party}.npy",
            "out_dir": "out-{party}",
            "progress": False,
            "cluster": {"start_timeout": 20, "heartbeat": 0.2, "peer_timeout": 6},
            **changed,
        }
        for number, name in enumerate(self.names):
            images = np.random.default_rng(number).random((24, 1, 8, 8), np.float32)
            np.save(self.folder / f"{name}.npy", images)
        self.write()

    def write(self, name="job.yaml", **changed):
        """Write the job's file, or another version of it."""
        values = {**self.values, **changed}
        (self.folder / name).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return name

    def start(self, *names, job="job.yaml", more=(), file_limit=None, dies=None, forks=False):
        """Start parties; all of them by default."""
        for name in names or self.names:
            self._fork(name, [job, "--party", name, *more], file_limit, dies, forks)
        return self

    def start_again(self):
        """Fork those anew that have asked for it (``forks``)."""
        for name, process in list(self.processes.items()):
            if process.exitcode == AGAIN:
                asked = (self.folder / f"{name}.again").read_text(encoding="utf-8")
                self._fork(name, json.loads(asked), None, None, forks=True)

    def _fork(self, name, arguments, file_limit, dies, forks):
        process = CONTEXT.Process(
            target=main, args=(str(self.folder), name, arguments, file_limit, dies, forks)
        )
        process.start()
        self.processes[name] = process

    def end(self, *names, seconds):
        """Wait for parties to end by themselves, and return their exit codes."""
        end = time.monotonic() + seconds
        for name in names or self.names:
            self.processes[name].join(max(end - time.monotonic(), 0.01))
        late = [n for n in names or self.names if self.processes[n].exitcode is None]
        for name in late:
            self.send(name, signal.SIGABRT)
        time.sleep(0.5 if late else 0)
        assert not late, f"{late} still run after {seconds} s:\n" + "\n".join(map(self.log, late))
        return {name: self.processes[name].exitcode for name in names or self.names}

    def send(self, name, number):
        """Send a party a signal."""
        os.kill(self.processes[name].pid, number)

    def wait_for(self, pattern, seconds=30):
        """Wait for a file."""
        end = time.monotonic() + seconds
        while not list(self.folder.glob(pattern)):
            assert time.monotonic() < end, (pattern, [self.log(n) for n in self.processes])
            time.sleep(0.02)

    def log(self, name):
        """Return all that a party has printed."""
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def close(self):
        """Leave no process behind."""
        for process in self.processes.values():
            if process.exitcode is None:
                process.kill()
            process.join(10)
