"""What the strategies of this package share: views by the configuration, streams, a target network.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

import copy
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.aggregation.fields import AggregationFields
from orchestra_strategy.aggregation.server import ServerAggregation
from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective_bases import SelfSupervisedObjective, TargetObjective
from orchestra_strategy.data.augmentation.view_set import Views, ViewSet
from orchestra_strategy.data.augmentation.views import build_row_wise_views, build_views
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.strategies.base import FederatedStrategy
from orchestra_strategy.users.optimizers import all_finite

__all__ = ["SelfSupervisedStrategy", "TargetNetworkStrategy", "require_equal"]


class SelfSupervisedStrategy(FederatedStrategy):
    """One party of a self-supervised method; a subclass names its objective.

    Attributes:
        objective_class: The method. The fields of its settings are parameters in ``config_class``.
        heads: Heads that the model must have, by name; it may have others.
    """

    objective_class: ClassVar[type[SelfSupervisedObjective]]
    heads: ClassVar[tuple[str, ...]] = ()
    objective: SelfSupervisedObjective

    def make_objective(self) -> SelfSupervisedObjective:
        """Return the objective on this party's model."""
        self.check_model(self.model)
        return self.objective_class(
            self.model, self._views(), self._settings(), self._stream("views")
        )

    @classmethod
    def check_model(cls, model: nn.Module) -> None:
        """Refuse a model without backbone, projector or one of ``heads``."""
        parts_of(model, cls.heads)

    @classmethod
    def check_privacy(cls, config: Any, model: nn.Module) -> None:
        """Refuse ``privacy`` where it would not cover all that leaves a party, and unfit views."""
        super().check_privacy(config, model)
        cls.views_for(config)

    @staticmethod
    def check_server(server_agg_method: Any, config: Any) -> None:
        """Refuse a server method that is not ours, or combines the replies in another way."""
        if server_agg_method is None:
            return
        if not isinstance(server_agg_method, ServerAggregation):
            raise ParameterError(
                "Expected `server_agg_method` to be `orchestra_strategy.server_aggregation(...)`, "
                f"got {server_agg_method!r}."
            )
        require_equal(server_agg_method, config, AggregationFields.model_fields)

    def check_data(self, data: PartyData) -> None:
        """Refuse users with a single sample: neither BatchNorm nor a comparison has a meaning."""
        who, samples = self.smallest_user(data)
        if samples < 2:
            raise DataError(f"Expected {who} to have at least 2 samples, got {samples}.")

    def smallest_user(self, data: PartyData) -> tuple[str, int]:
        """Return the words for this party's users, and how many samples the smallest has."""
        if self.config.user_type == "multiuser_aggregate":
            users = self.config.num_virtual_users
            return f"each of {users} virtual users", len(data) // users
        return "this party", len(data)

    def before_local_training(self, user: int | None) -> None:
        """Give the views a random stream of this round and user.

        Where records are protected it has to be a secret one: which views a sample gets would
        otherwise follow from its place in the batch, and so from whether another sample is there.
        """
        self.objective.generator = self._stream("views", user, self.exe_device)

    def apply_config(self) -> None:
        """Hand changed parameters on to the objective and the optimizer."""
        super().apply_config()
        self.objective.settings = self._settings()
        self.objective.views = self._views()

    def draw_views(self, inputs: Tensor, generator: torch.Generator) -> ViewSet:
        """Return the objective's own views, for the check of the encoder's health."""
        return ViewSet(*self.objective.views(inputs, generator))

    @torch.no_grad()
    def project(self, x: Tensor) -> Tensor:
        """Return unit-norm projections (B, p), normalised by the batch as in training."""
        with frozen_statistics(self.model):
            return F.normalize(parts_of(self.model, ()).encoder(x), dim=1)

    def _views(self) -> Views:
        return self.views_for(self.config)

    @staticmethod
    def views_for(config: Any) -> Views:
        """Return the views by the configuration: with ``privacy`` in their row-wise form.

        Raises:
            ParameterError: Their name or an option is unknown, or an option is out of its range.
            PrivacyError: ``privacy`` is on, and an option asks for views that couple samples.
        """
        build = build_views if config.privacy == "none" else build_row_wise_views
        return build(config.views, **config.view_options)

    def _settings(self) -> Any:
        settings_class = self.objective_class.settings_class
        return settings_class(*(getattr(self.config, name) for name in settings_class._fields))

    def _stream(
        self, purpose: str, user: int | None = None, device: Any = "cpu"
    ) -> torch.Generator:
        who = self.party if user is None else f"{self.party}/{user}"
        return self.streams.for_torch(who, self.round_index, purpose, device)


def require_equal(server: ServerAggregation, config: Any, names: Iterable[str]) -> None:
    """Refuse a server with other values than the strategy's.

    Raises:
        ParameterError: One of ``names`` differs.
    """
    for name in names:
        ours, servers = getattr(config, name), getattr(server, name)
        if ours != servers:
            raise ParameterError(
                f"Expected `{name}` of the strategy and of `server_aggregation(...)` to be "
                f"equal, got {ours!r} and {servers!r}."
            )


class TargetNetworkStrategy(SelfSupervisedStrategy):
    """A method with a target network: one per party, whatever the number of its virtual users.

    With user-level privacy, virtual users start each round from the averaged network as target.
    """

    objective: TargetObjective

    def start_round(self) -> None:
        """Let the target follow the averaged network, by the moves of the round before."""
        self.objective.settle(self.model, self.objective.moves)
        self.objective.moves = 0
        self._target = copy.deepcopy(self.objective.target.state_dict())
        self._moves = 0

    def before_local_training(self, user: int | None) -> None:
        """Give the views their stream, and a virtual user the target network of the round."""
        super().before_local_training(user)
        if user is not None:
            # One target network per party: kept for each user, it would be a model per user.
            self.objective.target.load_state_dict(self._target)
            self.objective.moves = 0

    def after_local_training(self, user: int | None) -> None:
        """Note how far a user's steps have moved the target."""
        self._moves = max(self._moves, self.objective.moves)

    def finish_round(self) -> None:
        """Take the round's local moves back; the averaged network will make them."""
        self.objective.target.load_state_dict(self._target)
        self.objective.moves = self._moves

    def recover(self) -> None:
        """Start the target network anew from the average if anything in it is not finite."""
        super().recover()
        if not all_finite(self.objective.target.state_dict().values()):
            # A moving average never gets rid of a NaN.
            encoder = parts_of(self.model, ()).encoder
            self.objective.target.load_state_dict(encoder.state_dict())
