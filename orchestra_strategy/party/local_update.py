"""``local_update``, and what the other kinds of user have in common with it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.data.batches import num_batches
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.exchange.weights import (
    PREFIX,
    read_weights,
    weight_entries,
    write_weights,
)
from orchestra_strategy.party.roles import Party
from orchestra_strategy.users import UserMultiStep, UserSingleStep
from orchestra_strategy.users.optimizers import forget_broken_state

__all__ = ["LocalUpdate"]


class LocalUpdate:
    """``local_update``: several epochs of local steps; the weights are averaged (FedAvg).

    Args:
        party: The strategy; its model, configuration, data and loss are used.

    Attributes:
        protects_records: Whether single samples can be the unit that is protected.
    """

    protects_records: ClassVar[bool] = True

    # ---- What follows from the configuration alone ---------------------------------------------

    @classmethod
    def users_of(cls, config: Any) -> int:
        """Return how many users a party hosts."""
        return 1

    @classmethod
    def smallest_user(cls, config: Any, num_samples: int) -> tuple[str, int]:
        """Return the words for the users of a party, and how many samples the smallest has."""
        return "this party", num_samples

    @classmethod
    def steps_per_round(cls, config: Any, num_samples: int) -> int:
        """Return how many steps a user with so many samples does in a round."""
        return num_batches(num_samples, config.batch_size, config.local_epochs)

    @classmethod
    def host_steps(cls, most: float, batch_size: int, sizes: Sequence[int]) -> tuple[float, int]:
        """Return FLModel's sampling rate, and how many of its steps lie between aggregations.

        Args:
            most: The largest rate that FLModel allows.
            batch_size: Samples per local step.
            sizes: The parties' numbers of samples.
        """
        return most, math.ceil(1.0 / most)

    # ---- A party's user ------------------------------------------------------------------------

    def __init__(self, party: Party) -> None:
        self.party = party
        self.user: UserSingleStep = self._make_user()

    def _make_user(self) -> UserSingleStep:
        return UserMultiStep(
            self.party.model,
            self.party.privacy.loss(),
            None,
            self.setup(),
            0,
            SimpleNamespace(provide_buffers=True, seed=self.party.seed),
            optimizer_fn=self.make_optimizer,
            batches=self.party.privacy.batches,
            streams=self.party.streams,
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
        """Return the options of our SGD in the round under way."""
        config = self.party.config
        return {
            "lr": config.lr_of(self.party.round_index),
            "momentum": config.momentum,
            "weight_decay": config.weight_decay,
        }

    def configure(self) -> None:
        """Hand changed options to the optimizer, unless it is the model builder's."""
        if self.party.optim_fn is None and isinstance(self.user, UserMultiStep):
            self.user.set_optimizer_options(**self.sgd_options())

    def recover(self) -> None:
        """Drop the optimizer's state if it is not finite: a NaN would stay in the momentum."""
        if isinstance(self.user, UserMultiStep):
            forget_broken_state(self.user.optimizer)

    def state(self) -> dict[str, Any]:
        """Return what the user keeps between rounds, for a checkpoint."""
        kept: dict[str, Any] = {"queries": self.user.counted_queries}
        if isinstance(self.user, UserMultiStep):
            kept["optimizer"] = self.user.optimizer_state()
        return kept

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the state of :meth:`state`."""
        self.user.counted_queries = state["queries"]
        if isinstance(self.user, UserMultiStep):
            self.user.load_optimizer_state(state["optimizer"])

    def run(self) -> int:
        """Train from the party's present weights, and take the user's update in."""
        self.configure()  # the learning rate may be another one in each round
        shared = self.train()
        self.party.privacy.take_update(self.party.model, shared["gradients"])
        return self.samples_behind()

    def train(self) -> Mapping[str, Any]:
        """Query the user, with the strategy's hooks around its local steps.

        Where the user as a whole is protected, a failure is an update of zero.
        """
        shared: Mapping[str, Any] | None = None
        with self.party.privacy.silence_of_user, self.party.local_training(None):
            shared = self.query()
        return self.user.share_nothing() if shared is None else shared

    def first_pass(self, times: int) -> None:
        """Let each user go through its data in round 0, so many times.

        Args:
            times: How many need its batches, which are streamed, and gone after one pass.
        """
        for users in zip(*(self.all_data() for _ in range(times)), strict=True):
            self.party.first_pass(users[0][0], *(batches for _, batches in users))

    def all_data(self) -> Iterator[tuple[int | None, Iterable[Batch]]]:
        """Yield each user's number and all of its batches, for a pass without training."""
        config, device = self.party.config, self.party.exe_device
        yield None, self.party.require_data().inference_batches(config.batch_size, device)

    def num_users(self) -> int:
        """Return how many users are behind what this party sends."""
        return self.users_of(self.party.config)

    def users_per_round(self) -> int:
        """Return how many of them take part in a round."""
        return 1

    def expected_samples(self) -> int:
        """Return how many samples are behind what is sent, as expected of the sizes alone."""
        return self.party.num_samples()

    def query(self) -> Mapping[str, Any]:
        """Ask the user, starting from the party's weights; its buffers become the party's."""
        model = self.party.model
        # The user trains, so its model has to be in train mode: buffers are loaded beforehand and
        # not through the payload, which would put it into eval mode.
        # Parameters come through the payload.
        self.user.parts.set_buffers(list(model.buffers()))
        if self.user.parts.has_extra_state:
            self.user.model.load_state_dict(_without_parameters(model), strict=False)
        payload = {"parameters": [p.detach() for p in model.parameters()], "buffers": None}
        shared, _ = self.user.compute_local_updates(payload)
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), shared["buffers"] or (), strict=True):
                buffer.copy_(value)
        return shared

    def take_data(self) -> None:
        """Get ready for new data; nothing to do for a user that asks for them each round."""

    def rows_of(self, user: int | None) -> npt.NDArray[np.int64]:
        """Return the positions of a user's samples in the party's data; None is the party."""
        return np.arange(self.samples_of(user), dtype=np.int64)

    def samples_of(self, user: int | None) -> int:
        """Return how many samples a user has; None is the party itself."""
        count: int = self.party.num_samples()
        return count

    def rows_per_round(self) -> int:
        """Return how many rows a round's steps take, as expected of the sizes alone."""
        party = self.party
        steps: int = party.local_steps()
        return steps * int(min(party.config.batch_size, party.num_samples()))

    def samples_behind(self) -> int:
        """Return the weight of this party in the mean."""
        count: int = self.party.num_samples()
        return count

    def entries(self, trained: bool) -> tuple[Entry, ...]:
        """Return the entries of the model's weights; frozen ones leave before training alone."""
        return weight_entries(self.party.model, frozen=not trained)

    def arrays(self, trained: bool) -> dict[str, FloatArray]:
        """Return the model's weights, see :meth:`entries`."""
        return read_weights(self.party.model, frozen=not trained)

    def receive(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the averaged weights; after a round, those that are trained."""
        frozen = [n for n, p in self.party.model.named_parameters() if not p.requires_grad]
        came = all(PREFIX + name in arrays for name in frozen)
        write_weights(self.party.model, arrays, frozen=came)


def _without_parameters(model: nn.Module) -> dict[str, Any]:
    """Return the rest of a model's ``state_dict``."""
    trained = dict(model.named_parameters(remove_duplicate=False))
    return {name: kept for name, kept in model.state_dict().items() if name not in trained}
