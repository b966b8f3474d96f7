"""Parties that run ``secretflow component run`` as processes of the operating system."""

import base64
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from secretflow.spec.extend.cluster_pb2 import SFClusterConfig, SFClusterDesc
from secretflow_spec.v1.evaluation_pb2 import NodeEvalResult

from tests.cluster.party_process import CONTEXT
from tests.cluster.ports import free_ports
from tests.component.inputs import PARTIES, storage, write_table

COMMAND = [str(Path(sys.executable).parent / "secretflow"), "component", "run"]


def cluster(me, addresses, backend):
    """Return what a platform tells a party of the job."""
    public = SFClusterConfig.RayFedConfig(parties=[*addresses], addresses=[*addresses.values()])
    desc = SFClusterDesc(parties=[*addresses])
    desc.ray_fed_config.cross_silo_comm_backend = backend
    config = SFClusterConfig(desc=desc, private_config=SFClusterConfig.PrivateConfig(self_party=me))
    config.public_config.ray_fed_config.CopyFrom(public)
    return config


def addresses_of(parties):
    return {p: f"127.0.0.1:{port}" for p, port in zip(parties, free_ports(len(parties)))}


def text(message):
    return base64.b64encode(message.SerializeToString()).decode()


def arguments(folder, me, call, addresses, backend):
    """Return the arguments of a party's command; its storage is a folder of its own name."""
    return [
        *("--eval_param", text(call), "--storage", text(storage(folder / me))),
        *("--cluster", text(cluster(me, addresses, backend))),
        *("--enable_plugins", "True", "--result_file", str(folder / f"{me}.result.json")),
    ]


def outputs(folder, me):
    """Return the descriptions that a party's result file has."""
    result = NodeEvalResult()
    result.ParseFromString(base64.b64decode(told(folder, me)["result"]))
    return list(result.outputs)


def told(folder, me):
    return json.loads((folder / f"{me}.result.json").read_text(encoding="utf-8"))


def start(folder, me, call, addresses, backend):
    """Start a party's command; its output goes to NAME.log."""
    with (folder / f"{me}.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [*COMMAND, *arguments(folder, me, call, addresses, backend)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def run_forked(folder, me, words):
    """Be a party; runs in a process forked from one that has imported all."""
    log = os.open(f"{folder}/{me}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.register(signal.SIGUSR1)  # where it is busy, for the test's message
    from secretflow.cli import cli

    cli(["component", "run", *words])


class Task:
    """A platform's task: the same call at each party, forked; ended at the end of its test.

    Args:
        folder: An empty one; each party's storage is a folder in it.
        backend: SecretFlow's, between the parties.
        parties: Their names; those of ``PARTIES`` have tables.
    """

    def __init__(self, folder, backend, parties=PARTIES):
        self.folder, self.backend = folder, backend
        self.addresses = addresses_of(parties)
        self.tables = [write_table(folder / party, party) for party in PARTIES]
        self.processes = {}

    def start(self, call, *names):
        """Start parties, by default all."""
        for me in names or self.addresses:
            words = arguments(self.folder, me, call, self.addresses, self.backend)
            process = CONTEXT.Process(target=run_forked, args=(str(self.folder), me, words))
            process.start()
            self.processes[me] = process
        return self

    def wait_for(self, me, words, seconds=60):
        """Wait for words in a party's log."""
        end = time.monotonic() + seconds
        while words not in self.log(me):
            assert time.monotonic() < end, self.log(me)
            time.sleep(0.05)

    def end(self, *names, seconds):
        """Wait for parties to end by themselves, and return whether each has succeeded."""
        end = time.monotonic() + seconds
        for name in names or self.processes:
            self.processes[name].join(max(end - time.monotonic(), 0.01))
        codes = {name: self.processes[name].exitcode for name in names or self.processes}
        assert None not in codes.values(), "\n".join(map(self.log, codes))
        return {name: code == 0 for name, code in codes.items()}

    def send(self, name, number):
        os.kill(self.processes[name].pid, number)

    def log(self, name):
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def close(self):
        for process in self.processes.values():
            if process.exitcode is None:
                process.kill()
            process.join(10)
