"""What does a round of FLModel cost around the training, against SecretFlow's own ``fed_avg_w``?

Both train the same network on the same labelled data by one local step a round, whose time is taken
off: what is left is what a federated round costs beside training. ``fed_supervised`` goes through
:class:`OrchestraFLModel` and a server, without and with the check of the encoder's health, which
``fed_avg_w`` has not. That goes through SecretFlow's ``PlainAggregator``, and through the leanest
``server_agg_method`` there is: one line that weighs, names and checks nothing.

They take turns in one SecretFlow: in process (``debug``), on a local Ray (``local``), as two
processes over SecretFlow's gRPC on 127.0.0.1 (``cluster``), and over this package's
``session(mode="cluster")`` (``our cluster``). All runs on one CPU, so that no party's work hides
behind another's; CPU seconds are those of parties, server and driver, not of Ray's machinery.

Run: ``python -m benchmarks.flmodel_round [--modes debug local cluster ...] [--out FILE]``.
"""

import argparse
import io
import multiprocessing
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measuring import quartiles, ratios, write_result
from benchmarks.round_clock import RoundClock, steps_of, watch_steps
from orchestra_strategy import OrchestraFLModel, OrchestraModel, fed_ndarray, host, session
from orchestra_strategy.algorithms.backbones import build_backbone
from orchestra_strategy.runtime.session import quiet_host_logs

PARTIES = ("alice", "bob")
ROWS, CLASSES = 16, 10
NETWORKS = ("conv4", "resnet18")
MODES = ("debug", "local", "cluster", "our cluster")
REFERENCE, LEANEST = "fed_avg_w, PlainAggregator", "fed_avg_w, server_agg_method"
OURS, WITH_HEALTH = "fed_supervised", "fed_supervised, health_samples=256"
CONTENDERS = (REFERENCE, LEANEST, OURS, WITH_HEALTH)


class Classifier(OrchestraModel):
    """The network of all; called, it gives logits (B, classes)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of images (B, H, W)."""
        features = super().forward(x.float())
        return self.classifier(self.projector(features))  # type: ignore[operator,no-any-return]


def network(backbone: str) -> nn.Module:
    """Return the network; at a worker, its local steps are timed from now on."""
    watch_steps()
    torch.manual_seed(0)
    model = Classifier(
        build_backbone(backbone, in_channels=1), heads=("classifier",), num_classes=CLASSES
    )
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # SecretFlow's aggregator cannot write back an array without a dimension.
            module.num_batches_tracked = torch.zeros(1, dtype=torch.long)
    return model


class ClassLoss(nn.Module):
    """Cross entropy with the labels as SecretFlow hands them on: floats."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of logits (B, classes) and labels (B,)."""
        return F.cross_entropy(logits, labels.flatten().long())


def plain_mean(payloads: Sequence[Any]) -> list[Any]:
    """Return the mean of the parties' lists of arrays, for each party."""
    mean = [np.mean(arrays, axis=0) for arrays in zip(*payloads, strict=True)]
    return [mean] * len(payloads)


def built(contender: str, backbone: str, devices: list[Any]) -> Any:
    """Return the FLModel of a contender."""
    build = partial(network, backbone)
    if contender in (OURS, WITH_HEALTH):
        health = 256 if contender == WITH_HEALTH else 0
        return OrchestraFLModel(
            server=devices[0],
            device_list=devices,
            model=build,
            strategy="fed_supervised",
            batch_size=ROWS,
            local_epochs=1,
            health_samples=health,
            stop_on_collapse=False,
        )
    optimizer = partial(torch.optim.SGD, lr=0.003, momentum=0.9, weight_decay=1e-4)
    through = {"aggregator": host.PlainAggregator(devices[0])}
    if contender == LEANEST:
        through = {"server": devices[0], "server_agg_method": plain_mean}
    return host.FLModel(
        device_list=devices,
        model=host.TorchModel(model_fn=build, loss_fn=ClassLoss, optim_fn=optimizer),
        strategy="fed_avg_w",
        backend="torch",
        random_seed=0,
        **through,
    )


def one_turn(model: Any, x: Any, y: Any, rounds: int, mode: str) -> list[list[float]]:
    """Train, and return of each round wall and CPU seconds, and CPU seconds of its local steps."""
    clock = RoundClock(with_ray=mode == "local")
    with redirect_stdout(io.StringIO()):  # SecretFlow prints every loss
        model.fit(x, y, batch_size=ROWS, epochs=rounds, verbose=0, callbacks=[clock])
    workers = host.workers_of(model).values()
    # In one process the first to be asked has the steps of all, in the order in which they came.
    found = [step for of_one in map(host.reveal, _asked(workers)) for step in of_one]
    order = (rounds, len(PARTIES)) if mode == "debug" else (len(PARTIES), rounds)
    steps = np.array(found).reshape(order).sum(axis=1 if mode == "debug" else 0)
    return [[*spent, float(local)] for spent, local in zip(clock.rounds, steps, strict=True)]


def _asked(workers: Iterable[Any]) -> list[Any]:
    return [worker.apply(steps_of) for worker in workers]


