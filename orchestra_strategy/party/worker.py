"""The worker that FLModel starts at a party, but for its training: data, parameters, answers.

Methods that FLModel calls have its names and signatures. Its defaults are replaced because they
turn every sample into float64, scale batches by party, and move BatchNorm's statistics in predict.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from orchestra_strategy import host
from orchestra_strategy.aggregation.fields import AggregationFields
from orchestra_strategy.checkpoints.party import PartyCheckpoints
from orchestra_strategy.config import StrategyConfig, parse_config
from orchestra_strategy.data.arrays import describe_samples
from orchestra_strategy.errors import DataError, HostError, ParameterError
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.party.data import PartyData, fingerprint
from orchestra_strategy.party.inspection import Inspection
from orchestra_strategy.party.parameters import check_wiring, refuse_fixed, strategy_parameters
from orchestra_strategy.party.privacy import unit_of
from orchestra_strategy.party.reports import Reports
from orchestra_strategy.privacy.settings import PrivacyFields
from orchestra_strategy.rng import DEFAULT_SEED, SecretStreams, SeededStreams, Streams
from orchestra_strategy.threads import torch_threads

__all__ = ["PartyWorker"]


class PartyWorker(host.BaseTorchModel):  # type: ignore[misc]
    """A party's model, data, parameters and answers; see :class:`FederatedStrategy` for training.

    Args:
        builder_base: SecretFlow's ``TorchModel``, or a callable that returns the model.
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
        if skip_bn:
            raise ParameterError(
                "Expected `skip_bn` to be False, got True: SecretFlow's flag sees only top-level "
                "BatchNorm and misaligns the rest. Use `norm='group'` in the model instead."
            )
        use_gpu = bool(kwargs.get("use_gpu", False))
        if use_gpu and not torch.cuda.is_available():
            raise HostError("Expected a CUDA device for `num_gpus` > 0, got none; use num_gpus=0.")
        self.model_builder = builder_base
        self.seed = DEFAULT_SEED if random_seed is None else int(random_seed)
        self._given = strategy_parameters(strategy_config, kwargs)
        self.config: Any = parse_config(self.config_class, self._given)
        self.check_route(self.config.route)
        check_wiring(self.config.route, kwargs.get("server_agg_method"), host.is_worker(self))
        self.check_server(kwargs.get("server_agg_method"), self.config)
        # The model's initial weights are the one draw that torch takes from its global generator;
        # fork_rng gives the caller's generator back as it was.
        with torch.random.fork_rng(), torch_threads(self.config.torch_threads):
            torch.manual_seed(self.seed)
            super().__init__(builder_base, random_seed=None, use_gpu=use_gpu)
        self.party = self.config.party or ""
        self.privacy: Any = unit_of(self.config)(self)
        self.streams = self.privacy.own_streams() or self._open_streams()
        self.inspection = Inspection(self)
        self.checkpoints = PartyCheckpoints(self)
        self.reports = Reports(self)
        self._data: PartyData | None = None
        self._data_error: DataError | None = None
        self.fingerprint: str | None = None

    # ---- What a strategy says --------------------------------------------------------------

    @classmethod
    def check_route(cls, route: str) -> None:
        """Refuse a route that the strategy cannot go; by default none."""

    @staticmethod
    def check_server(server_agg_method: Any, config: Any) -> None:
        """Refuse a server method that cannot work with a configuration; None is always fine."""

    @staticmethod
    def check_model(model: nn.Module) -> None:
        """Refuse a model that the objective cannot train; by default none."""

    def _check_samples(self, data: PartyData) -> None:
        """Refuse data that this configuration cannot use."""

    def _forget_samples(self) -> None:
        """Drop what is tied to the samples of a former fit."""

    def _take_samples(self) -> None:
        """Get ready for new data."""

    def _apply_config(self) -> None:
        """Hand changed parameters on."""

    # ---- Data ------------------------------------------------------------------------------

    def build_dataset(
        self,
        x: Any,
        y: Any | None = None,
        s_w: Any | None = None,
        sampling_rate: float | None = None,
        buffer_size: int | None = None,
        shuffle: bool = False,
        random_seed: int = 1234,
        repeat_count: int = 1,
        sampler_method: str = "batch",
        stage: str = "train",
    ) -> None:
        """Take the party's samples; see FLModel's ``fit`` for the arguments.

        Only ``x``, the number of labels, ``sampling_rate`` and ``stage`` are used: batches keep the
        size of the parameter ``batch_size``, their order follows from the seed. Labels themselves
        are kept for ``evaluate`` alone.

        Raises:
            DataError: The samples cannot be used. It is raised again by the next call, since the
                host does not look at this call's outcome.
        """
        if stage == "eval":
            self.inspection.take_data(x, y, sampling_rate)
            return
        try:
            data = PartyData.from_host(x, y, sampling_rate, mend=self.privacy.protected)
            self._check_samples(data)
            found = fingerprint(data.samples)
            self.checkpoints.refuse_other_data(found)
        except DataError as error:
            self._data_error = error
            raise
        known, self.fingerprint = self.fingerprint, found
        if known not in (None, self.fingerprint):
            self._forget_samples()
        self._data, self._data_error = data, None
        self.party = self._name_in_streams()
        self._take_samples()

    def describe_data(self, x: Any, y: Any | None = None) -> dict[str, Any]:
        """Return number, shape and dtype of samples, and whether they are finite.

        With ``privacy`` values are not looked at: what cannot be used counts as zero.
        """
        return describe_samples(x, y, values=not self.privacy.protected)

    def require_data(self) -> PartyData:
        """Return the training data.

        Raises:
            DataError: There are none, or they were refused.
        """
        if self._data_error is not None:
            raise self._data_error
        if self._data is None:
            raise DataError("Expected data before training, got none: call `build_dataset` first.")
        return self._data

    def num_samples(self) -> int:
        """Return the party's number of samples; 0 before it has data."""
        return 0 if self._data is None else len(self._data)

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

    # ---- What FLModel asks -----------------------------------------------------------------

    def predict(self, predict_steps: int = 0) -> np.ndarray:  # type: ignore[type-arg]
        """Return what :class:`Inspection` makes of the samples given to FLModel's ``predict``."""
        return self.inspection.predict()

    def evaluate(self, evaluate_steps: int = 0) -> list[Any]:
        """Return the encoder's health on the samples given to FLModel's ``evaluate``."""
        return self.inspection.evaluate()

    def get_stop_training(self) -> bool:
        """Whether this party votes to stop: its encoder has collapsed."""
        return self.collapse_found() is not None

    def wrap_local_metrics(self, stage: str = "train") -> list[Any]:
        """Return the last round's losses, weighted by the party's number of samples."""
        n = self.num_samples()
        return [host.Mean(name, value * n, n) for name, value in sorted(self.reports.told.items())]

    def get_local_metrics(self) -> list[Any]:
        """Return the last round's losses for the host's history."""
        return self.wrap_local_metrics()

    def get_logs(self) -> dict[str, float]:
        """Return the last round's losses by name."""
        return dict(self.reports.told)

    # ---- What our driver asks --------------------------------------------------------------

    def collapse_found(self) -> str | None:
        """Return why this party votes to stop the training, or None."""
        return self.inspection.collapse if self.config.stop_on_collapse else None

    def manifest_rows(self) -> list[dict[str, Any]]:
        """Return all that ever leaves this party, see :meth:`Reports.manifest_rows`."""
        return self.reports.manifest_rows()

    def averaged_weights(self) -> dict[str, FloatArray]:
        """Return the model that every party has, see :meth:`Reports.averaged_weights`."""
        return self.reports.averaged_weights()

    def work_done(self) -> dict[str, int]:
        """Return this party's rounds, the rows of all of them, and how many left it out."""
        return self.reports.work_done()

    def left_out_of(self) -> dict[int, str]:
        """Return the rounds that this party was left out of, and why; 0 is the one before any."""
        return self.reports.left_out_of()

    def privacy_spent(self) -> dict[str, float]:
        """Return epsilon at delta of all that this party has released; empty without privacy."""
        spent: dict[str, float] = self.privacy.spent()
        return spent

    def privacy_rounds_left(self, num_samples: int) -> int | None:
        """Return how many rounds the budget allows on so many samples; None without a budget."""
        rounds: int | None = self.privacy.rounds_left(num_samples)
        return rounds

    def checkpoint(self, step: str, folder: str, *arguments: Any) -> dict[str, Any]:
        """Do a step of writing or reading a checkpoint, see :meth:`PartyCheckpoints.do`."""
        return self.checkpoints.do(step, folder, *arguments)

    def common_to_all(self) -> dict[str, Any]:
        """Return what all parties have, for one that was away."""
        return self.checkpoints.common()

    def reply_bytes(self) -> dict[str, int]:
        """Return the bytes that come back in an exchange."""
        return self.reports.reply_bytes()

    def close_checkpoints(self) -> None:
        """Give the folder back."""
        self.checkpoints.close()
