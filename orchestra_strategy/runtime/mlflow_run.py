"""Rounds in MLflow, where ``MLFLOW_TRACKING_URI`` says that there is one (extra ``mlflow``)."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["MlflowRun", "mlflow_run"]

_log = logging.getLogger(__name__)
# MLflow's own defaults would let a training wait for minutes for a server that is gone.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowRun:
    """A training's run in MLflow: every number of a round, under its name in the ledger.

    Args:
        client: MLflow's client.
        run_id: The run.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self.run_id = client, run_id

    def add(self, row: Mapping[str, Any]) -> None:
        """Log a round; where that fails the training goes on, and a warning says so."""
        from mlflow.exceptions import MlflowException

        try:
            for name, value in row.items():
                if isinstance(value, int | float) and name != "round":
                    self._client.log_metric(self.run_id, name, value, step=row["round"])
        except MlflowException as error:
            _log.warning("Round %s is not in MLflow: %s", row["round"], error)

    def close(self) -> None:
        """End the run."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.set_terminated(self.run_id)
        except MlflowException as error:
            _log.warning("The run is not ended in MLflow: %s", error)


def mlflow_run(folder: Path) -> MlflowRun | None:
    """Begin a run in the experiment ``MLFLOW_EXPERIMENT_NAME``, or ``orchestra``.

    A training that is resumed goes on in the run that ``folder`` has the number of.

    Returns:
        None where ``MLFLOW_TRACKING_URI`` is not set; also, with a warning, where it is and MLflow
        is not installed or does not answer.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        _log.warning(
            "`MLFLOW_TRACKING_URI` is set, and MLflow is not installed: rounds are in %s alone; "
            "install the extra `mlflow`, or unset it.",
            folder,
        )
        return None
    try:
        return _begun(MlflowClient(), folder / "mlflow_run")
    except MlflowException as error:
        _log.warning("MLflow does not take this training, it is in %s alone: %s", folder, error)
        return None


def _begun(client: Any, known: Path) -> MlflowRun:
    if known.is_file():
        run_id = known.read_text(encoding="utf-8").strip()
        client.update_run(run_id, status="RUNNING")
        return MlflowRun(client, run_id)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "orchestra")
    found = client.get_experiment_by_name(name)
    experiment = found.experiment_id if found else client.create_experiment(name)
    run = MlflowRun(client, client.create_run(experiment).info.run_id)
    known.write_text(run.run_id + "\n", encoding="utf-8")
    return run
