"""``local_gradient``: federated SGD."""

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.exchange.weights import (
    GRADIENT_PREFIX,
    as_array,
    buffer_names,
    gradient_entries,
    write_weights,
)
from orchestra_strategy.party.local_update import LocalUpdate
from orchestra_strategy.party.roles import Party
from orchestra_strategy.users import UserSingleStep
from orchestra_strategy.users.optimizers import copied_state

__all__ = ["LocalGradient"]


class _Current:
    """A data loader that yields the party's next batch each time it is read."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.drawn = 0
        self.rows = 0

    def __iter__(self) -> Iterator[Batch]:
        batch = self.party.privacy.next_batch(self.drawn)
        self.drawn += 1
        self.rows = len(batch["ids"])
        yield batch


class LocalGradient(LocalUpdate):
    """``local_gradient``: one gradient on one batch a round; the mean gradient is applied (FedSGD).

    Every party applies the same mean with an optimizer of its own; the optimizers' states stay
    equal because their inputs are.
    """

    @classmethod
    def steps_per_round(cls, config: Any, num_samples: int) -> int:
        """Return 1."""
        return 1

    @classmethod
    def host_steps(cls, most: float, batch_size: int, sizes: Sequence[int]) -> tuple[float, int]:
        """Aggregate after each batch, for one walk through the smallest party's data."""
        return min(most, batch_size / min(sizes)), 1

    def _make_user(self) -> UserSingleStep:
        self.loader = _Current(self.party)
        self.optimizer = self.make_optimizer(self.party.model.parameters())
        self._gradients: list[Tensor] = []
        return UserSingleStep(
            self.party.model,
            self.party.privacy.loss(),
            self.loader,
            self.setup(),
            0,
            SimpleNamespace(num_data_points="all", provide_buffers=True, seed=self.party.seed),
            keep_true_data=False,
            exact_statistics=False,  # rounds are many, and the last ones' statistics matter most
            streams=self.party.streams,
        )

    def configure(self) -> None:
        """Hand changed options to the optimizer, unless it is the model builder's."""
        if self.party.optim_fn is None:
            for group in self.optimizer.param_groups:
                group.update(self.sgd_options())

    def recover(self) -> None:
        """Keep the optimizer as it is: it has seen mean gradients alone, the same as every party's.

        A party whose weights are not finite by themselves gets others at the start of a fit only.
        """

    def state(self) -> dict[str, Any]:
        """Return what the party keeps between rounds: its optimizer, and its place in the data."""
        optimizer = copied_state(self.optimizer)
        return {**super().state(), "optimizer": optimizer, "drawn": self.loader.drawn}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state`."""
        super().load_state(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.drawn = state["drawn"]

    def run(self) -> int:
        """Compute one gradient; the weights move when the mean comes back."""
        self.configure()
        self._gradients = list(self.train()["gradients"])
        return self.loader.rows

    def expected_samples(self) -> int:
        """Return the expected rows of the one batch."""
        return int(min(self.party.config.batch_size, self.party.num_samples()))

    def rows_per_round(self) -> int:
        """Return the expected rows of the one batch."""
        return self.expected_samples()

    def entries(self, trained: bool) -> tuple[Entry, ...]:
        """Return the entries of gradients and buffers; of the weights before any training."""
        return gradient_entries(self.party.model) if trained else super().entries(trained)

    def arrays(self, trained: bool) -> dict[str, FloatArray]:
        """Return the gradients and the buffers; the weights before any training."""
        weights = super().arrays(trained)
        if not trained:
            return weights
        parameters = self.party.model.named_parameters()
        gradients = {
            GRADIENT_PREFIX + name: as_array(gradient)
            for (name, parameter), gradient in zip(parameters, self._gradients, strict=True)
            if parameter.requires_grad
        }
        return gradients | {name: weights[name] for name in buffer_names(self.party.model)}

    def receive(self, arrays: Mapping[str, FloatArray]) -> None:
        """Apply the mean gradient, or take weights."""
        if not any(name.startswith(GRADIENT_PREFIX) for name in arrays):
            super().receive(arrays)
            return
        model = self.party.model
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:  # with a gradient of zero it would still decay
                continue
            gradient = torch.from_numpy(np.array(arrays[GRADIENT_PREFIX + name]))
            parameter.grad = gradient.to(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        write_weights(model, arrays, buffers_only=True)
