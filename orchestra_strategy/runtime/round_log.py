"""A training's rounds while it runs: JSON lines, TensorBoard, MLflow, and a log that is rotated."""

import json
import logging
from collections.abc import Mapping, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.runtime.mlflow_run import mlflow_run

__all__ = ["RoundLog"]

_OURS = "orchestra_strategy"
_LONGEST = 10_000_000  # bytes of one log file
_FILES = 5


class RoundLog(host.Callback):  # type: ignore[misc]
    """FLModel callback: writes the ledger's newest row after each round.

    Below ``folder`` are ``rounds.jsonl``, a row per line; TensorBoard's event file with every
    number of a row, where TensorBoard is installed; and ``training.log`` with the warnings and
    errors of this package, at most five files of 10 MB. For MLflow see :mod:`.mlflow_run`.

    Args:
        folder: Made where it is missing.
        ledger: The rows so far, to which more are appended before this callback is called.

    Raises:
        OSError: The folder cannot be written in.
    """

    def __init__(self, folder: str | Path, ledger: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.folder, self.ledger = Path(folder), ledger
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows = self.folder / "rounds.jsonl"
        self._keep_rows_before(len(ledger))
        self._events = _events(self.folder)
        self._mlflow = mlflow_run(self.folder)
        self._log = RotatingFileHandler(
            self.folder / "training.log", maxBytes=_LONGEST, backupCount=_FILES - 1, delay=True
        )
        self._log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger(_OURS).addHandler(self._log)

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Write the newest row."""
        row = self.ledger[-1]
        with self._rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._events is not None:
            for name, value in row.items():
                if isinstance(value, int | float) and name != "round":
                    self._events.add_scalar(name.replace("_", "/", 1), value, row["round"])
            self._events.flush()
        if self._mlflow is not None:
            self._mlflow.add(row)

    def close(self) -> None:
        """Close the files."""
        logging.getLogger(_OURS).removeHandler(self._log)
        self._log.close()
        if self._events is not None:
            self._events.close()
        if self._mlflow is not None:
            self._mlflow.close()

    def _keep_rows_before(self, count: int) -> None:
        """Drop rows of rounds that a resumed training does again."""
        if not self._rows.exists():
            return
        lines = self._rows.read_text(encoding="utf-8").splitlines()[:count]
        self._rows.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _events(folder: Path) -> Any:
    """Return TensorBoard's writer; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))  # type: ignore[no-untyped-call]
