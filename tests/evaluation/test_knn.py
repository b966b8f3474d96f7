import math

import pytest
import torch

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import knn, knn_accuracy, knn_predict

# Cosines with the query (1, 0), in this order: 1, 0.8, 0, -1.
BANK = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]])
LABELS = torch.tensor([0, 1, 1, 0])
QUERY = torch.tensor([[1.0, 0.0]])


def slow_knn(bank, labels, queries, k, temperature):
    """Section 3.4 of the paper, one query and one neighbour at a time."""
    predictions = []
    for query in queries.tolist():
        neighbours = []
        for row, label in zip(bank.tolist(), labels.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(query, row, strict=True))
            neighbours.append((dot / (math.hypot(*query) * math.hypot(*row)), label))
        neighbours.sort(reverse=True)
        votes = {}
        for cosine, label in neighbours[:k]:
            votes[label] = votes.get(label, 0.0) + math.exp(cosine / temperature)
        predictions.append(max(votes, key=votes.get))
    return predictions


@pytest.fixture
def random_set():
    generator = torch.Generator().manual_seed(3)
    bank = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (60,), generator=generator)
    return bank, labels, torch.randn(40, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("k", "temperature", "expected"),
    [
        (1, 1.0, 0),  # the first neighbour alone
        (2, 1.0, 0),  # e^1 = 2.72 against e^0.8 = 2.23
        (3, 1.0, 1),  # e^1 = 2.72 against e^0.8 + e^0 = 3.23
        (4, 1.0, 1),  # e^1 + e^-1 = 3.09 against 3.23
        (200, 1.0, 1),  # k is the train size where that is smaller
        (4, 0.1, 0),  # e^10 = 22026 against e^8 + 1 = 2982
    ],
)
def test_four_bank_vectors_by_hand(k, temperature, expected):
    assert knn_predict(BANK, LABELS, QUERY, k, temperature).tolist() == [expected]


def test_defaults_are_k_200_and_temperature_0_1():
    # 200 rows of class 0 at cosine 0.6 and 1 of class 1 at cosine 1: at T = 0.1, k = 200 the votes
    # are 199 e^6 = 80281 and e^10 = 22026; at T = 0.07 199 e^8.57 = 1.05e6 and e^14.3 = 1.6e6.
    bank = torch.cat([torch.tensor([[0.6, 0.8]]).repeat(200, 1), QUERY])
    labels = torch.tensor([0] * 200 + [1])
    assert knn_predict(bank, labels, QUERY).tolist() == [0]
    assert knn_predict(bank, labels, QUERY, temperature=0.07).tolist() == [1]
    # 150 nearer rows of class 0, then 250 of class 1: only the 200 nearest vote.
    bank = torch.cat([QUERY.repeat(150, 1), torch.tensor([[0.99, 0.141]]).repeat(250, 1)])
    labels = torch.tensor([0] * 150 + [1] * 250)
    assert knn_predict(bank, labels, QUERY).tolist() == [0]
    assert knn_predict(bank, labels, QUERY, k=400).tolist() == [1]


@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_equals_the_slow_reference(random_set, k, temperature):
    fast = knn_predict(*random_set, k, temperature)
    assert fast.dtype == torch.int64
    assert fast.tolist() == slow_knn(*random_set, k, temperature)


@pytest.mark.parametrize("entries", [1, 60 * 7])
def test_blocks_change_nothing(random_set, monkeypatch, entries):
    whole = knn_predict(*random_set).tolist()
    monkeypatch.setattr(knn, "_BLOCK_ENTRIES", entries)
    assert knn_predict(*random_set).tolist() == whole


def test_length_of_a_feature_does_not_count(random_set):
    bank, labels, queries = random_set
    scale = torch.arange(1, 61)[:, None]
    assert torch.equal(
        knn_predict(bank * scale, labels, 9 * queries), knn_predict(bank, labels, queries)
    )


def test_small_temperature_does_not_overflow():
    # exp(1 / 0.001) is infinite; two infinite votes would make class 0 win.
    bank = torch.tensor([[0.9, 0.43589], [1.0, 0.0]])
    assert knn_predict(bank, torch.tensor([0, 1]), QUERY, temperature=0.001).tolist() == [1]


def test_row_of_zeros_follows_the_majority():
    labels = torch.tensor([0, 1, 1, 1])
    assert knn_predict(BANK, labels, torch.zeros(1, 2)).tolist() == [1]


def test_equal_votes_go_to_the_lowest_class():
    bank = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    assert knn_predict(bank, torch.tensor([2, 1]), QUERY).tolist() == [1]


@pytest.mark.parametrize("other", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_may_differ(other):
    assert knn_predict(BANK, LABELS, QUERY.to(other), 3, 1.0).tolist() == [1]
    assert knn_predict(BANK.to(other), LABELS, QUERY.to(other), 3, 1.0).tolist() == [1]


def test_half_precision_is_not_used_for_the_cosines():
    # Cosines 0.9998 and 0.99995: both are 1.0 in float16, and the first row would win the tie.
    bank = torch.tensor([[1.0, 0.02], [1.0, 0.01]], dtype=torch.float16)
    assert knn_predict(bank, torch.tensor([0, 1]), QUERY.half(), k=1).tolist() == [1]


def test_small_integer_labels():
    assert knn_predict(BANK, LABELS.to(torch.uint8), QUERY, 3, 1.0).tolist() == [1]


def test_accuracy_is_the_fraction_of_correct_rows():
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-1.0, 0.1]])
    # Nearest neighbours: rows 0, 2, 3, 3, of classes 0, 1, 0, 0; the last query's class is 1.
    truth = torch.tensor([0, 1, 0, 1])
    assert knn_accuracy(BANK, LABELS, queries, truth, k=1) == 0.75
    # By all four votes at T = 1 the query (1, 0) goes to class 1, see above.
    assert knn_accuracy(BANK, LABELS, QUERY, truth[:1], temperature=1.0) == 0.0


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"k": 0}, ParameterError, "`k` to be at least 1, got 0"),
        ({"temperature": 0.0}, ParameterError, "`temperature` to be above 0, got 0.0"),
        ({"temperature": math.nan}, ParameterError, "`temperature` to be above 0, got nan"),
        ({"num_classes": 1}, ParameterError, "`num_classes` to be above the highest label 1, got"),
        ({"train_features": BANK[:, 0]}, DataError, "`train_features` to be a non-empty"),
        ({"train_labels": LABELS[:3]}, DataError, "`train_labels` to have shape"),
        ({"test_features": BANK / 0}, DataError, "`test_features` to be finite"),
        ({"test_features": BANK[:, :1]}, DataError, "same number of columns, got 2 and 1. Extract"),
    ],
)
def test_refuses(changed, error, message):
    arguments = {"train_features": BANK, "train_labels": LABELS, "test_features": QUERY}
    with pytest.raises(error, match=message):
        knn_predict(**(arguments | changed))


def test_accuracy_refuses_labels_of_another_length():
    with pytest.raises(DataError, match=r"`test_labels` to have shape \(1,\)"):
        knn_accuracy(BANK, LABELS, QUERY, LABELS)
