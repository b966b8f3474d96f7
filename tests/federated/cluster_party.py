"""One party of the toy run, as a process of its own."""

import os
from pathlib import Path

import numpy as np

from orchestra_strategy import host
from orchestra_strategy.runtime.session import quiet_host_logs
from tests.federated import toy
from tests.federated.checkpoint_runs import trainer


def main(me, ports, out, route, log):
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    with quiet_host_logs():
        run(me, ports.split(","), out, route)


def run(me, ports, out, route):
    # Here it would be a secret of each party, and nothing could be equal to another run.
    toy.PARAMETERS["streams"] = "seed"
    addresses = {p: f"127.0.0.1:{q}" for p, q in zip(toy.PARTIES, ports[:2], strict=True)}
    host.secretflow.init(
        cluster_config={
            "parties": {p: {"address": a, "listen_addr": a} for p, a in addresses.items()},
            "self_party": me,
        },
        ray_mode=False,
        logging_level="error",
        cross_silo_comm_options={"timeout_in_ms": 60_000},
    )
    devices = [host.PYU(party) for party in toy.PARTIES]
    aggregator = None
    if route == "secure":
        aggregator = host.SecureAggregator(devices[0], devices)
    elif route == "spu":
        aggregator = host.SPUAggregator(toy.spu(ports[2:]))
    if route == "resume":
        history, states = resumed(devices, Path(out).parent / f"disk-of-{me}")
    else:
        dtype = "float16" if route == "float16" else "float32"
        history, states = toy.run(devices, aggregator=aggregator, payload_dtype=dtype)
    losses = {f"history/{k}": np.array(v) for k, v in history["global_history"].items()}
    flat = {f"{party}/{k}": v for party, state in states.items() for k, v in state.items()}
    np.savez(out, **losses, **flat)
    host.secretflow.shutdown()


def resumed(devices, disk):
    """Train a round, and go on from its checkpoint in new workers; nobody has the other's disk."""
    trainer(devices, 1, disk).train(toy.data(devices))
    run = trainer(devices, 2, disk)
    history = run.resume(toy.data(devices)).history
    return {"global_history": history}, toy.states(run.fl_model)
