"""The one form of a loss that users take: an objective ``f(model, batch)``."""

from typing import Any

from torch import nn

from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.users.user_batches import data_key

__all__ = ["SupervisedObjective", "as_objective", "model_outputs"]

_NOT_INPUTS = frozenset({"labels", "ids"})


def model_outputs(model: nn.Module, batch: Batch) -> Any:
    """Call a model on a batch: ``model(inputs)``, or for text ``model(input_ids=..., ...)``."""
    if data_key(batch) == "inputs":
        return model(batch["inputs"])
    return model(**{name: tensor for name, tensor in batch.items() if name not in _NOT_INPUTS})


class SupervisedObjective:
    """``loss(model outputs, labels)``.

    Args:
        loss: A loss module such as ``torch.nn.CrossEntropyLoss``.
    """

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return the loss.

        Raises:
            DataError: The batch has no labels.
        """
        if "labels" not in batch:
            raise DataError(
                f"Expected `labels` for the supervised loss {type(self.loss).__name__}, got a "
                f"batch of {sorted(batch)}; for unlabelled data give an objective f(model, batch)."
            )
        return LossParts(self.loss(model_outputs(model, batch), batch["labels"]), {})


def as_objective(loss: Any) -> Objective:
    """Return the objective that a loss stands for.

    Args:
        loss: A ``torch.nn.Module`` is a supervised loss, called on (outputs, labels); any other
            callable is an objective, called on (model, batch).

    Raises:
        ParameterError: It is not callable.
    """
    if isinstance(loss, nn.Module):
        return SupervisedObjective(loss)
    if not callable(loss):
        raise ParameterError(
            "Expected `loss` to be a loss module or an objective f(model, batch), got "
            f"{type(loss).__name__}."
        )
    objective: Objective = loss
    return objective
