"""``predict`` and ``evaluate`` of a worker, and its vote to stop a training that has collapsed."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from orchestra_strategy import host
from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.data.augmentation.view_set import ViewSet
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import extract_features
from orchestra_strategy.party.data import PartyData
from orchestra_strategy.party.health import clustering_of, health_metrics, measure_health
from orchestra_strategy.party.privacy_checks import refuse_telling
from orchestra_strategy.threads import torch_threads

__all__ = ["Inspection"]

_EVALUATION_ROWS = 256  # for the health where `health_samples` turns the check of a round off


class Inspection:
    """The part of a worker that answers ``predict`` and ``evaluate``, and that votes to stop."""

    model: nn.Module
    config: Any
    exe_device: torch.device
    seed: int
    party: str

    def forget_inspection(self) -> None:
        """Start without data to look at, and without a finding."""
        self._eval_data: PartyData | DataError | None = None
        self._eval_labels: npt.NDArray[np.int64] | None = None
        self.collapse: str | None = None

    # ---- Hooks -----------------------------------------------------------------------------

    def draw_views(self, inputs: Tensor, generator: torch.Generator) -> ViewSet | None:
        """Return views of samples for the check of the encoder's health; None skips the check."""
        return None

    def project(self, x: Tensor) -> Tensor:
        """Return what the health is measured on, (B, d), for model inputs (B, ...)."""
        with torch.no_grad(), frozen_statistics(self.model):
            projections: Tensor = self.model(x)
        return projections

    def assign_clusters(self, z: Tensor) -> tuple[Tensor, int] | None:
        """Return the clusters (B,) of unit-norm projections (B, p), and their number, or None."""
        return None

    # ---- What FLModel calls ----------------------------------------------------------------

    def predict(self, predict_steps: int = 0) -> np.ndarray:  # type: ignore[type-arg]
        """Return the ``predict_output`` of all samples given to FLModel's ``predict``.

        Returns:
            Features (n, d), unit-norm projections (n, p), or ids of clusters (n,) int64.

        Raises:
            ParameterError: Clusters are asked for and the strategy has none.
        """
        samples = self._samples_to_look_at("predict")
        with torch_threads(self.config.torch_threads):
            if self.config.predict_output == "projections":
                return self.projections(samples)
            if self.config.predict_output == "clusters":
                return self._required_clusters(samples)
            return extract_features(self.model, samples, device=self.exe_device)

    def evaluate(self, evaluate_steps: int = 0) -> list[Any]:
        """Return the encoder's health on the samples given to FLModel's ``evaluate``.

        With labels also how well clusters fit them (``nmi``, ``ari``, ``cluster_accuracy``,
        ``purity``). The host averages the parties' numbers by their numbers of samples.

        Raises:
            PrivacyError: The samples are protected, see ``log_unprotected``.
        """
        refuse_telling(self.config)
        samples = self._samples_to_look_at("evaluate")
        with torch_threads(self.config.torch_threads):
            most = self.config.health_samples or _EVALUATION_ROWS
            metrics = health_metrics(measure_health(self, samples, most), prefix="")
            if self._eval_labels is not None:
                metrics |= clustering_of(self, samples, self._eval_labels)
        if not metrics:
            raise DataError(
                f"Expected at least 2 samples per party, or labels, for `evaluate`, got "
                f"{len(samples)} samples."
            )
        n = len(samples)
        return [host.Mean(name, value * n, n) for name, value in sorted(metrics.items())]

    def projections(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return unit-norm projections (n, p) of samples, of the model as it is deployed.

        Raises:
            ParameterError: The model has no projector.
        """
        if not hasattr(self.model, "projector"):
            raise ParameterError(
                "Expected the model to have a `projector` for `predict_output='projections'`, got "
                f"{type(self.model).__name__} without one; use 'features'."
            )
        model: Any = self.model
        encoder = nn.Sequential(model.backbone, model.projector)
        z = extract_features(encoder, samples, device=self.exe_device)
        lengths = np.linalg.norm(z, axis=1, keepdims=True)
        unit: npt.NDArray[np.float32] = z / np.maximum(lengths, 1e-12)
        return unit

    def cluster_ids(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.int64] | None:
        """Return ids (n,) of the strategy's clusters, or None if it has none."""
        if not hasattr(self.model, "projector"):
            return None
        found = self.assign_clusters(torch.from_numpy(self.projections(samples)))
        return None if found is None else found[0].cpu().numpy().astype(np.int64)

    def _required_clusters(self, samples: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        ids = self.cluster_ids(samples)
        if ids is None:
            raise ParameterError(
                "Expected a strategy with clusters that has been trained for "
                f"`predict_output='clusters'`, got {type(self).__name__} without any; use "
                "'features' and cluster them."
            )
        return ids

    def _samples_to_look_at(self, what: str) -> npt.NDArray[Any]:
        if isinstance(self._eval_data, DataError):
            raise self._eval_data
        if self._eval_data is None:
            raise DataError(f"Expected data before `{what}`, got none: call FLModel.{what}(x).")
        return self._eval_data.samples

    def get_stop_training(self) -> bool:
        """Whether this party votes to stop: its encoder has collapsed."""
        return self.collapse_found() is not None

    def collapse_found(self) -> str | None:
        """Return why this party votes to stop the training, or None."""
        return self.collapse if self.config.stop_on_collapse else None
