"""FLModel, SecretFlow's own and ours, as the tests of its arguments call it."""

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from orchestra_strategy import host, server_aggregation
from orchestra_strategy.data.sources import fed_ndarray
from tests.federated import toy

SMALL = {"batch_size": 8, "local_epochs": 1, "lr": 0.01}


def plain(devices, **options):
    """SecretFlow's own class."""
    parameters = {**toy.PARAMETERS, **options}
    base = {"device_list": devices, "model": toy.MODEL, "random_seed": 7, "strategy": "orchestra"}
    if "aggregator" not in parameters:
        method = server_aggregation(num_global_clusters=4, seed=7)
        base |= {"server": devices[0], "server_agg_method": method}
    return host.FLModel(**{**base, "backend": "torch", **parameters})


def labels(devices):
    return fed_ndarray({d: np.arange(toy.SIZES[d.party]) % 4 for d in devices})


def fit_plain(model, x, y=None, **options):
    return model.fit(x, x if y is None else y, aggregate_freq=10**6, verbose=0, **options)


def worker(model, party="alice"):
    return next(w for d, w in host.workers_of(model).items() if d.party == party)


def ask(model, function, party="alice"):
    return host.reveal(worker(model, party).apply(function))


def image_builder(path, stage="train"):
    x = torch.from_numpy(np.load(path))
    loader = DataLoader(TensorDataset(x, torch.arange(len(x)) % 4), batch_size=16)
    return loader, len(loader)


def array_files(devices, folder):
    paths = {d: str(folder / f"{d.party}.npy") for d in devices}
    for device, path in paths.items():
        np.save(path, toy.images(device.party))
    return paths
