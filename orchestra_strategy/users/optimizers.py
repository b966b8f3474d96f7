"""A local optimizer's making, state and options."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from orchestra_strategy.errors import ParameterError, did_you_mean

__all__ = ["OptimizerFn", "all_finite", "copied_state", "forget_broken_state", "set_options"]

OptimizerFn = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
"""Makes a user's optimizer of its model's parameters."""


def copied_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return ``state_dict()`` with tensors of its own, which later steps do not change."""
    state = optimizer.state_dict()
    copied = {
        index: {k: v.clone() if isinstance(v, Tensor) else v for k, v in entry.items()}
        for index, entry in state["state"].items()
    }
    return {"state": copied, "param_groups": [dict(group) for group in state["param_groups"]]}


def all_finite(values: Iterable[Any]) -> bool:
    """Whether no tensor among ``values`` has a NaN or an infinity; other values are passed over.

    >>> all_finite([torch.ones(2), torch.tensor(3), "x"]), all_finite([torch.tensor(float("nan"))])
    (True, False)
    """
    return all(bool(v.isfinite().all()) for v in values if isinstance(v, Tensor))


def forget_broken_state(optimizer: torch.optim.Optimizer) -> None:
    """Drop the optimizer's state, momentum for instance, if anything in it is not finite."""
    if not all(all_finite(entry.values()) for entry in optimizer.state.values()):
        optimizer.state.clear()


def set_options(optimizer: torch.optim.Optimizer, options: Mapping[str, Any]) -> None:
    """Set options in all parameter groups.

    Raises:
        ParameterError: The optimizer has no such option.
    """
    known = set(optimizer.defaults)
    for name in options:
        if name not in known:
            raise ParameterError(
                f"Expected an option of {type(optimizer).__name__}, got `{name}`; "
                f"{did_you_mean(name, known)}."
            )
    for group in optimizer.param_groups:
        group.update(options)
