"""The second of the four choices: which kind of federated user a party is.

Each kind builds its user, lets it answer one query a round, and says what travels: weights after
local steps, or a gradient. The strategy does not know which one it has: it calls ``run`` for the
local work, ``entries`` and ``arrays`` for what is sent (after training, or a copy of the state
before any), ``receive`` with the server's mean of it, and ``take_data`` and ``configure`` when data
or parameters have changed.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchestra_strategy.aggregation.weighted import FloatArray
from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.data.batches import num_batches
from orchestra_strategy.data.partition import iid_partition
from orchestra_strategy.payload import Entry
from orchestra_strategy.rng import derive_seed
from orchestra_strategy.strategies.weights import (
    GRADIENT_PREFIX,
    buffer_names,
    gradient_entries,
    read_weights,
    weight_entries,
    write_weights,
)
from orchestra_strategy.users import MultiUserAggregate, UserMultiStep, UserSingleStep

__all__ = ["USER_TYPES", "LocalGradient", "LocalUpdate", "VirtualUsers"]


class LocalUpdate:
    """``local_update``: several epochs of local steps; the weights are averaged (FedAvg).

    Args:
        party: The strategy; its model, configuration, data and loss are used.
    """

    def __init__(self, party: Any) -> None:
        self.party = party
        self.user: UserSingleStep = self._make_user()

    def _make_user(self) -> UserSingleStep:
        return UserMultiStep(
            self.party.model,
            self.party.counted_loss,
            None,
            self.setup(),
            0,
            SimpleNamespace(provide_buffers=True, seed=self.party.seed),
            optimizer_fn=self.make_optimizer,
            batches=self.party.local_batches,
        )

    def setup(self) -> dict[str, Any]:
        """Return where the user computes."""
        return {"device": self.party.exe_device, "dtype": torch.float32}

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the model builder's optimizer if it has one, else SGD by the parameters."""
        if self.party.optim_fn is not None:
            optimizer: torch.optim.Optimizer = self.party.optim_fn(parameters)
            return optimizer
        return torch.optim.SGD(parameters, **self.sgd_options())

    def sgd_options(self) -> dict[str, Any]:
        """Return the present options of our SGD."""
        names = ("lr", "momentum", "weight_decay")
        return {name: getattr(self.party.config, name) for name in names}

    def configure(self) -> None:
        """Hand changed options to the optimizer, unless it is the model builder's."""
        if self.party.optim_fn is None and isinstance(self.user, UserMultiStep):
            self.user.set_optimizer_options(**self.sgd_options())

    def run(self) -> int:
        """Train from the party's present weights, and take the user's update in."""
        shared = self.train()
        with torch.no_grad():
            for p, update in zip(self.party.model.parameters(), shared["gradients"], strict=True):
                p.add_(update)
        return self.samples_behind()

    def train(self) -> Mapping[str, Any]:
        """Query the user, with the strategy's hooks around its local steps."""
        with self.party.local_training(None):
            return self.query()

    def all_data(self) -> Iterator[tuple[int | None, Iterable[Batch]]]:
        """Yield each user's number and all of its batches, for a pass without training."""
        config, device = self.party.config, self.party.exe_device
        yield None, self.party.require_data().inference_batches(config.batch_size, device)

    def num_users(self) -> int:
        """Return how many users are behind what this party sends."""
        return 1

    def query(self) -> Mapping[str, Any]:
        """Ask the user, starting from the party's weights; its buffers become the party's."""
        model = self.party.model
        # The user trains, so its model has to be in train mode: buffers are loaded beforehand and
        # not through the payload, which would put it into eval mode.
        self.user.model.load_state_dict(model.state_dict())
        payload = {"parameters": [p.detach() for p in model.parameters()], "buffers": None}
        shared, _ = self.user.compute_local_updates(payload)
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), shared["buffers"] or (), strict=True):
                buffer.copy_(value)
        return shared

    def take_data(self) -> None:
        """Get ready for new data; nothing to do for a user that asks for them each round."""

    def samples_of(self, user: int | None) -> int:
        """Return how many samples a user has; None is the party itself."""
        count: int = self.party.num_samples()
        return count

    def samples_behind(self) -> int:
        """Return the weight of this party in the mean."""
        count: int = self.party.num_samples()
        return count

    def entries(self, trained: bool) -> tuple[Entry, ...]:
        """Return the entries of the model's weights."""
        return weight_entries(self.party.model)

    def arrays(self, trained: bool) -> dict[str, FloatArray]:
        """Return the model's weights."""
        return read_weights(self.party.model)

    def receive(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the averaged weights."""
        write_weights(self.party.model, arrays)


class VirtualUsers(LocalUpdate):
    """``multiuser_aggregate``: the party hosts many users; the mean of their updates leaves.

    Where the objective has centroids, each user's leave too, as means of ``k_min`` of its samples
    or more: not mixed with other users', but in random order.

    The party's samples are dealt out once, seeded, in equal parts. Every user starts a round from
    the same weights and does ``local_epochs`` passes over its own samples.
    """

    def _make_user(self) -> UserSingleStep:
        # Sizes of steps follow from the data; until there are any, one sample each.
        return self._aggregate(self.num_users(), 1, 1)

    def _aggregate(self, num_users: int, steps: int, size: int) -> MultiUserAggregate:
        per_round = self.party.config.users_per_round
        cfg_user = SimpleNamespace(
            num_data_points="all",
            num_local_updates=steps,
            num_data_per_local_update_step=size,
            provide_buffers=True,
            # Its own for each party: their users' draws must not be the same.
            seed=derive_seed(self.party.seed, self.party.party, 0, "virtual users"),
            aggregate_weights="num_samples",
            users_per_round=num_users if per_round is None else per_round,
        )
        return MultiUserAggregate(
            self.party.model,
            self.party.counted_loss,
            self._samples_of,
            self.setup(),
            cfg_user,
            range(num_users),
            optimizer_fn=self.make_optimizer,
            objective_for=self.party.local_training,
        )

    def take_data(self) -> None:
        """Deal the party's samples out to its users."""
        config, count = self.party.config, self.party.num_samples()
        self.parts = iid_partition(count, config.num_virtual_users, self.party.seed)
        most = max(len(part) for part in self.parts)
        # Slices of equal length: the last one of a pass must not be a handful of samples.
        per_pass = num_batches(most, config.batch_size)
        size = -(-most // per_pass)
        queries = self.user.counted_queries
        self.user = self._aggregate(len(self.parts), per_pass * config.local_epochs, size)
        # The draw of users and their noise go by this count: a further fit goes on, not over again.
        self.user.counted_queries = queries

    def train(self) -> Mapping[str, Any]:
        """Query the users; the strategy's hooks are around each one's steps."""
        return self.query()

    def all_data(self) -> Iterator[tuple[int | None, Iterable[Batch]]]:
        """Yield each user's number and all of its samples."""
        for idx in range(len(self.parts)):
            yield idx, self._samples_of(idx)

    def num_users(self) -> int:
        """Return the number of virtual users."""
        count: int = self.party.config.num_virtual_users
        return count

    def samples_of(self, user: int | None) -> int:
        """Return how many samples a user has; None is the party itself."""
        return super().samples_of(None) if user is None else len(self.parts[user])

    def batch_of(self, idx: int) -> Batch:
        """Return all samples of user ``idx``."""
        batch: Batch = self.party.require_data().batch(self.parts[idx], self.party.exe_device)
        return batch

    def _samples_of(self, idx: int) -> list[Batch]:
        return [self.batch_of(idx)]

    def samples_behind(self) -> int:
        """Return the number of samples of the users that took part."""
        assert isinstance(self.user, MultiUserAggregate)
        return sum(len(self.parts[idx]) for idx in self.user.users_done)


class _Current:
    """A data loader that yields the party's next batch each time it is read."""

    def __init__(self, party: Any) -> None:
        self.party = party
        self.drawn = 0
        self.rows = 0

    def __iter__(self) -> Iterator[Batch]:
        batch = self.party.next_batch(self.drawn)
        self.drawn += 1
        self.rows = len(batch["ids"])
        yield batch


class LocalGradient(LocalUpdate):
    """``local_gradient``: one gradient on one batch a round; the mean gradient is applied (FedSGD).

    Every party applies the same mean with an optimizer of its own; the optimizers' states stay
    equal because their inputs are.
    """

    def _make_user(self) -> UserSingleStep:
        self.loader = _Current(self.party)
        self.optimizer = self.make_optimizer(self.party.model.parameters())
        self._gradients: list[Tensor] = []
        return UserSingleStep(
            self.party.model,
            self.party.counted_loss,
            self.loader,
            self.setup(),
            0,
            SimpleNamespace(num_data_points="all", provide_buffers=True, seed=self.party.seed),
            keep_true_data=False,
        )

    def configure(self) -> None:
        """Hand changed options to the optimizer, unless it is the model builder's."""
        if self.party.optim_fn is None:
            for group in self.optimizer.param_groups:
                group.update(self.sgd_options())

    def run(self) -> int:
        """Compute one gradient; the weights move when the mean comes back."""
        self._gradients = list(self.train()["gradients"])
        return self.loader.rows

    def entries(self, trained: bool) -> tuple[Entry, ...]:
        """Return the entries of gradients and buffers; of the weights before any training."""
        return gradient_entries(self.party.model) if trained else super().entries(trained)

    def arrays(self, trained: bool) -> dict[str, FloatArray]:
        """Return the gradients and the buffers; the weights before any training."""
        weights = super().arrays(trained)
        if not trained:
            return weights
        names = [name for name, _ in self.party.model.named_parameters()]
        gradients = {
            GRADIENT_PREFIX + name: gradient.to("cpu", torch.float32, copy=True).numpy()
            for name, gradient in zip(names, self._gradients, strict=True)
        }
        return gradients | {name: weights[name] for name in buffer_names(self.party.model)}

    def receive(self, arrays: Mapping[str, FloatArray]) -> None:
        """Apply the mean gradient, or take weights."""
        if not any(name.startswith(GRADIENT_PREFIX) for name in arrays):
            super().receive(arrays)
            return
        model = self.party.model
        for name, parameter in model.named_parameters():
            gradient = torch.from_numpy(np.array(arrays[GRADIENT_PREFIX + name]))
            parameter.grad = gradient.to(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        write_weights(model, arrays, buffers_only=True)


USER_TYPES: dict[str, type[LocalUpdate]] = {
    "local_gradient": LocalGradient,
    "local_update": LocalUpdate,
    "multiuser_aggregate": VirtualUsers,
}
"""The kinds of user by ``user_type``, in the vocabulary of the gradient-leakage field."""