def take_turns(devices: list[Any], mode: str, turns: int, rounds: int) -> dict[str, Any]:
    """Return what :func:`one_turn` gave of all turns, by network and contender."""
    images = np.random.default_rng(0).random((ROWS, 16, 16), dtype=np.float32)
    labels = np.arange(ROWS) % CLASSES
    x, y = (fed_ndarray(dict.fromkeys(devices, values)) for values in (images, labels))
    seen: dict[str, Any] = {}
    for backbone in NETWORKS:
        models = {name: built(name, backbone, devices) for name in CONTENDERS}
        seen[backbone] = {name: [] for name in CONTENDERS}
        for turn in range(turns + 1):
            for name, model in models.items():
                rows = one_turn(model, x, y, rounds, mode)
                seen[backbone][name] += rows if turn else []  # the first one is to get warm
    return seen


def as_party(me: str, mode: str, ports: list[int], turns: int, rounds: int, out: Any) -> None:
    """Take turns as one of two processes, and put what was seen into a queue."""
    addresses = {p: {"address": f"127.0.0.1:{n}"} for p, n in zip(PARTIES, ports, strict=True)}
    torch.set_num_threads(1)
    if mode == "our cluster":
        with session(mode="cluster", cluster={"parties": addresses, "self_party": me}) as devices:
            out.put((me, take_turns(devices, mode, turns, rounds)))
        return
    with quiet_host_logs():
        host.secretflow.init(
            cluster_config={"parties": addresses, "self_party": me},
            ray_mode=False,
            logging_level="error",
            cross_silo_comm_options={"timeout_in_ms": 60_000},
        )
        devices = [host.PYU(party) for party in PARTIES]
        out.put((me, take_turns(devices, mode, turns, rounds)))
        host.secretflow.shutdown()


def in_two_processes(mode: str, turns: int, rounds: int) -> dict[str, Any]:
    """Return the same of two processes: of both the longer wall time and all CPU seconds."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PARTIES]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    more = (mode, ports, turns, rounds, out)
    processes = [context.Process(target=as_party, args=(me, *more)) for me in PARTIES]
    for process in processes:
        process.start()
    parts = [out.get(timeout=3600)[1] for _ in processes]
    for process in processes:
        process.join()
    both = np.array([[list(of.values()) for of in part.values()] for part in parts])
    rows = np.stack([both[..., 0].max(0), both[..., 1].sum(0), both[0, ..., 2]], axis=-1).tolist()
    return {
        net: dict(zip(CONTENDERS, of_net, strict=True))
        for net, of_net in zip(NETWORKS, rows, strict=True)
    }


def measured(mode: str, turns: int, rounds: int) -> dict[str, Any]:
    """Return what was seen in a mode."""
    if "cluster" in mode:
        return in_two_processes(mode, turns, rounds)
    if mode == "debug":
        with session(list(PARTIES), mode="debug") as devices:
            return take_turns(devices, mode, turns, rounds)
    with quiet_host_logs():
        # `session` counts on one training at a time; here are workers of eight.
        host.secretflow.init(
            list(PARTIES), address="local", num_cpus=64, log_to_driver=False, logging_level="error"
        )
        try:
            return take_turns([host.PYU(party) for party in PARTIES], mode, turns, rounds)
        finally:
            host.secretflow.shutdown()


def summary(seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return medians and quartiles of milliseconds outside of local steps, and the ratios."""
    told: dict[str, Any] = {}
    for net, by_name in seen.items():
        rows = {n: 1000 * np.array(r) for n, r in by_name.items()}
        spent = {
            n: {"wall": (r[:, 0] - r[:, 2]).tolist(), "cpu": (r[:, 1] - r[:, 2]).tolist()}
            for n, r in rows.items()
        }
        told[net] = {
            n: {kind: quartiles(values) for kind, values in of.items()} for n, of in spent.items()
        }
        for name in (OURS, WITH_HEALTH):
            told[net][name]["times"] = {
                other: {
                    kind: ratios(spent[name][kind], spent[other][kind]) for kind in ("wall", "cpu")
                }
                for other in (REFERENCE, LEANEST)
            }
    return told


def payload_bytes(backbone: str) -> dict[str, float]:
    """Return the bytes that a party sends in a round, beside those of the network."""
    with session(list(PARTIES), mode="debug") as devices:
        model = built(OURS, backbone, devices)
        rows = [r for r in model.manifest() if r["when"] in ("round", "both")]
    trained = network(backbone)
    floats = [t for t in trained.state_dict().values() if t.is_floating_point()]
    encoder = 4 * sum(t.numel() for t in floats)
    sent = sum(row["bytes"] for row in rows)
    return {"network": encoder, "sent": sent, "over_percent": round(100 * (sent / encoder - 1), 3)}


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    found = {mode: summary(measured(mode, given.turns, given.rounds)) for mode in given.modes}
    results = {
        "cpus": 1,
        "parties": len(PARTIES),
        "rounds": given.turns * given.rounds,
        "bytes_of_a_round": {backbone: payload_bytes(backbone) for backbone in NETWORKS},
        "milliseconds_outside_of_local_steps_quartiles": found,
    }
    write_result(given.out, "python -m benchmarks.flmodel_round", results)


if __name__ == "__main__":
    main()
