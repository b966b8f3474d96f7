"""Weighted k-nearest-neighbour classification on frozen features: an evaluation without training.

Z. Wu, Y. Xiong, S. X. Yu, D. Lin, "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", CVPR 2018, section 3.4, https://arxiv.org/abs/1805.01978. They set k = 200 and
temperature 0.07; the field's monitors (MoCo, SimSiam, and Orchestra's evaluation) use 0.1, and so
do we.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation.array_checks import check_features, check_labels

__all__ = ["knn_accuracy", "knn_predict", "knn_votes"]

_BLOCK_ENTRIES = 2**24  # similarities held at a time: 64 MiB in float32


@torch.no_grad()
def knn_votes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    k: int = 200,
    temperature: float = 0.1,
    num_classes: int | None = None,
) -> Tensor:
    """Let the k most similar training rows vote with weight exp(cosine / temperature).

    A row of zeros is equally similar (0) to everything; which of several equally similar rows is
    the k-th neighbour is left open.

    Args:
        train_features: The bank, shape (n, d), floating; need not be normalised.
        train_labels: Its classes, shape (n,), integer.
        test_features: Shape (m, d).
        k: Neighbours that vote; the train size if that is smaller.
        temperature: How much nearer neighbours count for more; > 0.
        num_classes: Number of classes; the highest label + 1 by default.

    Returns:
        The classes' shares of the votes, shape (m, num_classes), rows of sum 1.

    Raises:
        DataError: Features or labels are empty, not finite, or do not match.
        ParameterError: ``k``, ``temperature`` or ``num_classes`` is out of its range.

    >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> knn_votes(bank, torch.tensor([0, 1]), torch.tensor([[1.0, 1.0]])).tolist()
    [[0.5, 0.5]]
    """
    num_classes = _check(train_features, train_labels, test_features, k, temperature, num_classes)
    # One dtype for the product, and not float16: its cosines are too coarse to rank neighbours.
    dtype = torch.promote_types(train_features.dtype, test_features.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    bank = normalize(train_features.to(dtype), dim=1)
    labels = train_labels.long()
    k = min(k, len(bank))
    shares = []
    for block in torch.split(test_features, max(1, _BLOCK_ENTRIES // len(bank))):
        similarities = normalize(block.to(dtype), dim=1) @ bank.T  # (b, n)
        nearest, indices = similarities.topk(k, dim=1)  # (b, k), descending
        # A common factor of a row's votes changes nothing; without it exp overflows at small
        # temperatures.
        votes = ((nearest - nearest[:, :1]) / temperature).exp()
        scores = votes.new_zeros(len(block), num_classes)
        scores.scatter_add_(1, labels[indices], votes)
        shares.append(scores / scores.sum(dim=1, keepdim=True))
    return torch.cat(shares)


def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    k: int = 200,
    temperature: float = 0.1,
    num_classes: int | None = None,
) -> Tensor:
    """Return the class with the largest share of :func:`knn_votes`, the lowest of equals.

    Arguments and errors are those of :func:`knn_votes`.

    Returns:
        Classes, shape (m,), int64.

    >>> bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> knn_predict(bank, torch.tensor([0, 1]), torch.tensor([[0.2, 0.9]])).tolist()
    [1]
    """
    votes = knn_votes(train_features, train_labels, test_features, k, temperature, num_classes)
    return votes.argmax(dim=1)


def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    """Return the fraction of test rows that :func:`knn_predict` classifies correctly.

    Args:
        train_features: Shape (n, d).
        train_labels: Shape (n,).
        test_features: Shape (m, d).
        test_labels: Shape (m,), integer.
        k: See :func:`knn_predict`.
        temperature: See :func:`knn_predict`.

    Raises:
        DataError: Features or labels are empty, not finite, or do not match.
        ParameterError: ``k`` or ``temperature`` is out of its range.

    >>> x, y = torch.eye(2), torch.tensor([0, 1])
    >>> knn_accuracy(x, y, x, y)
    1.0
    """
    check_labels("test_labels", test_labels, len(test_features))
    predicted = knn_predict(train_features, train_labels, test_features, k, temperature)
    return float((predicted == test_labels).double().mean())


def _check(
    train: Tensor, labels: Tensor, test: Tensor, k: int, temperature: float, classes: int | None
) -> int:
    """Refuse arguments that have no meaning; return the number of classes."""
    check_features("train_features", train)
    check_labels("train_labels", labels, len(train))
    check_features("test_features", test)
    if train.shape[1] != test.shape[1]:
        raise DataError(
            "Expected `train_features` and `test_features` to have the same number of columns, got "
            f"{train.shape[1]} and {test.shape[1]}. Extract both with the same model."
        )
    if k < 1:
        raise ParameterError(f"Expected `k` to be at least 1, got {k}.")
    if not temperature > 0:
        raise ParameterError(f"Expected `temperature` to be above 0, got {temperature}.")
    highest = int(labels.max())
    if classes is not None and classes <= highest:
        raise ParameterError(
            f"Expected `num_classes` to be above the highest label {highest}, got {classes}."
        )
    return highest + 1 if classes is None else classes
