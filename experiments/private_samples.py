"""Samples of the experiment on private users: users', and the labelled ones of the probes."""

import argparse
from typing import Any

import numpy as np

from demo_custom_strategy import load_data
from orchestra_strategy.rng import numpy_generator

__all__ = ["samples"]

Data = tuple[Any, Any, Any, Any]


def samples(arguments: argparse.Namespace, seed: int) -> tuple[Any, Data]:
    """Return the users' samples, and the labelled ones of the probes: train and test.

    With ``--held-out`` the second are training samples that neither users nor probes have.
    """
    rng = numpy_generator(seed, "experiment", 0, "users")
    if arguments.cifar is None:
        train_x, train_y, test_x, test_y = load_data()
    else:
        from experiments.cifar import block_means, read_cifar

        train, test, _ = read_cifar(arguments.cifar)
        both = (np.rint(block_means(images.x, arguments.side)) for images in (train, test))
        train_x, test_x = (means.astype(np.uint8) for means in both)
        train_y, test_y = train.y, test.y
    order = rng.permutation(len(train_y))
    own = order[: arguments.users * arguments.per_user]
    bank = order if arguments.cifar is None else order[-5000:]
    if arguments.held_out:
        rest = np.setdiff1d(order, own)
        held_out, bank = rest[::2], rest[1::2]
        test_x, test_y = train_x[held_out], train_y[held_out]
    return train_x[own], (train_x[bank], train_y[bank], test_x, test_y)
