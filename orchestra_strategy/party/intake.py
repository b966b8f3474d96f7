"""Intake of a party's samples: from FLModel's arrays, or from a ``dataset_builder``."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, ClassVar

from orchestra_strategy.checkpoints.party import PartyCheckpoints
from orchestra_strategy.data.arrays import describe_samples
from orchestra_strategy.errors import DataError, OrchestraError
from orchestra_strategy.party.built_data import data_from_builder
from orchestra_strategy.party.data import PartyData, fingerprint, refuse_weights
from orchestra_strategy.party.inspection import Inspection
from orchestra_strategy.party.labels import label_problem, training_labels

__all__ = ["Intake"]

_log = logging.getLogger(__name__)


class Intake:
    """The part of :class:`~orchestra_strategy.party.worker.PartyWorker` that takes data.

    Attributes:
        needs_labels: Whether training needs the samples' classes: batches have ``labels`` then.
        fingerprint: Of the samples; None before there are some.
    """

    needs_labels: ClassVar[bool] = False

    config: Any
    privacy: Any
    inspection: Inspection
    checkpoints: PartyCheckpoints
    party: str
    fingerprint: str | None = None
    _data: PartyData | None = None
    _data_error: OrchestraError | None = None

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
        size of the parameter ``batch_size``, their order follows from the seed, anew in each pass.
        Labels themselves are kept for ``evaluate``, and to train a strategy that needs them.

        Raises:
            DataError: The samples cannot be used. It is raised again by the next call, since the
                host does not look at this call's outcome.
            ParameterError: ``s_w`` or ``sampler_method`` ask for what there is not; likewise.
        """
        if stage == "eval":
            self.inspection.take_data(x, y, sampling_rate, s_w, sampler_method)
            return
        try:
            refuse_weights(s_w, sampler_method)
            data = PartyData.from_host(x, y, sampling_rate, mend=self.privacy.protected)
            if self.needs_labels:
                labels = training_labels(y, x, self.num_classes(), self.privacy.protected)
                data = dataclasses.replace(data, labels=labels)
            self._check_samples(data)
            found = fingerprint(data.samples, data.labels)
            self.checkpoints.refuse_other_data(found)
        except OrchestraError as error:
            self._data_error = error
            raise
        known, self.fingerprint = self.fingerprint, found
        if known not in (None, self.fingerprint):
            _log.warning(
                "%s has other data than before: what belongs to single samples starts anew.",
                self.config.party or "This party",
            )
            self._forget_samples()
        self._data, self._data_error = data, None
        self.party = self._name_in_streams()
        self._take_samples()

    def build_dataset_from_builder(
        self,
        dataset_builder: Callable[..., Any],
        x: Any,
        y: Any | None = None,
        s_w: Any | None = None,
        repeat_count: int = 1,
        stage: str = "train",
    ) -> int:
        """Take the samples of FLModel's ``dataset_builder``, see :func:`data_from_builder`.

        Returns:
            1: an epoch is a round, whatever the numbers of the parties' batches.

        Raises:
            OrchestraError: The builder's batches cannot be used, or ``x`` is no path.
        """
        if not isinstance(x, str):
            raise DataError(
                "Expected `x` to be {PYU: path} with `dataset_builder`, which reads the path, got "
                f"{type(x).__name__} at a party; leave `dataset_builder` out, batches are made of "
                "the samples here."
            )
        data = data_from_builder(dataset_builder, x, stage)
        self.build_dataset(data.samples, data.labels, s_w, stage=stage)
        return 1

    def build_dataset_from_csv(self, csv_file_path: str, label: Any, **kwargs: Any) -> None:
        """Refuse a path without a builder, as SecretFlow does for torch.

        Raises:
            DataError: Always.
        """
        raise DataError(
            "Expected a FedNdarray or HDataFrame, or {PYU: path} with `dataset_builder`, got paths "
            "alone: `OrchestraFLModel` reads CSV and other files, SecretFlow's FLModel does not."
        )

    def describe_data(self, x: Any, y: Any | None = None, stage: str = "eval") -> dict[str, Any]:
        """Return number, shape and dtype of samples, and whether they are finite.

        With ``stage="train"`` also whether labels can be used, if training needs some. With
        ``privacy`` values are not looked at: what cannot be used counts as zero.
        """
        protected = self.privacy.protected
        described = describe_samples(x, y, values=not protected)
        if self.needs_labels and stage == "train":
            described["labels"] = label_problem(y, x, self.num_classes(), protected)
        return described

    def num_classes(self) -> int | None:
        """Return the number of classes that labels may name; None where any number is fine."""
        return None

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

    # ---- Inside ----------------------------------------------------------------------------

    def _check_samples(self, data: PartyData) -> None:
        """Refuse data that this configuration cannot use."""

    def _forget_samples(self) -> None:
        """Drop what is tied to the samples of a former fit."""

    def _take_samples(self) -> None:
        """Get ready for new data."""

    def _name_in_streams(self) -> str:
        """Return the party's name, for streams of a seed to differ between parties."""
        raise NotImplementedError
