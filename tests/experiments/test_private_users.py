"""The experiment on private users: who has which samples, and how noise is scaled."""

from argparse import Namespace

import numpy as np
import pytest

from experiments.cifar import block_means
from experiments.private_samples import samples
from experiments.private_users import noise_of


def test_held_out_samples_belong_to_training_and_to_nobody_else() -> None:
    wanted = Namespace(cifar=None, users=500, per_user=2, held_out=True)
    users, (bank, _, test, test_y) = samples(wanted, seed=0)
    train, (_, _, real_test, _) = samples(Namespace(**{**vars(wanted), "held_out": False}), seed=0)
    np.testing.assert_array_equal(users, train)
    assert [len(users), len(bank) + len(test)] == [1000, 437]
    assert len(test) == len(test_y)
    rows = {name: {x.tobytes() for x in part} for name, part in (("users", users), ("bank", bank))}
    held_out = {x.tobytes() for x in test}
    assert not held_out & (rows["users"] | rows["bank"] | {x.tobytes() for x in real_test})


def test_smaller_images_are_means_of_blocks() -> None:
    x = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(1, 2, 4, 4)
    wanted = [[[[2.5, 4.5], [10.5, 12.5]], [[18.5, 20.5], [26.5, 28.5]]]]
    assert block_means(x, 2).tolist() == wanted


def test_a_larger_cohort_has_its_share_of_the_noise() -> None:
    as_they_are, as_more = (noise_of(8.0, 1e-5, 2, 100, cohort) for cohort in (100, 1000))
    assert as_more == pytest.approx(as_they_are / 10)
