"""Runs with checkpoints, their files, and all that their parties keep."""

import numpy as np
import torch

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import host, session
from orchestra_strategy.checkpoints.party import party_folder
from orchestra_strategy.checkpoints.round_files import RoundFiles
from orchestra_strategy.checkpoints.state import state_of
from orchestra_strategy.privacy import epsilon_of
from orchestra_strategy.privacy.accounting import Release
from tests.federated import toy

MODEL = {"backbone": "conv4", "in_channels": 1, "hidden_dim": 16, "projection_dim": 16}
GROUP = {**MODEL, "norm": "group"}
SHARED = {k: toy.PARAMETERS[k] for k in ("batch_size", "local_epochs", "lr")}
USER = {"privacy": "user", "noise_multiplier": 2.0, "noise_seed": 1}
RECORD = {**USER, "privacy": "record"}
VIRTUAL = {"user_type": "multiuser_aggregate", "num_virtual_users": 4, "users_per_round": 2}


def trainer(devices, rounds, folder, *, secure=False, **config):
    """A run of the toy; parameters of its own are added to the toy's."""
    own = config.pop("parameters", {})
    clusterless = config.get("strategy", "orchestra").startswith(("fed_", "orchestra_simple"))
    base = SHARED if clusterless else toy.PARAMETERS
    aggregator = host.SecureAggregator(devices[0], list(devices)) if secure else None
    values = {
        "rounds": rounds,
        "seed": 7,
        "model": MODEL,
        "parameters": {**base, **own},
        "progress": False,
        "checkpoint_dir": None if folder is None else str(folder),
        **config,
    }
    return FederatedOrchestraTrainer(values, devices, aggregator=aggregator)


def flat(value, name=""):
    """Nested state as {path: array or plain value}."""
    if isinstance(value, dict):
        value = value.items()
    elif isinstance(value, list | tuple):
        value = enumerate(value)
    else:
        return {name: value.numpy().copy() if isinstance(value, torch.Tensor) else value}
    found = {}
    for key, item in value:
        found |= flat(item, f"{name}/{key}")
    return found


def states(run):
    workers = run.fl_model.workers
    return host.reveal(
        {d.party: w.apply(lambda x: flat(state_of(x).as_dict())) for d, w in workers.items()}
    )


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == ours[name].dtype, name
            assert value.tobytes() == ours[name].tobytes(), name
        else:
            assert value == ours[name], name


def numbers(results):
    """What a training yields, without its times."""
    timed = ("seconds", "images_per_second")
    ledger = [{k: v for k, v in row.items() if k not in timed} for row in results.ledger]
    return results.history, ledger, results.rounds, results.epsilon


PRIVATE = {"strategy": "orchestra_private", "model": GROUP, "parameters": USER}


def made(folder, rounds=3, **options):
    with session(toy.PARTIES, mode="debug") as devices:
        return trainer(devices, rounds, folder, **options).train(toy.data(devices))


def bobs(folder, round_index):
    return party_folder(str(folder), "bob") / f"round-{round_index:06d}.ckpt"


def kept(folder):
    """Rounds that each owner of a folder has committed to."""
    return {p.name: RoundFiles(p, "").committed() for p in sorted(folder.iterdir())}


def epsilon(releases):
    return epsilon_of({Release(2.0): releases}, 1e-5)
