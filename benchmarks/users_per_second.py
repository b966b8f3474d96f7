"""How many virtual users a core trains in a second, beside Apple's simulator ``pfl``.

A party hosts users of 20 digits each (1,797 digits, drawn with replacement; ``conv4``, one pass in
one batch, SGD with momentum and weight decay). Cases: ``orchestra`` is ``orchestra_aggregate``;
``plain`` is a strategy of cross entropy of labels, with virtual users; ``pfl`` is the same
work by ``pfl.algorithm.federated_averaging`` on its ``SimulatedBackend``, where the package is
installed (``pip install "pfl[pytorch]==0.6.0"``; it is no dependency). Each case runs in a process
of its own with one thread, turn by turn; what counts is the CPU time of a round, without round 0
and without what is set up before. Writes JSON: ``python benchmarks/users_per_second.py --out F``.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from benchmarks.measuring import quartiles, write_result
from orchestra_strategy import FederatedStrategy, OrchestraStrategy, orchestra_model
from orchestra_strategy.party.own_server import answer_of_one

_LONGEST = 3600  # seconds of a process
SAMPLES = 20
LR, MOMENTUM, DECAY = 0.003, 0.9, 1e-4
PLAIN_MODEL = partial(
    orchestra_model, "conv4", in_channels=1, heads=("classifier",), num_classes=10
)


def digits(users: int) -> tuple[Any, Any]:
    """Return images (n, 8, 8) and labels (n,) of all users, 20 for each."""
    found = load_digits()
    rows = np.random.default_rng(0).integers(len(found.images), size=users * SAMPLES)
    return (found.images[rows] / 16.0).astype(np.float32), found.target[rows]


class Plain(FederatedStrategy):
    """Cross entropy of labels, on images as they are."""

    needs_labels = True

    def make_objective(self) -> Any:
        """Return the objective."""

        def objective(model: Any, batch: Any) -> Any:
            outputs = model(batch["inputs"][:, None])
            return torch.nn.functional.cross_entropy(outputs, batch["labels"])

        return objective


def ours(strategy: Any, model: Callable[[], Any], users: int, **options: Any) -> Callable[[], Any]:
    """Return what does one round of a party."""
    party = strategy(
        model,
        user_type="multiuser_aggregate",
        num_virtual_users=users,
        batch_size=SAMPLES,
        local_epochs=1,
        lr=LR,
        health_samples=0,
        **options,
    )
    party.build_dataset(*digits(users))
    party.apply_weights(answer_of_one(party, party.get_weights()))
    return lambda: party.train_step(None, 0, 1)


def orchestra(users: int) -> Callable[[], Any]:
    """Return a round of ``orchestra_aggregate``."""
    model = partial(orchestra_model, "conv4", in_channels=1)
    return ours(OrchestraStrategy, model, users, num_global_clusters=32)


def plain(users: int) -> Callable[[], Any]:
    """Return a round of cross entropy."""
    return ours(Plain, PLAIN_MODEL, users)


def by_pfl(users: int, rounds: int) -> list[float]:
    """Return the CPU seconds of pfl's rounds after the first, which evaluates."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = PLAIN_MODEL()

        def loss(self, x: Any, y: Any) -> Any:
            self.train()
            return torch.nn.functional.cross_entropy(self.net(x), y)

        def metrics(self, x: Any, y: Any) -> dict[str, Any]:
            return {}

    class Clock(TrainingProcessCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []

        def after_central_iteration(self, metrics: Any, model: Any, **_: Any) -> Any:
            self.times.append(time.process_time())
            return False, type(metrics)()

    images, labels = digits(users)
    x = torch.from_numpy(images)[:, None]
    y = torch.from_numpy(labels)
    parts = [slice(i * SAMPLES, (i + 1) * SAMPLES) for i in range(users)]
    data = FederatedDataset(
        lambda user: Dataset(raw_data=[x[parts[user]], y[parts[user]]]),
        get_user_sampler("minimize_reuse", list(range(users))),
    )
    net, clock = Net(), Clock()
    model = PyTorchModel(
        net,
        partial(torch.optim.SGD, momentum=MOMENTUM, weight_decay=DECAY),
        torch.optim.SGD(net.parameters(), lr=1.0),
    )
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds + 1,
            evaluation_frequency=10**6,
            train_cohort_size=users,
            val_cohort_size=0,
        ),
        SimulatedBackend(training_data=data, val_data=data),
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=LR, local_batch_size=SAMPLES),
        callbacks=[clock],
    )
    return [float(seconds) for seconds in np.diff(clock.times)]


def seconds_of(case: str, users: int, rounds: int) -> list[float]:
    """Return the CPU seconds of each round of a case."""
    torch.set_num_threads(1)
    if case == "pfl":
        return by_pfl(users, rounds)
    step = {"orchestra": orchestra, "plain": plain}[case](users)
    step()
    seconds = []
    for _ in range(rounds):
        begun = time.process_time()
        step()
        seconds.append(time.process_time() - begun)
    return seconds


def summary(seconds: list[float], users: int) -> dict[str, Any]:
    """Return users per CPU second: median and quartiles over rounds."""
    rates = quartiles([users / s for s in seconds])
    return {"users_per_cpu_second": rates, "cpu_seconds": seconds}


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("users_per_second.json"))
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="of each process")
    parser.add_argument("--turns", type=int, default=2, help="processes of each case")
    parser.add_argument("--case", help="measure one case, and print its seconds")
    told = parser.parse_args(argv)
    if told.case:
        print(json.dumps(seconds_of(told.case, told.users, told.rounds)))
        return
    cases = ["orchestra", "plain", *(["pfl"] if find_spec("pfl") else [])]
    found: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(told.turns):
        for case in cases:
            numbers = ["--users", str(told.users), "--rounds", str(told.rounds)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.users_per_second", "--case", case, *numbers],
                timeout=_LONGEST,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found[case] += json.loads(done.stdout.splitlines()[-1])
    torch.set_num_threads(1)  # as in each case
    command = f"--users {told.users} --rounds {told.rounds} --turns {told.turns}"
    write_result(
        told.out,
        f"python -m benchmarks.users_per_second {command}",
        {case: summary(seconds, told.users) for case, seconds in found.items()},
    )


if __name__ == "__main__":
    main()
