"""Answers of a worker to FLModel and to our driver, by what it holds.

Methods that FLModel calls have its names and signatures. Its defaults are replaced because they
scale batches by party, move BatchNorm's statistics in predict, and keep the model alone.
"""

from typing import Any

import numpy as np

from orchestra_strategy.checkpoints.party import PartyCheckpoints
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.exchange.payload import FloatArray
from orchestra_strategy.host_metrics import PartyMean
from orchestra_strategy.party.inspection import Inspection
from orchestra_strategy.party.model_files import ModelFiles
from orchestra_strategy.party.reports import Reports

__all__ = ["Answers"]


class Answers:
    """The part of :class:`~orchestra_strategy.party.worker.PartyWorker` that answers."""

    config: Any
    privacy: Any
    inspection: Inspection
    reports: Reports
    checkpoints: PartyCheckpoints
    model_files: ModelFiles

    def num_samples(self) -> int:
        """Return the party's number of samples; 0 before it has data."""
        raise NotImplementedError

    # ---- What FLModel asks -----------------------------------------------------------------

    def predict(self, predict_steps: int = 0) -> np.ndarray:  # type: ignore[type-arg]
        """Return what :class:`Inspection` makes of the samples given to FLModel's ``predict``."""
        return self.inspection.predict()

    def evaluate(self, evaluate_steps: int = 0) -> list[Any]:
        """Return the encoder's health on the samples given to FLModel's ``evaluate``."""
        return self.inspection.evaluate()

    def set_validation_metrics(self, global_metrics: Any) -> None:
        """Log the last evaluation's numbers as ``val_...``: it was that of ``validation_data``."""
        self.reports.tell_validation(*self.inspection.evaluated)

    def save_model(self, model_path: str) -> None:
        """Write the model and all that the party keeps, see :class:`ModelFiles`."""
        self.model_files.save(model_path)

    def load_model(self, model_path: str, **kwargs: Any) -> int:
        """Read a model and what its party kept, see :class:`ModelFiles`; return its rounds."""
        if kwargs:
            raise ParameterError(
                f"Expected no further arguments of `load_model`, got {sorted(kwargs)}: they are "
                "for TensorFlow."
            )
        return self.model_files.load(model_path)

    def get_stop_training(self) -> bool:
        """Whether this party votes to stop: its encoder has collapsed."""
        return self.collapse_found() is not None

    def wrap_local_metrics(self, stage: str = "train") -> list[Any]:
        """Return the last round's losses, weighted by the party's number of samples.

        Those of ``validation_data`` behind them, weighted by theirs.
        """
        groups = ((self.reports.told, self.num_samples()), self.reports.validated)
        return [
            PartyMean(name, value * n, n)
            for numbers, n in groups
            for name, value in sorted(numbers.items())
        ]

    def get_local_metrics(self) -> list[Any]:
        """Return the last round's losses for the host's history."""
        return self.wrap_local_metrics()

    def get_logs(self) -> dict[str, float]:
        """Return the last round's losses by name."""
        return {**self.reports.told, **self.reports.validated[0]}

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

    def privacy_spent(self) -> dict[str, Any]:
        """Return epsilon at delta of all that this party has released; empty without privacy."""
        spent: dict[str, Any] = self.privacy.spent()
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
