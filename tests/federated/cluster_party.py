"""One party of the toy run as its own process: ``cluster_party.py ME PORT_A PORT_B OUT ROUTE``."""

import sys

import numpy as np

from orchestra_strategy import host
from orchestra_strategy.runtime.session import quiet_host_logs
from tests.federated import toy


def main(me, port_alice, port_bob, out, route):
    with quiet_host_logs():
        run(me, port_alice, port_bob, out, route)


def run(me, port_alice, port_bob, out, route):
    addresses = {"alice": f"127.0.0.1:{port_alice}", "bob": f"127.0.0.1:{port_bob}"}
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
    secure = host.SecureAggregator(devices[0], devices) if route == "secure" else None
    history, states = toy.run(devices, aggregator=secure)
    losses = {f"history/{k}": np.array(v) for k, v in history["global_history"].items()}
    flat = {f"{party}/{k}": v for party, state in states.items() for k, v in state.items()}
    np.savez(out, **losses, **flat)
    host.secretflow.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
