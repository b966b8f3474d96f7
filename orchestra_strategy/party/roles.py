"""The roles that the objects of this room see of each other: party and kind of user."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch, LossParts
from orchestra_strategy.data.augmentation.view_set import ViewSet
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.rng import Streams

__all__ = ["Party", "UserType"]


class UserType(Protocol):
    """What is asked of the kind of user that a party is; see :mod:`.user_types`."""

    user: Any

    def users_per_round(self) -> int:
        """Return how many users take part in a round."""

    def expected_samples(self) -> int:
        """Return how many samples are behind what is sent, as expected of the sizes alone."""

    def rows_per_round(self) -> int:
        """Return how many rows a round's steps take, as expected of the sizes alone."""

    def steps_per_round(self, config: Any, num_samples: int) -> int:
        """Return how many steps a user with so many samples does in a round."""

    def num_users(self) -> int:
        """Return how many users are behind what this party sends."""

    def entries(self, trained: bool) -> tuple[Entry, ...]:
        """Return the entries of what is sent."""


class Party(Protocol):
    """A strategy, as what it holds sees it.

    Attributes:
        config: Its parameters.
        model: The online network.
        model_builder: What builds it.
        optim_fn: The model builder's optimizer; None for our SGD.
        objective: The loss, with what the party keeps for it.
        exe_device: Where it computes.
        seed: Root seed, the same at all parties.
        party: The party's name in random streams.
        fingerprint: Of its samples; None before there are some.
        streams: Where its randomness comes from.
        metric_names: Names of the losses that it logs.
        rounds_done: Rounds of training done.
        round_index: The round under way.
        needs_labels: Whether it learns from labels.
    """

    config: Any
    model: nn.Module
    model_builder: Any
    optim_fn: Any
    objective: Any
    exe_device: torch.device
    seed: int
    party: str
    fingerprint: str | None
    streams: Streams
    metric_names: Any
    rounds_done: int
    round_index: int
    needs_labels: Any

    @property
    def method(self) -> Any:
        """What the method does of its own around local training."""

    @property
    def reports(self) -> Any:
        """What has been done and told."""

    @property
    def user_type(self) -> UserType:
        """The kind of user that it is."""

    @property
    def privacy(self) -> Any:
        """What protects its data, see :mod:`orchestra_strategy.party.privacy`."""

    def require_data(self) -> PartyData:
        """Return its training data, or raise."""

    def num_samples(self) -> int:
        """Return its number of samples; 0 before it has data."""

    def local_steps(self) -> int:
        """Return how many batches the round under way has."""

    def ordered_batches(self) -> Iterator[Batch]:
        """Return the batches of the round under way, in the party's order."""

    def ordered_batch(self, position: int) -> Batch:
        """Return one batch of an endless walk over its data."""

    def counted_loss(self, model: nn.Module, batch: Batch) -> LossParts | Tensor:
        """Return the loss, and count the rows."""

    def take_user(self, user: int | None, left: Any) -> None:
        """Take what a user's local steps leave."""

    def first_pass(self, user: int | None, *batches: Iterable[Batch]) -> None:
        """Do round 0 on a user's data."""

    def local_training(self, user: int | None) -> AbstractContextManager[Any]:
        """Surround a user's local steps with the hooks."""

    def draw_views(self, inputs: Tensor, generator: torch.Generator) -> ViewSet | None:
        """Return views of samples, or None."""

    def project(self, x: Tensor) -> Tensor:
        """Return what the health is measured on."""

    def assign_clusters(self, z: Tensor) -> tuple[Tensor, int] | None:
        """Return the clusters of projections and their number, or None."""

    def sent_entries(self) -> tuple[Entry, ...]:
        """Return the entries of what travels to the server beside the weights."""

    def returned_entries(self) -> tuple[Entry, ...]:
        """Return the entries of what comes back beside the weights."""

    @classmethod
    def own_aggregation(cls) -> Any:
        """Return the strategy's own ``aggregate_weights``; None if it has the mean."""

    @classmethod
    def overrides(cls, hook: str) -> bool:
        """Whether the strategy has a hook of its own."""

    def build_dataset(self, x: Any, y: Any = None) -> None:
        """Take the party's samples, and labels where it learns from them."""

    def get_weights(self) -> Any:
        """Return the payload without training."""

    def apply_weights(self, weights: Any) -> None:
        """Take the server's reply."""

    def train_step(self, weights: Any, cur_steps: int, train_steps: int) -> tuple[Any, int]:
        """Do one federated round."""

    def averaged_weights(self) -> Mapping[str, FloatArray]:
        """Return the model that all parties have."""
