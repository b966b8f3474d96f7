"""The worker that FLModel starts at a party, but for its training: data, parameters, answers.

Methods that FLModel calls have its names and signatures. Its defaults are replaced because they
turn every sample into float64, scale batches by party, and move BatchNorm's statistics in predict.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from orchestra_strategy import host
from orchestra_strategy.aggregation.fields import AggregationFields
from orchestra_strategy.algorithms.own_network import builder_of
from orchestra_strategy.checkpoints.party import PartyCheckpoints
from orchestra_strategy.config import StrategyConfig, parse_config
from orchestra_strategy.errors import HostError
from orchestra_strategy.global_randomness import first_weights_of
from orchestra_strategy.party.answers import Answers
from orchestra_strategy.party.inspection import Inspection
from orchestra_strategy.party.intake import Intake
from orchestra_strategy.party.model_files import ModelFiles
from orchestra_strategy.party.parameters import (
    check_wiring,
    refuse_fixed,
    refuse_host_options,
    strategy_parameters,
)
from orchestra_strategy.party.privacy import unit_of
from orchestra_strategy.party.reports import Reports
from orchestra_strategy.privacy.settings import PrivacyFields
from orchestra_strategy.rng import DEFAULT_SEED, SecretStreams, SeededStreams, Streams
from orchestra_strategy.threads import torch_threads

__all__ = ["PartyWorker"]


class PartyWorker(Intake, Answers, host.BaseTorchModel):  # type: ignore[misc]
    """A party's model, data, parameters and answers; see :class:`FederatedStrategy` for training.

    Args:
        builder_base: SecretFlow's ``TorchModel``, a callable that returns the model, or the model;
            the party has a copy of its own.
        random_seed: Root seed; None means 42, so that all parties start from the same model.
        skip_bn: Refused; SecretFlow's flag misaligns the weights.
        strategy_config: Parameters by name.
        **kwargs: Parameters by name, and what FLModel adds.

    Attributes:
        config: The parameters.
        party: The party's name in random streams.
        streams: Where all its random draws come from.
        privacy: What protects its data.
        inspection: What answers ``predict`` and ``evaluate``.
        checkpoints: Its own files.
        reports: What tells an auditor of it.
        model_files: What FLModel's ``save_model`` writes.

    Raises:
        ParameterError: A parameter is unknown or out of range.
        HostError: A GPU is asked for and there is none.
    """

    config_class: ClassVar[type[StrategyConfig]] = StrategyConfig
    fixed_parameters: ClassVar[tuple[str, ...]] = (
        "route",
        "user_type",
        "num_virtual_users",
        "user_split",
        "streams",
        "parties",
        "payload_dtype",
        "payload_bits",
        *PrivacyFields.model_fields,  # what a training promises, it cannot take back half way
        *AggregationFields.model_fields,
    )
    """Parameters that decide the form of what parties or the server hold: for the constructor."""

    def __init__(
        self,
        builder_base: Any,
        random_seed: int | None = None,
        skip_bn: bool = False,
        strategy_config: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        own = {**kwargs, "skip_bn": skip_bn, "strategy_config": strategy_config}
        use_gpu = bool(kwargs.get("use_gpu", False))
        if use_gpu and not torch.cuda.is_available():
            raise HostError("Expected a CUDA device for `num_gpus` > 0, got none; use num_gpus=0.")
        self.model_builder = builder_base
        self.seed = DEFAULT_SEED if random_seed is None else int(random_seed)
        self._given = strategy_parameters(strategy_config, kwargs)
        self.config: Any = self.checked_config(own, in_fl_model=host.is_worker(self))
        with first_weights_of(self.seed), torch_threads(self.config.torch_threads):
            super().__init__(_building_anew(builder_base), random_seed=None, use_gpu=use_gpu)
        self.party = self.config.party or ""
        self.privacy: Any = unit_of(self.config)(self)
        self.streams = self.privacy.own_streams() or self._open_streams()
        self.inspection = Inspection(self)
        self.checkpoints = PartyCheckpoints(self)
        self.reports = Reports(self)
        self.model_files = ModelFiles(self)

    # ---- What a strategy says --------------------------------------------------------------

    @classmethod
    def checked_config(cls, kwargs: Mapping[str, Any], in_fl_model: bool = True) -> Any:
        """Return the parameters of a call, on the driver already; or refuse it.

        Args:
            kwargs: What FLModel hands to every strategy.
            in_fl_model: Whether an FLModel does; else the worker is built by hand.

        Raises:
            ParameterError: A parameter is unknown or out of range, or contradicts the wiring.
        """
        refuse_host_options(kwargs)
        parameters = strategy_parameters(kwargs.get("strategy_config"), kwargs)
        config: Any = parse_config(cls.config_class, parameters)
        method = kwargs.get("server_agg_method")
        cls.check_route(config.route)
        check_wiring(config.route, method, in_fl_model)
        cls.check_server(method, config)
        return config

    @classmethod
    def check_route(cls, route: str) -> None:
        """Refuse a route that the strategy cannot go; by default none."""

    @classmethod
    def check_server(cls, server_agg_method: Any, config: Any) -> None:
        """Refuse a server method that cannot work with a configuration; None is always fine."""

    @staticmethod
    def check_model(model: nn.Module) -> None:
        """Refuse a model that the objective cannot train; by default none."""

    # ---- Random streams --------------------------------------------------------------------

    def _open_streams(self) -> Streams:
        """Return the streams of a party without protection: by the seed, or by a secret."""
        by_seed = self.config.streams == "seed"
        if self.config.streams == "auto":  # built by hand, it is nobody's deployment
            by_seed = not host.is_worker(self) or host.in_simulation()
        return SeededStreams(self.seed) if by_seed else SecretStreams()

    def _name_in_streams(self) -> str:
        """Return the party's name, for streams of a seed to differ between parties.

        Where it has none, a fingerprint of its data stands in. Not where the party is protected: a
        fingerprint changes as a whole with any one sample.
        """
        if self.config.party:
            return str(self.config.party)
        if self.streams.secret or self.privacy.protected:
            return ""
        return self.fingerprint or ""

    # ---- Parameters ------------------------------------------------------------------------

    def configure(self, overrides: Mapping[str, Any]) -> None:
        """Change parameters; those of the constructor that are not named come back.

        Raises:
            ParameterError: Unknown, out of range, or one of ``fixed_parameters``.
        """
        config = parse_config(self.config_class, {**self._given, **overrides})
        refuse_fixed(
            self.fixed_parameters,
            [k for k in self.fixed_parameters if getattr(config, k) != getattr(self.config, k)],
        )
        self.config = config
        if config.party:
            self.party = config.party
        self._apply_config()

    def _apply_config(self) -> None:
        """Hand changed parameters on."""


def _building_anew(model: Any) -> Any:
    """Return a TorchModel of the host's that builds a network of the party's own."""
    own = copy.copy(model) if isinstance(model, host.TorchModel) else host.TorchModel()
    own.model_fn, own.kwargs = builder_of(model), {}
    return own
