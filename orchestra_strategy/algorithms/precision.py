"""Local steps in bfloat16, where the processor has it, with float32 weights (mixed precision).

P. Micikevicius et al., "Mixed Precision Training", ICLR 2018, https://arxiv.org/abs/1710.03740;
bfloat16 has float32's range, so that losses need no scaling. Weights, gradients, the optimizer's
state, the losses and all that leaves a party stay float32: what is short is inside the networks.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

__all__ = ["Precision", "computing_in", "has_bf16", "in_fp32"]

Precision = Literal["fp32", "bf16"]

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)
_KINDS = ("cpu", "cuda")
_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last one is Arm's


def computing_in(precision: Precision, device: torch.device | str) -> AbstractContextManager[None]:
    """Return a context in which networks compute so; the backward pass follows the forward one.

    Args:
        precision: ``fp32`` changes nothing.
        device: Where they compute.
    """
    if precision == "fp32":
        return nullcontext()
    kind = torch.device(device).type
    _tell_once(kind)
    context: AbstractContextManager[None] = torch.autocast(kind, dtype=torch.bfloat16)
    return context


def in_fp32(loss: Callable[P, R]) -> Callable[P, R]:
    """Let a loss, or views, compute in float32 whatever its networks compute in.

    bfloat16 has three digits: of similarities, divided by a temperature, they leave too little.
    """

    @wraps(loss)
    def in_full(*args: P.args, **kwargs: P.kwargs) -> R:
        kinds = [kind for kind in _KINDS if torch.is_autocast_enabled(kind)]
        if not kinds:
            return loss(*args, **kwargs)
        with ExitStack() as contexts:
            for kind in kinds:
                contexts.enter_context(torch.autocast(kind, enabled=False))
            whole: Any = [_in_full(a) for a in args]
            named: Any = {name: _in_full(a) for name, a in kwargs.items()}
            return loss(*whole, **named)

    return in_full


def _in_full(value: Any) -> Any:
    short = isinstance(value, Tensor) and value.dtype == torch.bfloat16
    return value.float() if short else value


def has_bf16(kind: str) -> bool:
    """Return whether a kind of device (``cpu``, ``cuda``) computes in bfloat16 by itself."""
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False  # another system: nobody says so, so it is not promised
    flags = (set(line.split()) for line in lines if line.lower().startswith(("flags", "features")))
    return any(found & _CPU_FLAGS for found in flags)


@cache
def _tell_once(kind: str) -> None:
    if not has_bf16(kind):
        _log.warning(
            "This party's %s does not compute in bfloat16 by itself: `precision='bf16'` is "
            "emulated and slower than 'fp32' here; the results are as good.",
            "processor" if kind == "cpu" else "GPU",
        )
