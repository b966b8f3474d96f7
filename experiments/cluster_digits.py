"""A cluster job on digits: three processes, mutual TLS, ``orchestra-fl train``, on both routes.

``python -m experiments.cluster_digits --out cluster.json`` writes a job's file, keys and three
parties' data to a new folder, runs the three commands of docs/cluster.md over 127.0.0.1, once for
each route, and measures the encoders as the demo does.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from demo_custom_strategy import CONFIG, load_data
from orchestra_strategy import load_encoder
from orchestra_strategy.cluster import make_certificates
from orchestra_strategy.data.partition import dirichlet_partition
from orchestra_strategy.evaluation import extract_features, probe_protocol, write_json

PARTIES = ("alice", "bob", "carol")
LABELS = (1, 5, 20, None)
ROUTES = {"server": {"server": "alice"}, "secure": {"aggregator": "secure"}}


def prepare(folder: Path, route: str, rounds: int) -> None:
    """Write data, keys and the job's file."""
    train_x, train_y, _, _ = load_data()
    parts = dirichlet_partition(train_y, len(PARTIES), alpha=0.5, seed=0, min_size=16)
    for party, part in zip(PARTIES, parts, strict=True):
        np.save(folder / f"{party}.npy", train_x[part])
    make_certificates(folder / "keys", PARTIES)
    job = {
        **CONFIG,
        "rounds": rounds,
        "progress": False,
        "parties": {party: {"address": f"127.0.0.1:{_free_port()}"} for party in PARTIES},
        "data": "{party}.npy",
        "out_dir": "out-{party}",
        "tls": {"ca": "keys/ca.pem", "cert": "keys/{party}.pem", "key": "keys/{party}.key"},
        **ROUTES[route],
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False), encoding="utf-8")


def run(route: str, rounds: int, limit: float) -> dict[str, Any]:
    """Train once as three processes, and return exit codes, seconds and accuracies in %."""
    train_x, train_y, test_x, test_y = load_data()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, route, rounds)
        begun = time.perf_counter()
        command = [sys.executable, "-m", "orchestra_strategy", "train", "job.yaml", "--party"]
        processes = [subprocess.Popen([*command, party], cwd=folder) for party in PARTIES]
        codes = [process.wait(limit) for process in processes]
        seconds = time.perf_counter() - begun
        encoder = load_encoder(folder / "out-bob").model
    features = {
        "orchestra": (extract_features(encoder, train_x), extract_features(encoder, test_x))
    }
    probes = probe_protocol(features, train_y, test_y, LABELS, 5, root_seed=0)["orchestra"]
    accuracy = {probe: 100 * result.mean for probe, result in probes.items()}
    return {"route": route, "exit_codes": codes, "seconds": seconds, "accuracy": accuracy}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> None:
    """Run both routes, and print and write what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=26)
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a route")
    parser.add_argument("--out", type=Path, default=Path("cluster.json"))
    arguments = parser.parse_args()
    runs = [run(route, arguments.rounds, arguments.limit) for route in ROUTES]
    for one in runs:
        cells = ", ".join(f"{probe} {value:.1f}" for probe, value in one["accuracy"].items())
        print(f"{one['route']}: {one['seconds']:.0f} s, exit codes {one['exit_codes']}, {cells}")
    write_json(arguments.out, {"rounds": arguments.rounds, "runs": runs})


if __name__ == "__main__":
    main()
