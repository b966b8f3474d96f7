"""The one form of a loss that users take: an objective ``f(model, batch)``."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.users.user_batches import data_key

__all__ = ["SupervisedObjective", "as_objective", "model_outputs"]

_NOT_INPUTS = frozenset({"labels", "ids"})
"""What a model gets only if its ``forward`` names it."""

_MODELS = frozenset({"model", "m", "net", "network", "module", "encoder"})
_BATCHES = frozenset({"batch", "b", "data", "samples"})
_OUTPUTS = frozenset(
    {"outputs", "output", "out", "o", "logits", "scores", "input", "inputs"}
    | {"pred", "preds", "prediction", "predictions", "y_pred", "y_hat", "yhat"}
)
_LABELS = frozenset(
    {"labels", "label", "target", "targets", "y", "y_true", "truth"} | {"classes", "lab", "t"}
)


def model_outputs(model: nn.Module, batch: Batch) -> Any:
    """Call a model as ``model(**batch)``: with all tensors of the batch by name.

    ``labels`` and ``ids`` go with them where the model's ``forward`` names them, and ``inputs``
    alone may have any name there.

    Raises:
        DataError: The batch has a tensor that the model does not take.
    """
    key = data_key(batch)
    parameters = inspect.signature(model.forward).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    given = {
        name: tensor
        for name, tensor in batch.items()
        if name != key and (name not in _NOT_INPUTS or name in named)
    }
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in given:
            if name not in named:
                raise DataError(
                    f"Expected {type(model).__name__}.forward to take `{name}` of the batch, got "
                    f"one that takes {sorted(named)}; add it there, or leave it out of the batch."
                )
    if key == "inputs" and key not in named:
        return model(batch[key], **given)
    return model(**{key: batch[key]}, **given)


class SupervisedObjective:
    """``loss(model outputs, labels)``.

    Args:
        loss: A loss module such as ``torch.nn.CrossEntropyLoss``, or a function such as
            ``torch.nn.functional.cross_entropy``.
    """

    def __init__(self, loss: Callable[..., Any]) -> None:
        self.loss = loss

    def __call__(self, model: nn.Module, batch: Batch) -> LossParts:
        """Return the loss.

        Raises:
            DataError: The batch has no labels.
        """
        if "labels" not in batch:
            name = getattr(self.loss, "__name__", type(self.loss).__name__)
            raise DataError(
                f"Expected `labels` for the supervised loss {name}, got a batch of "
                f"{sorted(batch)}; for unlabelled data give an objective f(model, batch)."
            )
        return LossParts(self.loss(model_outputs(model, batch), batch["labels"]), {})


def as_objective(loss: Any) -> Objective:
    """Return the objective that a loss stands for.

    Args:
        loss: A loss module or a function ``loss(outputs, labels)``, which are supervised losses; or
            an objective ``f(model, batch)``. Functions are told apart by their parameters' names;
            without any (``*args``) it is an objective.

    Raises:
        ParameterError: It is not callable, or its parameters' names do not say what it is.
    """
    if isinstance(loss, nn.Module):
        return SupervisedObjective(loss)
    if not callable(loss):
        raise ParameterError(
            "Expected `loss` to be a loss module or an objective f(model, batch), or a function "
            f"loss(outputs, labels), got {type(loss).__name__}."
        )
    names = _first_two(loss)
    if len(names) < 2 or names[0] in _MODELS or names[1] in _BATCHES:
        objective: Objective = loss
        return objective
    if names[0] in _OUTPUTS or names[1] in _LABELS:
        return SupervisedObjective(loss)
    raise ParameterError(
        "Expected the parameters of `loss` to be named (outputs, labels) or (model, batch), got "
        f"({', '.join(names)}); rename them, so that it is clear what it takes."
    )


def _first_two(function: Callable[..., Any]) -> Sequence[str]:
    """Return the names of the first two positional parameters, as far as there are any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # compiled functions may have none
        return ()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][
        :2
    ]
