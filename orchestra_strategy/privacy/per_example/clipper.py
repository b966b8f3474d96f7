"""Per-example gradient clipping, vectorised where the model allows it.

M. Abadi et al., "Deep Learning with Differential Privacy", CCS 2016,
https://arxiv.org/abs/1607.00133. An example's gradient is that of the objective on a batch of this
one example; an objective whose loss couples examples (a contrastive one) must cope with that.

What an objective may say about itself, both optional:

- ``objective.per_example(model, batch) -> (objective, batch)``: moves its state on once for the
  whole batch (draws views, updates a target network, appends to a memory), and returns a pure
  objective with a batch of tensors of B rows, whose gradients are then clipped;
- ``objective.stateful = True``: it changes when it is called, so it must be called example by
  example and is left to the loop.
"""

import logging
from collections.abc import Hashable
from types import TracebackType
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from orchestra_strategy.algorithms.objective import Batch, Objective
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.per_example.loop import (
    ClippedMean,
    batch_size,
    clipped_mean_by_loop,
    refuse_batch_statistics,
)
from orchestra_strategy.privacy.per_example.vectorized import (
    Plan,
    PlanMismatchError,
    VectorisationError,
    clipped_mean_by_vmap,
    make_plan,
)

__all__ = ["PerExampleClipper", "per_example_clipped_mean"]

_logger = logging.getLogger(__name__)


class PerExampleClipper:
    """Clips a model's gradients per example, and remembers whether vmap can do it.

    The first batch of each kind (shapes, train or eval mode) decides. If vmap fails on it, the loop
    takes over for good, and one warning names the module that prevents vectorisation.

    Args:
        model: The model whose parameters' gradients are taken.
        clip_norm: C > 0, the largest L2 norm of one example's gradient over all parameters.
        chunk_size: Examples vectorised at once; by default as many as fit 64 MiB
            (on a GPU 1 GiB).

    Raises:
        ParameterError: ``clip_norm`` is not positive or ``chunk_size`` is less than 1.
    """

    def __init__(self, model: nn.Module, clip_norm: float, chunk_size: int | None = None) -> None:
        if not clip_norm > 0:
            raise ParameterError(f"Expected `clip_norm` to be positive, got {clip_norm!r}.")
        if chunk_size is not None and chunk_size < 1:
            raise ParameterError(f"Expected `chunk_size` to be at least 1, got {chunk_size}.")
        self.model, self.clip_norm, self.chunk_size = model, clip_norm, chunk_size
        self._plans: dict[Hashable, Plan | None] = {}  # None: the loop
        self._warned: set[str] = set()

    def __call__(self, objective: Objective, batch: Batch) -> ClippedMean:
        """Return the mean of the clipped per-example gradients.

        Args:
            objective: What is differentiated; see the module's docstring.
            batch: Tensors of B >= 1 rows.

        Raises:
            ModelError: The model has BatchNorm that would normalise by the batch.
            DataError: An empty batch.
        """
        refuse_batch_statistics(self.model)
        split: Any = getattr(objective, "per_example", None)
        if split is not None:
            objective, batch = split(self.model, batch)
        batch_size(batch)
        if getattr(objective, "stateful", False):
            self._warn(f"the objective `{_name(objective)}`", "it keeps state between examples")
            return self._loop(objective, batch)
        key = self._key(batch)
        plan = self._plans.get(key)
        if plan is None:
            return (
                self._loop(objective, batch)
                if key in self._plans
                else self._decide(key, objective, batch)
            )
        try:
            return clipped_mean_by_vmap(objective, self.model, batch, self.clip_norm, plan)
        except PlanMismatchError:  # another path through the model: plan it once more
            return self._decide(key, objective, batch)

    def _decide(self, key: Hashable, objective: Objective, batch: Batch) -> ClippedMean:
        plan = make_plan(objective, self.model, batch, self.chunk_size)
        trace = _ModuleTrace(self.model)
        try:
            with trace:
                result = clipped_mean_by_vmap(objective, self.model, batch, self.clip_norm, plan)
        except VectorisationError as error:
            # If it was the model's own error after all, the loop raises it again.
            culprit = trace.culprit or f"the objective `{_name(objective)}`, or its backward pass"
            self._warn(culprit, str(error))
            self._plans[key] = None
            return self._loop(objective, batch)
        self._plans[key] = plan
        return result

    def _loop(self, objective: Objective, batch: Batch) -> ClippedMean:
        return clipped_mean_by_loop(objective, self.model, batch, self.clip_norm)

    def _key(self, batch: Batch) -> Hashable:
        shapes = tuple(sorted((k, tuple(v.shape[1:]), str(v.dtype)) for k, v in batch.items()))
        return self.model.training, shapes, tuple(p.requires_grad for p in self.model.parameters())

    def _warn(self, culprit: str, reason: str) -> None:
        if culprit not in self._warned:
            self._warned.add(culprit)
            _logger.warning(
                "Per-example clipping runs as a loop, one example at a time: %s cannot be "
                "vectorised (%s).",
                culprit,
                reason,
            )


def per_example_clipped_mean(
    objective: Objective,
    model: nn.Module,
    batch: Batch,
    clip_norm: float,
    *,
    chunk_size: int | None = None,
) -> ClippedMean:
    """Clip one batch; see :class:`PerExampleClipper`, which is better for many batches.

    >>> import torch
    >>> model = nn.Linear(1, 1, bias=False)
    >>> batch = {"inputs": torch.tensor([[0.5], [8.0]])}
    >>> mean_output = lambda model, batch: model(batch["inputs"]).mean()
    >>> per_example_clipped_mean(mean_output, model, batch, 1.0).gradients  # (0.5 + 1) / 2
    [tensor([[0.7500]])]
    """
    return PerExampleClipper(model, clip_norm, chunk_size)(objective, batch)


def _name(objective: Objective) -> str:
    return getattr(objective, "__qualname__", type(objective).__qualname__)


class _ModuleTrace:
    """Knows, after an exception, in which module's forward it was raised."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._open: list[str] = []
        self._handles: list[RemovableHandle] = []

    @property
    def culprit(self) -> str | None:
        """The innermost module that was entered and not left."""
        return self._open[-1] if self._open else None

    def __enter__(self) -> "_ModuleTrace":
        for name, module in self.model.named_modules():
            label = f"{type(module).__name__} at `{name or '.'}`"
            enter = module.register_forward_pre_hook(lambda *_, x=label: self._open.append(x))
            leave = module.register_forward_hook(lambda *_: self._leave())
            self._handles += [enter, leave]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _leave(self) -> None:
        self._open.pop()
