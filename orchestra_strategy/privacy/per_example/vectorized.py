"""Per-example clipping of a whole batch at once: vmap over the gradient of one example.

Each example is still a batch of its own, as in the loop of
:mod:`~orchestra_strategy.privacy.per_example.loop`: vmap turns the operations of one example into
operations on all of them, so no layer can mix examples. The per-example gradients of the weights of
linear layers and convolutions, too large and on a CPU too slow to form, are kept as the factors
that :mod:`~orchestra_strategy.privacy.per_example.factored` describes; every other parameter's are
formed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.errors import OrchestraError
from orchestra_strategy.privacy.per_example.factored import ChunkGradients, collect, gram_is_cheaper
from orchestra_strategy.privacy.per_example.layer_calls import Call, TapMode
from orchestra_strategy.privacy.per_example.loop import (
    ClippedMean,
    batch_size,
    clip_factors,
    scalar_loss,
)

__all__ = [
    "Plan",
    "PlanMismatchError",
    "VectorisationError",
    "clipped_mean_by_vmap",
    "make_plan",
]

_CPU_BUDGET, _GPU_BUDGET = 64 * 2**20, 1024 * 2**20
"""Bytes that the per-example tensors of one chunk may take, unless a chunk size is given: a CPU
slows down once they leave its caches, a GPU is idle with few of them."""


class VectorisationError(RuntimeError):
    """vmap cannot do what the model or the objective does."""


class PlanMismatchError(VectorisationError):
    """The model uses other layers, or on other shapes, than when the plan was made."""


@dataclass(frozen=True)
class Plan:
    """What a forward pass on one example looks like.

    Attributes:
        calls: Uses of the tapped weights, in order.
        chunk: Examples that are done at once.
    """

    calls: tuple[Call, ...]
    chunk: int

    @property
    def tapped(self) -> frozenset[str]:
        """Names of the weights whose gradients are read off."""
        return frozenset(call.name for call in self.calls)

    def positions(self, name: str) -> int:
        """Return T, over all uses of a tapped weight."""
        return sum(call.positions for call in self.calls if call.name == name)


class _Carrier(nn.Module):
    """Makes the objective the ``forward`` of a module, which is what functional_call can call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, objective: Objective, batch: Batch, mode: TapMode) -> LossParts:
        with mode:
            return scalar_loss(objective, self.model, batch)


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable parameters, without a graph, by their name in the carrier."""
    named = model.named_parameters(prefix="model")
    return {name: p.detach() for name, p in named if p.requires_grad}


def make_plan(
    objective: Objective, model: nn.Module, batch: Batch, chunk_size: int | None = None
) -> Plan:
    """Run the first example as it is, and note how the weights are used.

    An error here is the model's or the objective's own, not one of vectorisation.
    """
    trained = _trained(model)
    mode = TapMode({id(p): name for name, p in trained.items() if p.ndim in (2, 4)})
    example = {name: tensor[:1] for name, tensor in batch.items()}
    with torch.no_grad():
        functional_call(_Carrier(model), trained, (objective, example, mode))
    # A weight that is used in another way too (tied to an embedding, say) has a gradient that the
    # taps do not see, so it is left to vmap altogether.
    calls = tuple(call for call in mode.calls if call.name not in mode.other)
    plan = Plan(calls, chunk=1)
    floats = 0
    for name, p in trained.items():
        if name in plan.tapped:
            t, d_out, d_in = plan.positions(name), len(p), p[0].numel()
            floats += t * (d_in + d_out)
            floats += 0 if gram_is_cheaper(t, d_in, d_out) else d_in * d_out
        else:
            floats += p.numel()
    on_cpu = all(p.device.type == "cpu" for p in trained.values())
    budget = _CPU_BUDGET if on_cpu else _GPU_BUDGET
    chunk = max(1, budget // (8 * max(floats, 1)))  # 8: float64, or a copy in float32
    return Plan(calls, chunk if chunk_size is None else chunk_size)


def clipped_mean_by_vmap(
    objective: Objective, model: nn.Module, batch: Batch, clip_norm: float, plan: Plan
) -> ClippedMean:
    """Return what the loop returns, to rounding.

    Args:
        objective: What is differentiated; pure, since vmap cannot keep state.
        model: Called as it is, in train or eval mode.
        batch: Tensors of B rows.
        clip_norm: C > 0.
        plan: From :func:`make_plan` on a batch of the same shapes.

    Raises:
        VectorisationError: vmap failed; from its error.
        PlanMismatchError: The plan does not fit.
    """
    rows = batch_size(batch)
    trained = _trained(model)
    sums: dict[str, Tensor] = {}
    totals: dict[str, Tensor] = {}
    for start in range(0, rows, plan.chunk):
        part = {name: tensor[start : start + plan.chunk] for name, tensor in batch.items()}
        chunk = _chunk_gradients(objective, model, part, trained, plan)
        norms = torch.where(torch.isfinite(chunk.losses[_TOTAL]), chunk.norms(), torch.nan)
        factors = clip_factors(norms, clip_norm)
        for name, value in chunk.weighted_sums(factors):
            sums[name] = sums[name] + value if name in sums else value
        for name, value in chunk.losses.items():
            totals[name] = totals.get(name, torch.zeros_like(value[0])) + value.sum()
    gradients = [
        sums[name].view_as(p) / rows if name in sums else torch.zeros_like(p)
        for name, p in model.named_parameters(prefix="model")
    ]
    means = {name: value / rows for name, value in totals.items()}
    return ClippedMean(gradients, LossParts(means.pop(_TOTAL), means))


_TOTAL = ""  # the total's key among the parts' names: no part can be called that


def _chunk_gradients(
    objective: Objective, model: nn.Module, batch: Batch, trained: Mapping[str, Tensor], plan: Plan
) -> ChunkGradients:
    carrier = _Carrier(model)
    tapped = {name: trained[name] for name in plan.tapped}
    names = {id(p): name for name, p in tapped.items()}

    def one(variables: dict[str, Any], example: Batch) -> tuple[Tensor, Any]:
        mode = TapMode(names, variables["taps"], plan.calls)
        rows = {name: tensor.unsqueeze(0) for name, tensor in example.items()}
        loss = functional_call(carrier, {**tapped, **variables["formed"]}, (objective, rows, mode))
        if mode.mismatch or len(mode.calls) != len(plan.calls) or mode.other:
            raise PlanMismatchError(
                f"expected {len(plan.calls)} uses of the weights {sorted(plan.tapped)} as on the "
                f"first example, got {mode.calls}"
            )
        return loss.total, ({_TOTAL: loss.total, **loss.parts}, mode.inputs)

    some = next(iter(trained.values()))
    variables = {
        "formed": {name: p for name, p in trained.items() if name not in tapped},
        "taps": [some.new_zeros(call.out_shape) for call in plan.calls],
    }
    gradient_of_one = vmap(grad(one, has_aux=True), in_dims=(None, 0), randomness="different")
    try:
        gradients, (losses, inputs) = gradient_of_one(variables, dict(batch))
    except (OrchestraError, VectorisationError, torch.OutOfMemoryError):
        raise  # these are not about what vmap can do
    except Exception as error:  # vmap refuses in many types
        raise VectorisationError(str(error).strip().split("\n")[0]) from error
    return collect(gradients["formed"], losses, plan.calls, inputs, gradients["taps"])
