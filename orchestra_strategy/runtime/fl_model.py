"""FLModel with early refusals, default wiring, and ``fit(strategy_kwargs=)``."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from orchestra_strategy.aggregation.server import ServerAggregation
from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.party.parameters import refuse_fixed
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.rng import DEFAULT_SEED
from orchestra_strategy.runtime.duration import TimeOfAll, warn_of_many_steps
from orchestra_strategy.runtime.federated_input import federated_pair, validation_pair
from orchestra_strategy.runtime.fl_encoder import HOST_MAX_BATCH, EncoderCalls
from orchestra_strategy.runtime.fl_parties import shape_in
from orchestra_strategy.runtime.fl_wiring import wired
from orchestra_strategy.runtime.guessing import WorseThanGuessing
from orchestra_strategy.runtime.host_arguments import refuse_arguments
from orchestra_strategy.runtime.privacy_budget import affordable, budget_stop, report_largest

__all__ = ["OrchestraFLModel"]

_log = logging.getLogger(__name__)


class OrchestraFLModel(EncoderCalls):
    """SecretFlow's FLModel for the strategies of this package.

    Beyond FLModel: ``fit`` needs no labels, makes one aggregation per epoch (so an epoch is a
    round), keeps the batch size asked for at every party, and takes ``strategy_kwargs``; bad
    arguments and bad data are refused on the driver, in one sentence each, before training.

    Args:
        server: The PYU that aggregates (route ``server``); it may be one of the parties. The first
            of ``device_list`` if neither it nor an aggregator is given; the manifest says so.
        device_list: The parties, at least two.
        model: SecretFlow's ``TorchModel``, a callable that returns the model, or the model; each
            party gets a copy of its own.
        strategy: A registered name of this package.
        random_seed: Root seed of everything; None means 42.
        server_agg_method: By default a :func:`~orchestra_strategy.server_aggregation` with this
            strategy's parameters and its ``aggregate_weights``.
        strategy_config: Parameters by name.
        aggregator: SecretFlow's PlainAggregator, SecureAggregator or SPUAggregator, in place of a
            server (route ``secure``): nobody clusters, all parties make the centroids of sums.
        **kwargs: Parameters by name, and FLModel's own: ``num_gpus``; ``consensus_num``, how many
            parties must find their encoder collapsed to stop the training (more than half); and
            ``simulation``, whether all parties write on one disk, which is known in SecretFlow's
            simulation modes.

    Attributes:
        sample_shape: Of what the last ``fit`` was given; empty before one.
        stop_reason: Why the last ``fit`` ended before its last round; None if it did not.
        collapse_reason: The same, if that was a collapsed encoder.

    Raises:
        HostError: The devices cannot be used in that way.
        ParameterError: A parameter is unknown, out of range, or contradicts another one.
        ModelError: The model lacks a part.
    """

    def __init__(
        self,
        server: Any = None,
        device_list: Sequence[Any] = (),
        model: Any = None,
        *,
        strategy: str = "orchestra",
        random_seed: int | None = None,
        server_agg_method: ServerAggregation | None = None,
        strategy_config: Mapping[str, Any] | None = None,
        aggregator: Any = None,
        **kwargs: Any,
    ) -> None:
        wiring = wired(
            server,
            device_list,
            model,
            strategy,
            random_seed,
            server_agg_method,
            strategy_config,
            aggregator,
            kwargs,
        )
        self._wiring = wiring
        self.strategy_config = wiring.config
        method = wiring.server_agg_method
        super().__init__(
            server=wiring.server,
            device_list=list(device_list),
            model=model,
            strategy=strategy,
            backend="torch",
            random_seed=random_seed,
            aggregator=aggregator,
            **({} if method is None else {"server_agg_method": method}),
            **wiring.host_options,
            **wiring.parameters,
        )
        self.simulation = wiring.simulation
        self._restored = self._in_call = False
        self.sample_shape: tuple[int, ...] = ()
        self._seed = DEFAULT_SEED if random_seed is None else random_seed
        self.stop_reason: str | None = None
        self.collapse_reason: str | None = None
        self._configure({})

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        strategy_kwargs: Mapping[str, Any] | None = None,
        verbose: int = 0,
        callbacks: Any = None,
        validation_data: Any = None,
        validation_freq: int = 1,
        audit_log_dir: str | None = None,
        dataset_builder: Mapping[Any, Callable[..., Any]] | None = None,
        wait_steps: int = 100,
        **others: Any,
    ) -> Any:
        """Train for ``epochs`` rounds.

        Args:
            x: FedNdarray or HDataFrame, one partition per party, of any size; or a mapping from
                PYU to the path of the party's data (see
                :func:`~orchestra_strategy.data.load_local`), or to an array.
            y: Labels, for a strategy that learns from them (``fed_supervised``); of others only
                their number is looked at. With paths of tables, the name of the label column, which
                is left out of the samples; paths of images and .npz files may have labels, which
                are read where they are needed.
            epochs: Rounds; each party does ``local_epochs`` passes over its data in each. With
                ``user_type="local_gradient"`` a round is one batch, and an epoch as many rounds as
                the smallest party has batches.
            batch_size: Samples per local step, at every party; overrides the parameter.
            strategy_kwargs: Parameters for this call only; not those that decide the form of what
                the parties hold (``memory_size`` and the like), which the constructor takes. They
                reach the parties; the server's clustering keeps the constructor's.
            verbose: 1 shows FLModel's own progress bar.
            callbacks: FLModel's callbacks.
            validation_data: ``(x, y)``, or ``x`` alone: what :meth:`evaluate` gives of it is in the
                history as ``val_...``.
            validation_freq: Epochs between two such evaluations.
            audit_log_dir: Folder for a model after each of them: ``base_model/EPOCH`` in it.
            dataset_builder: FLModel's, with ``x={PYU: path}``: the batches of one epoch are put
                together to the party's samples.
            wait_steps: FLModel's, for Ray.
            **others: FLModel's other arguments, which are refused, see ``docs/flmodel.md``.

        Returns:
            FLModel's history: ``global_history`` and ``local_history``.

        Raises:
            DataError: Any party's data cannot be used; all problems in one message.
            PrivacyError: The privacy budget does not allow a single round, or validation data are
                protected, see ``log_unprotected``.
            ParameterError: As in the constructor; or an argument of FLModel has no meaning here.
        """
        refuse_arguments("fit", others, signature(self.fit).parameters, random_seed=self._seed)
        as_count("epochs", epochs)
        as_count("validation_freq", validation_freq)
        if audit_log_dir is not None and validation_data is None:
            raise ParameterError(
                f"Expected `validation_data` with `audit_log_dir`, got {audit_log_dir!r} alone: a "
                "model is saved after each validation. Checkpoints are the trainer's, "
                "`checkpoint_dir`."
            )
        overrides = self._overrides(strategy_kwargs, batch_size)
        labelled = self._wiring.strategy_class.needs_labels
        x, y = federated_pair(x, y, dataset_builder, labelled=labelled)
        reports = self._described(x, y)
        by_party = {party: report["num_samples"] for party, report in reports.items()}
        self.sample_shape = shape_in(reports)
        sizes = list(by_party.values())
        validation = validation_pair(validation_data, dataset_builder)
        if validation is not None:
            self._check_evaluation(*validation)
        rate, aggregate_freq = self._host_steps(sizes, overrides)
        with self._configured(overrides):
            rounds_per_epoch = math.ceil(math.ceil(1.0 / rate) / aggregate_freq)
            planned, epochs = epochs, affordable(self.workers, sizes, epochs, rounds_per_epoch)
            warn_of_many_steps(self._parsed(overrides), by_party, epochs * rounds_per_epoch)
            history = super().fit(
                x,
                x if y is None else y,
                batch_sampling_rate=rate,
                aggregate_freq=aggregate_freq,
                epochs=epochs,
                verbose=verbose,
                callbacks=[
                    TimeOfAll(epochs),
                    WorseThanGuessing(self._parsed(overrides)),
                    *_listed(callbacks),
                ],
                validation_data=validation,
                validation_freq=validation_freq,
                audit_log_dir=audit_log_dir,
                wait_steps=wait_steps,
                random_seed=self._seed,
            )
            report_largest(history)
            self.stop_reason = self.collapse_reason = self._why_stopped()
            if self.stop_reason is None and epochs < planned:
                self.stop_reason = budget_stop(epochs, planned)
            return history

    def _overrides(
        self, strategy_kwargs: Mapping[str, Any] | None, batch_size: Any
    ) -> dict[str, Any]:
        """Return the parameters of one call, or refuse them."""
        overrides = dict(strategy_kwargs or {})
        if isinstance(batch_size, Mapping):
            raise ParameterError(
                "Expected `batch_size` to be one number, the same at every party whatever the size "
                "of its data, got a mapping; leave out the PYUs."
            )
        if batch_size is not None:
            overrides["batch_size"] = batch_size
        refuse_fixed(self._wiring.strategy_class.fixed_parameters, overrides)
        self._parsed(overrides)
        return overrides

    def _host_steps(self, sizes: Sequence[int], overrides: Mapping[str, Any]) -> tuple[float, int]:
        """Return FLModel's sampling rate and how many of its steps lie between aggregations."""
        most = min(1.0, HOST_MAX_BATCH / max(sizes))
        batch_size = overrides.get("batch_size", self.strategy_config.batch_size)
        user_type = USER_TYPES[self.strategy_config.user_type]
        return user_type.host_steps(most, batch_size, sizes)


def _listed(callbacks: Any) -> list[Any]:
    """Return FLModel's ``callbacks``, which may be one, several or None, as a list."""
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
