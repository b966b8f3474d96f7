from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import IterableDataset, TensorDataset

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.users import construct_dataloader
from orchestra_strategy.users.dataloader import PARTITIONS, user_indices

LABELS = np.repeat([0, 1, 2], [10, 7, 4])
INPUTS = np.arange(21, dtype=np.float32).reshape(21, 1)


def cfg_data(**changes):
    defaults = {"inputs": INPUTS, "labels": LABELS, "default_clients": 3, "batch_size": 4}
    return SimpleNamespace(**{**defaults, **changes})


def positions(cfg, idx, impl=None):
    """Which samples a user has, in its order."""
    batches = list(construct_dataloader(cfg, impl, idx))
    x = [b["inputs"] if isinstance(b, dict) else b[0] for b in batches]
    return torch.cat(x).flatten().int().tolist()


@pytest.mark.parametrize("partition", ["balanced", "mixup", "random"])
def test_every_sample_belongs_to_one_user(partition):
    parts = [positions(cfg_data(partition=partition), idx) for idx in range(3)]
    assert sorted(i for part in parts for i in part) == list(range(21))
    assert [len(part) for part in parts] == [7, 7, 7]


def test_balanced_has_every_class_at_every_user():
    for idx in range(3):
        counts = np.bincount(LABELS[positions(cfg_data(partition="balanced"), idx)])
        assert all(abs(n - total / 3) < 1 for n, total in zip(counts, (10, 7, 4)))


def test_balanced_begins_with_a_block_of_each_class():
    """As the field's reference deals them; what it drops comes last."""
    labels = np.array([0, 1, 2] * 5)  # 15 samples, 3 classes, 2 users: blocks of 15 // 3 // 2 = 2
    first, second = user_indices("balanced", labels, 15, 2, seed=0)
    assert first.tolist() == [0, 3, 1, 4, 2, 5, 12, 14]
    assert second.tolist() == [6, 9, 7, 10, 8, 11, 13]


def test_a_data_set_in_place_of_the_configurations():
    mine = TensorDataset(torch.arange(6.0).view(6, 1))
    batches = list(construct_dataloader(cfg_data(partition="mixup"), None, 1, dataset=mine))
    assert [x.flatten().tolist() for (x,) in batches] == [[1.0, 4.0]]


def test_a_shuffle_with_replacement():
    impl = SimpleNamespace(shuffle=True, sample_with_replacement=True)
    drawn = positions(cfg_data(), 1, impl)
    assert drawn == positions(cfg_data(), 1, impl)
    assert len(drawn) == 7
    assert len(set(drawn)) < 7
    assert set(drawn) <= set(positions(cfg_data(), 1))


def test_unique_class_has_one_class_per_user():
    for idx in range(3):
        mine = positions(cfg_data(partition="unique-class"), idx)
        assert mine == np.flatnonzero(idx == LABELS).tolist()


def test_mixup_takes_every_nth_and_none_takes_all():
    assert positions(cfg_data(partition="mixup"), 1) == list(range(1, 21, 3))
    assert positions(cfg_data(partition="none", default_clients=1), 0) == list(range(21))


@given(
    partition=st.sampled_from(sorted(set(PARTITIONS) - {"none", "unique-class"})),
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    users=st.integers(1, 9),
    seed=st.integers(0, 3),
)
def test_parts_are_disjoint_complete_and_even(partition, labels, users, seed):
    if len(labels) < users:
        with pytest.raises(DataError, match=rf"one sample per user, got {len(labels)} for {users}"):
            user_indices(partition, np.array(labels), len(labels), users, seed)
        return
    parts = user_indices(partition, np.array(labels), len(labels), users, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_random_depends_on_the_seed():
    parts = [positions(cfg_data(seed=seed), 0) for seed in (0, 0, 1)]
    assert parts[0] == parts[1]
    assert parts[0] != parts[2]


def test_shuffle_is_seeded_by_user_and_leaves_the_global_generator_alone():
    impl = SimpleNamespace(shuffle=True, threads=0, pin_memory=False)
    before = torch.random.get_rng_state()
    stored = positions(cfg_data(), 1)
    shuffled = positions(cfg_data(), 1, impl)
    assert torch.equal(before, torch.random.get_rng_state())
    assert shuffled == positions(cfg_data(), 1, impl)
    assert shuffled != stored
    assert sorted(shuffled) == stored


def test_batches_are_named_and_of_the_size_asked_for():
    batches = list(construct_dataloader(cfg_data(), None, 0))
    assert [len(b["inputs"]) for b in batches] == [4, 3]
    assert set(batches[0]) == {"inputs", "labels"}
    assert batches[0]["inputs"].shape == (4, 1)


def test_unlabelled_arrays_and_text():
    assert set(next(iter(construct_dataloader(cfg_data(labels=None), None, 0)))) == {"inputs"}
    text = cfg_data(inputs=None, labels=None, input_ids=torch.zeros(21, 5, dtype=torch.int64))
    assert next(iter(construct_dataloader(text, None, 0)))["input_ids"].shape == (4, 5)


def test_a_data_set_with_and_without_targets():
    data = TensorDataset(torch.from_numpy(INPUTS), torch.from_numpy(LABELS))
    mine = positions(cfg_data(inputs=None, labels=None, dataset=data), 2)
    assert mine == positions(cfg_data(), 2)
    with pytest.raises(DataError, match="Expected labels for `partition` 'balanced', got unlabell"):
        construct_dataloader(cfg_data(dataset=data, partition="balanced"), None, 0)
    data.targets = LABELS.tolist()
    mine = positions(cfg_data(dataset=data, partition="balanced"), 2)
    assert mine == positions(cfg_data(partition="balanced"), 2)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("error", "changes", "idx", "message"),
    [
        (ParameterError, {}, 3, r"`user_idx` to be in 0..2 \(`default_clients` = 3\), got 3"),
        (ParameterError, {}, -1, r"`user_idx` to be in 0..2 .*got -1"),
        (ParameterError, {"partition": "balance"}, 0, r"got 'balance'; did you mean `balanced`"),
        (ParameterError, {"partition": "none"}, 0, r"'none' with `default_clients` = 1, got 3"),
        (
            ParameterError,
            {"partition": "unique-class", "default_clients": 4},
            0,
            r"number of classes for `partition` 'unique-class', got 4 > 3",
        ),
        (ParameterError, {"batch_size": None}, 0, r"`cfg_data` to have `batch_size`"),
        (ParameterError, {"default_clients": None}, 0, r"`cfg_data` to have `default_clients`"),
        (ParameterError, {"default_clients": 0}, 0, r"`default_clients` to be an integer >= 1"),
        (DataError, {"default_clients": 22}, 0, r"one sample per user, got 21 for 22 users"),
        (DataError, {"labels": LABELS[:20]}, 0, r"the same rows, got \{'inputs': 21, 'labels': 20"),
        (DataError, {"inputs": None}, 0, r"data as `dataset`, `inputs` or `input_ids`, got none"),
        (DataError, {"dataset": Stream()}, 0, r"map-style data set with a length, got Stream"),
    ],
)
def test_errors(error, changes, idx, message):
    with pytest.raises(error, match=message):
        construct_dataloader(cfg_data(**changes), None, idx)
