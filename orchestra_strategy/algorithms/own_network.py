"""Networks as users hand them in: a callable, a module or SecretFlow's ``TorchModel``."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from orchestra_strategy.errors import ModelError

__all__ = ["builder_of", "fresh_network"]


def builder_of(model: Any) -> Callable[[], nn.Module]:
    """Return a function that gives a network of its own at each call, see :func:`fresh_network`.

    Args:
        model: A network, a callable that returns one, or a ``TorchModel``.
    """
    return partial(fresh_network, model)


def fresh_network(model: Any) -> nn.Module:
    """Build a network that shares nothing with any other one, nor with what the caller holds.

    Parties of one process would otherwise train the same weights where the caller hands in a
    module, or a callable that returns the same one, or one around the same backbone, each time.

    Args:
        model: A network, a callable that returns one, or a ``TorchModel``.

    Raises:
        ModelError: It gives something else, or what cannot be copied.

    >>> one = nn.Linear(2, 2)
    >>> fresh_network(one) is one, fresh_network(lambda: one) is one
    (False, False)
    """
    network = model
    if not isinstance(model, nn.Module):
        build = getattr(model, "model_fn", None) or model
        if not callable(build):
            raise ModelError(
                "Expected `model` to be a network, a callable that returns one or a TorchModel, "
                f"got {model!r}; for example `functools.partial(orchestra_model, 'conv4')`."
            )
        network = build(**getattr(model, "kwargs", {}))
    if not isinstance(network, nn.Module):
        raise ModelError(
            "Expected `model` to return a network (torch.nn.Module), got "
            f"{type(network).__name__}; its last line has to be `return network`."
        )
    try:
        return copy.deepcopy(network)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"Expected `model` to be a network that can be copied, got {type(network).__name__}: "
            f"{str(error).splitlines()[0]} Hand it in before anything has gone through it; for "
            "weight normalisation use that of `torch.nn.utils.parametrizations`."
        ) from error
