"""A linear probe whose labels stay at their parties, trained by SecretFlow's own ``fed_avg_w``.

B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, https://arxiv.org/abs/1602.05629, on the features of a frozen encoder. What leaves a
party: the number, shape and type of its samples with the lowest and the highest label; the sum and
sum of squares of its features, to standardise them alike everywhere; the linear layer's weights
once a round; and how many of its test rows were right. The server, or the driver, sees it in the
clear.
"""

import io
import math
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from orchestra_strategy import host
from orchestra_strategy.errors import DataError
from orchestra_strategy.rng import derive_seed
from orchestra_strategy.runtime import probe_party
from orchestra_strategy.runtime.checks import check_devices
from orchestra_strategy.runtime.probe_driver import (
    LabelledParts,
    check_numbers,
    global_state_kept,
    sampling_rate,
)
from orchestra_strategy.threads import torch_threads

__all__ = ["FederatedProbeResult", "federated_linear_probe"]


@dataclass(frozen=True)
class FederatedProbeResult:
    """A linear classifier that was trained over parties, and how it does.

    Attributes:
        accuracy: Fraction of all parties' test rows that are right; None without test data.
        per_party: The same of each party.
        num_test: Test rows of each party.
        num_train: Training rows of each party.
        weight: Shape (num_classes, d), for features as the encoder gives them.
        bias: Shape (num_classes,).
    """

    accuracy: float | None
    per_party: dict[str, float]
    num_test: dict[str, int]
    num_train: dict[str, int]
    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def predict(self, features: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the classes (m,) of features (m, d) of one's own, by the same encoder."""
        return probe_party.classify(features, self.weight, self.bias)


def federated_linear_probe(
    encoder: nn.Module,
    x: Any,
    y: Any,
    devices: list[Any],
    server: Any,
    num_classes: int,
    test_x: Any = None,
    test_y: Any = None,
    rounds: int = 30,
    batch_size: int = 64,
    lr: float = 3.0,
    momentum: float = 0.9,
    seed: int = 0,
    k_min: int = 4,
) -> FederatedProbeResult:
    """Train a linear classifier on frozen features of several parties; features and labels stay.

    Features are standardised by the statistics of all parties and divided by sqrt(d), so one
    learning rate suits every encoder. A round is a walk of each party through its rows and one
    average of the weights, by number of rows. Of a party whose rows don't divide evenly into the
    steps, FLModel leaves a few out of a walk, others in each.

    Args:
        encoder: Maps a batch (B, ...) to features (B, d); every party gets a copy, which has to
            leave the process where SecretFlow runs on Ray.
        x: FedNdarray or HDataFrame of samples, or an array by device; one part for each device.
        y: The same of classes 0 to ``num_classes`` - 1, shape (n,) or (n, 1).
        devices: The parties' PYUs, at least two.
        server: The PYU that averages; it may be one of the parties.
        num_classes: At least 2; the same for all parties, whichever classes they have.
        test_x: Samples at the parties to measure on; None measures nothing.
        test_y: Their classes.
        rounds: Rounds of averaging.
        batch_size: Rows per step at the largest party; others take as many steps, of fewer rows.
        lr: Learning rate of SGD.
        momentum: Of SGD.
        seed: Gives the order of the rows; the global generators of this process stay as they are.
        k_min: The smallest number of rows of which a party may give a sum away.

    Raises:
        DataError: A party's samples or labels cannot be used; all problems in one message.
        HostError: The devices cannot be used, or do not start.
        ParameterError: A number is out of its range.
    """
    check_devices(server, devices)
    check_numbers(num_classes, rounds, batch_size, lr, momentum, seed, k_min)
    if (test_x is None) != (test_y is None):
        missing = "test_x" if test_x is None else "test_y"
        raise DataError(f"Expected `test_x` and `test_y` together, got no `{missing}`.")
    train = LabelledParts(x, y, devices, ("x", "y"))
    num_train = train.check(num_classes, k_min)
    test = None if test_x is None else LabelledParts(test_x, test_y, devices, ("test_x", "test_y"))
    num_test = test.check(num_classes, 1) if test is not None else {}
    with global_state_kept(), torch_threads(1):
        features = {d: d(probe_party.features_of)(encoder, train.x[d]) for d in devices}
        sums = [d(probe_party.sums_of)(features[d]).to(server) for d in devices]
        scale = server(probe_party.scale_from)(sums)
        weights = _train(
            {d: d(probe_party.scaled)(features[d], scale.to(d)) for d in devices},
            {d: d(probe_party.one_hot)(train.y[d], num_classes) for d in devices},
            server,
            num_classes,
            sampling_rate(num_train, batch_size),
            rounds,
            partial(torch.optim.SGD, lr=lr, momentum=momentum),
            seed,
        )
        weight, bias = probe_party.unscaled(weights, host.reveal(scale))
        correct = {} if test is None else _count_correct(encoder, test, weight, bias)
    return FederatedProbeResult(
        accuracy=sum(correct.values()) / sum(num_test.values()) if num_test else None,
        per_party={party: right / num_test[party] for party, right in correct.items()},
        num_test=num_test,
        num_train=num_train,
        weight=weight,
        bias=bias,
    )


def _train(
    features: dict[Any, Any],
    targets: dict[Any, Any],
    server: Any,
    num_classes: int,
    rate: float,
    rounds: int,
    optimizer: Any,
    seed: int,
) -> list[npt.NDArray[np.float32]]:
    """Return the averaged weight and bias for scaled features."""
    x, y = (
        host.FedNdarray(partitions=parts, partition_way=host.PartitionWay.HORIZONTAL)
        for parts in (features, targets)
    )
    width = next(iter(x.partition_shape().values()))[1]
    # FLModel takes 0 for "draw one", and the host's generators take 32 bits.
    host_seed = derive_seed(seed, "federated probe", 0, "order") % (2**31 - 1) + 1
    model = host.FLModel(
        device_list=list(features),
        model=host.TorchModel(
            model_fn=partial(probe_party.linear_layer, width, num_classes),
            loss_fn=nn.CrossEntropyLoss,
            optim_fn=optimizer,
        ),
        aggregator=host.PlainAggregator(server),
        strategy="fed_avg_w",
        backend="torch",
        random_seed=host_seed,
    )
    with redirect_stdout(io.StringIO()):  # its workers print their losses once a round
        model.fit(
            x,
            y,
            batch_sampling_rate=rate,
            aggregate_freq=math.ceil(1.0 / rate),
            epochs=rounds,
            verbose=0,
            shuffle=True,
            random_seed=host_seed,
        )
    worker = next(iter(host.workers_of(model).values()))
    weights: list[npt.NDArray[np.float32]] = host.reveal(worker.get_weights())
    return weights


def _count_correct(
    encoder: nn.Module,
    test: LabelledParts,
    weight: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float64],
) -> dict[str, int]:
    counts = {
        d.party: d(probe_party.count_correct)(encoder, test.x[d], test.y[d], weight, bias)
        for d in test.devices
    }
    correct: dict[str, int] = host.reveal(counts)
    return correct
