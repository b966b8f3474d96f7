"""A run small enough for every mode, the same in each: two parties of unequal size, 2 rounds."""

from functools import partial

import numpy as np

from orchestra_strategy import OrchestraFLModel, host, orchestra_model
from orchestra_strategy.data.sources import fed_ndarray

PARTIES = ("alice", "bob")
SIZES = {"alice": 41, "bob": 20}
PARAMETERS = {
    "batch_size": 8,
    "local_epochs": 1,
    "lr": 0.01,
    "num_global_clusters": 4,
    "num_local_clusters": 2,
    "memory_size": 16,
    "ema_decay": 0.9,
}
CLASSES = 3
MODEL = partial(
    *(orchestra_model, "conv4"),
    **{"in_channels": 1, "hidden_dim": 16, "projection_dim": 16, "num_classes": CLASSES},
)


def images(party, size=None):
    """Blobs: an image is bright around a place that depends on the sample."""
    n = SIZES[party] if size is None else size
    rng = np.random.default_rng(PARTIES.index(party))
    centre = rng.uniform(1, 7, (n, 2, 1, 1))
    rows, columns = np.mgrid[:8, :8]
    distance = (rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2
    return np.exp(-distance / 4).astype(np.float32)


def labels(party, size=None):
    """Thirds of the images by where they are bright, from left to right."""
    x = images(party, size)
    place = (x.sum(axis=1) * np.arange(8)).sum(axis=1) / x.sum(axis=(1, 2))
    return np.digitize(place, (3.0, 5.0))


def labels_for(strategy, devices):
    """Labels for a strategy that learns from them; None for any other."""
    if not strategy.needs_labels:
        return None
    return fed_ndarray({d: labels(d.party) for d in devices})


def data(devices):
    return fed_ndarray({d: images(d.party) for d in devices})


def build(devices, **kwargs):
    options = {"server": devices[0], "device_list": devices, "model": MODEL, "random_seed": 7}
    return OrchestraFLModel(**{**options, **PARAMETERS, **kwargs})


def spu(ports, parties=PARTIES):
    """An SPU of the parties, whose shares travel over these ports of the loopback."""
    nodes = [{"party": p, "address": f"127.0.0.1:{q}"} for p, q in zip(parties, ports, strict=True)]
    return host.SPU(
        {"nodes": nodes, "runtime_config": {"protocol": "SEMI2K", "field": "FM128"}},
        link_desc={"connect_retry_times": 60, "connect_retry_interval_ms": 500},
    )


def state_of(worker):
    """All that a party holds after training, as plain arrays: what must be equal in every mode."""
    objective = worker.objective.state_dict()
    state = {f"online/{k}": v.numpy() for k, v in worker.model.state_dict().items()}
    state |= {f"target/{k}": v.numpy() for k, v in objective["target"].items()}
    state["memory"] = objective["memory"]["rows"].numpy()
    state["ids"] = objective["memory"]["ids"].numpy()
    state["centroids"] = objective["centroids"].numpy()
    return state


def run(devices, rounds=2, aggregator=None, **parameters):
    """Train and return history and final states by party; with an aggregator on route secure."""
    options = {} if aggregator is None else {"server": None, "aggregator": aggregator}
    model = build(devices, **options, **parameters)
    history = model.fit(data(devices), epochs=rounds)
    return history, states(model)


def states(model):
    """Return what each party holds, by party."""
    return host.reveal({d.party: w.apply(state_of) for d, w in model.workers.items()})
