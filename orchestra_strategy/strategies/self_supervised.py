"""The base of the self-supervised strategies: views, random streams, target networks.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestra_strategy.aggregation.fields import AggregationFields
from orchestra_strategy.aggregation.server import ServerAggregation
from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.algorithms.objective_bases import SelfSupervisedObjective
from orchestra_strategy.data.augmentation.view_set import Views, ViewSet
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.party.privacy import unit_of
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.strategies.base import FederatedStrategy
from orchestra_strategy.strategies.method import Method
from orchestra_strategy.strategies.self_supervised_method import SelfSupervisedMethod

__all__ = ["SelfSupervisedStrategy", "require_equal"]


class SelfSupervisedStrategy(FederatedStrategy):
    """One party of a self-supervised method; a subclass names its objective.

    Attributes:
        objective_class: The method. The fields of its settings are parameters in ``config_class``.
        heads: Heads that the model must have, by name; it may have others.
    """

    objective_class: ClassVar[type[SelfSupervisedObjective]]
    heads: ClassVar[tuple[str, ...]] = ()
    method_class: ClassVar[type[Method]] = SelfSupervisedMethod
    objective: SelfSupervisedObjective

    def make_objective(self) -> SelfSupervisedObjective:
        """Return the objective on this party's model."""
        self.check_model(self.model)
        return self.objective_class(self.model, self.views(), self.settings(), self.stream("views"))

    @classmethod
    def check_model(cls, model: nn.Module) -> None:
        """Refuse a model without backbone, projector or one of ``heads``."""
        parts_of(model, cls.heads)

    @classmethod
    def check_privacy(cls, config: Any, model: nn.Module) -> None:
        """Refuse ``privacy`` where it would not cover all that leaves a party, and unfit views."""
        super().check_privacy(config, model)
        cls.views_for(config)

    @classmethod
    def check_server(cls, server_agg_method: Any, config: Any) -> None:
        """Refuse a server method that is not ours, or combines the replies in another way."""
        super().check_server(server_agg_method, config)
        if server_agg_method is None:
            return
        if not isinstance(server_agg_method, ServerAggregation):
            raise ParameterError(
                "Expected `server_agg_method` to be `orchestra_strategy.server_aggregation(...)`, "
                f"got {server_agg_method!r}."
            )
        require_equal(server_agg_method, config, AggregationFields.model_fields)

    def smallest_user(self, data: PartyData) -> tuple[str, int]:
        """Return the words for this party's users, and how many samples the smallest has."""
        return USER_TYPES[self.config.user_type].smallest_user(self.config, len(data))

    def draw_views(self, inputs: Tensor, generator: torch.Generator) -> ViewSet:
        """Return the objective's own views, for the check of the encoder's health."""
        return ViewSet(*self.objective.views(inputs, generator))

    @torch.no_grad()
    def project(self, x: Tensor) -> Tensor:
        """Return unit-norm projections (B, p), normalised by the batch as in training."""
        with frozen_statistics(self.model):
            return F.normalize(parts_of(self.model, ()).encoder(x), dim=1)

    def views(self) -> Views:
        """Return the views by the present configuration."""
        return self.views_for(self.config)

    @staticmethod
    def views_for(config: Any) -> Views:
        """Return the views by the configuration: with ``privacy`` in their row-wise form.

        Raises:
            ParameterError: Their name or an option is unknown, or an option is out of its range.
            PrivacyError: ``privacy`` is on, and an option asks for views that couple samples.
        """
        return unit_of(config).build_views(config.views, config.view_options)

    def settings(self) -> Any:
        """Return the objective's settings by the present configuration."""
        settings_class = self.objective_class.settings_class
        return settings_class(*(getattr(self.config, name) for name in settings_class._fields))


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
