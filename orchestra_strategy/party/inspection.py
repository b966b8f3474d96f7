"""Answers of a party about its encoder: ``predict``, ``evaluate``, and whether it has collapsed."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from orchestra_strategy import host
from orchestra_strategy.errors import DataError, OrchestraError, ParameterError
from orchestra_strategy.evaluation import collapse_reason, extract_features
from orchestra_strategy.exchange.told import check_told
from orchestra_strategy.host_metrics import PartyMean
from orchestra_strategy.party.data import PartyData, refuse_weights
from orchestra_strategy.party.health import (
    EVALUATION_NAMES,
    clustering_of,
    health_metrics,
    measure_health,
)
from orchestra_strategy.party.labels import labels_of
from orchestra_strategy.party.roles import Party
from orchestra_strategy.threads import torch_threads

__all__ = ["Inspection"]

_ROWS_TO_JUDGE = 16  # of fewer samples an effective rank below 2 is no sign of a collapse
_EVALUATION_ROWS = 256  # for the health where `health_samples` turns the check of a round off


class Inspection:
    """Answers ``predict`` and ``evaluate`` of a party.

    Args:
        party: The strategy.

    Attributes:
        collapse: Why the encoder counts as collapsed after the last round; None if it does not.
        evaluated: The numbers of the last evaluation, and of how many samples.
    """

    def __init__(self, party: Party) -> None:
        self.party = party
        self._samples: npt.NDArray[Any] | OrchestraError | None = None
        self._labels: npt.NDArray[np.int64] | None = None
        self.collapse: str | None = None
        self.evaluated: tuple[dict[str, float], int] = ({}, 0)

    def take_data(
        self,
        x: Any,
        y: Any,
        sampling_rate: float | None,
        s_w: Any = None,
        sampler_method: str = "batch",
    ) -> None:
        """Take the samples of FLModel's next ``predict`` or ``evaluate``.

        Raises:
            DataError: They cannot be used. It is raised again by the next call, since the host does
                not look at this call's outcome.
            ParameterError: ``s_w`` or ``sampler_method`` ask for what there is not; likewise.
        """
        mend = self.party.privacy.protected
        try:
            refuse_weights(s_w, sampler_method)
            data = PartyData.from_host(x, y, sampling_rate, mend=mend)
            self._labels = labels_of(y, x)
        except OrchestraError as error:
            self._samples = error
            raise
        self._samples = data.samples

    def predict(self) -> npt.NDArray[Any]:
        """Return the ``predict_output`` of all samples given to FLModel's ``predict``.

        Returns:
            Features (n, d), unit-norm projections (n, p), or ids of clusters or classes (n,) int64.

        Raises:
            ParameterError: Clusters or classes are asked for and the strategy has none.
        """
        samples, config = self._samples_to_look_at("predict"), self.party.config
        with torch_threads(config.torch_threads):
            if config.predict_output == "projections":
                return self.projections(samples)
            if config.predict_output == "clusters":
                return self._required_clusters(samples)
            if config.predict_output == "classes":
                return self._required_classes(samples)
            return extract_features(self.party.model, samples, device=self.party.exe_device)

    def evaluate(self) -> list[Any]:
        """Return the encoder's health on the samples given to FLModel's ``evaluate``.

        With labels also how well clusters fit them (``nmi``, ``ari``, ``cluster_accuracy``,
        ``purity``) and, of a strategy that learns classes, its ``accuracy``. The host averages the
        parties' numbers by their numbers of samples.

        Raises:
            PrivacyError: The samples are protected, see ``log_unprotected``.
        """
        party = self.party
        party.privacy.check_telling(party.config)
        samples = self._samples_to_look_at("evaluate")
        with torch_threads(party.config.torch_threads):
            most = party.config.health_samples or _EVALUATION_ROWS
            metrics = health_metrics(measure_health(party, samples, most), prefix="")
            if self._labels is not None:
                metrics |= clustering_of(party, self.cluster_ids(samples), samples, self._labels)
                classes = self.class_ids(samples)
                if classes is not None:
                    metrics["accuracy"] = float((classes == self._labels).mean())
        if not metrics:
            got = f"{len(samples)} samples"
            if not party.overrides("draw_views"):
                got = "no labels for a strategy without views (`draw_views`)"
            raise DataError(
                f"Expected at least 2 samples per party, or labels, for `evaluate`, got {got}: "
                "there is nothing to measure."
            )
        check_told(host.plain_class(party).__name__, EVALUATION_NAMES, metrics)
        n = len(samples)
        self.evaluated = dict(metrics), n
        return [PartyMean(name, value * n, n) for name, value in sorted(metrics.items())]

    def check_health(self) -> dict[str, float]:
        """Measure the party's own network after its local steps, and note a collapse."""
        samples, most = self.party.require_data().samples, self.party.config.health_samples
        health = measure_health(self.party, samples, most)
        enough = min(len(samples), most) >= _ROWS_TO_JUDGE
        self.collapse = collapse_reason(health) if enough and health is not None else None
        return health_metrics(health)

    def projections(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return unit-norm projections (n, p) of samples, of the model as it is deployed.

        Raises:
            ParameterError: The model has no projector.
        """
        if not hasattr(self.party.model, "projector"):
            raise ParameterError(
                "Expected the model to have a `projector` for `predict_output='projections'`, got "
                f"{type(self.party.model).__name__} without one; use 'features'."
            )
        model: Any = self.party.model
        encoder = nn.Sequential(model.backbone, model.projector)
        z = extract_features(encoder, samples, device=self.party.exe_device)
        lengths = np.linalg.norm(z, axis=1, keepdims=True)
        unit: npt.NDArray[np.float32] = z / np.maximum(lengths, 1e-12)
        return unit

    def cluster_ids(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.int64] | None:
        """Return ids (n,) of the strategy's clusters, or None if it has none."""
        if not hasattr(self.party.model, "projector"):
            return None
        found = self.party.assign_clusters(torch.from_numpy(self.projections(samples)))
        return None if found is None else found[0].cpu().numpy().astype(np.int64)

    def class_ids(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.int64] | None:
        """Return the classes (n,) that the model finds in samples, or None if it learns none."""
        model: Any = self.party.model
        if not self.party.needs_labels or not hasattr(model, "classifier"):
            return None
        network = nn.Sequential(model.backbone, model.projector, model.classifier)
        logits = extract_features(network, samples, device=self.party.exe_device)
        ids: npt.NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
        return ids

    def _required_classes(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        ids = self.class_ids(samples)
        if ids is None:
            raise ParameterError(
                "Expected a strategy that learns from labels, with a `classifier`, for "
                f"`predict_output='classes'`, got {host.plain_class(self.party).__name__}; use "
                "'features' and train a classifier on them."
            )
        return ids

    def _required_clusters(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        ids = self.cluster_ids(samples)
        if ids is None:
            raise ParameterError(
                "Expected a strategy with clusters that has been trained for "
                f"`predict_output='clusters'`, got {type(self.party).__name__} without any; use "
                "'features' and cluster them."
            )
        return ids

    def _samples_to_look_at(self, what: str) -> npt.NDArray[Any]:
        if isinstance(self._samples, OrchestraError):
            raise self._samples
        if self._samples is None:
            raise DataError(f"Expected data before `{what}`, got none: call FLModel.{what}(x).")
        return self._samples
