"""One call of ``train`` or ``resume``: progress, checkpoints, and what comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from orchestra_strategy.checkpoints.driver import Checkpoints
from orchestra_strategy.runtime.cluster_session import plain_errors
from orchestra_strategy.runtime.coming_back import PartiesBack
from orchestra_strategy.runtime.common_settings import agree_on_manifest
from orchestra_strategy.runtime.dead_workers import dead_workers_named
from orchestra_strategy.runtime.fl_model import OrchestraFLModel
from orchestra_strategy.runtime.manifest_table import manifest_table
from orchestra_strategy.runtime.privacy_budget import spent
from orchestra_strategy.runtime.progress import RoundProgress
from orchestra_strategy.runtime.round_log import RoundLog
from orchestra_strategy.runtime.traffic import traffic_of

__all__ = ["TrainingResults", "train_rounds"]


@dataclass(frozen=True)
class TrainingResults:
    """What ``train`` returns.

    Attributes:
        history: Losses and health by name, a value per round, averaged over the parties' samples.
        metrics: Those of the last round.
        ledger: What each round cost: seconds, samples per second, bytes.
        manifest: All that left a party, one dictionary per entry.
        rounds: Rounds done.
        seconds: Wall-clock seconds of the training.
        stop_reason: Why it ended before its last round; None if it did not.
        epsilon: The largest of the parties' privacy losses, at ``delta``; None without privacy.
        delta: See ``epsilon``.
        epsilon_assumes: With shared noise, the condition under which epsilon holds; else None.
        checkpoint: The folder of the checkpoints, the newest of which is of the last round done;
            None without ``checkpoint_dir``.
        traffic: Bytes of all exchanges, see :func:`~orchestra_strategy.runtime.traffic.traffic_of`.
    """

    history: dict[str, list[float]]
    metrics: dict[str, float]
    ledger: list[dict[str, Any]]
    manifest: list[dict[str, Any]]
    rounds: int
    seconds: float
    stop_reason: str | None = None
    epsilon: float | None = None
    delta: float | None = None
    epsilon_assumes: str | None = None
    checkpoint: str | None = None
    traffic: dict[str, int | None] = field(default_factory=dict)


def train_rounds(
    fl_model: OrchestraFLModel,
    federated_data: Any,
    labels: Any,
    rounds: int,
    callbacks: Sequence[Any],
    console: Console | None,
    checkpoints: Checkpoints | None = None,
    past: Sequence[dict[str, Any]] = (),
    absent: Sequence[str] = (),
    log_dir: str | None = None,
) -> TrainingResults:
    """Train what is left of ``rounds``, and write a checkpoint of the last one.

    Args:
        fl_model: Where the training stands, after the rounds of ``past``.
        federated_data: A FedNdarray.
        labels: The same, or None.
        rounds: In all, those of ``past`` included.
        callbacks: FLModel's.
        console: Where manifest and progress are drawn; None draws nothing.
        checkpoints: Writes checkpoints; None writes none.
        past: The ledger of the rounds done before.
        absent: Parties of the job that it goes on without.
        log_dir: Where rounds are written down while it runs; None writes nothing.

    Raises:
        OrchestraError: Training cannot go on; with checkpoints, the message says how to resume.
        PartiesBack: See :class:`~orchestra_strategy.runtime.coming_back.ComingBack`.
    """
    manifest = fl_model.manifest()
    agree_on_manifest(manifest)
    if console is not None:
        console.print(manifest_table(manifest))
    exchange = fl_model.exchange(manifest)
    progress = RoundProgress(rounds, exchange, console, past, absent)
    own: list[Any] = [progress]
    round_log = None if log_dir is None else RoundLog(log_dir, progress.ledger)
    own += [] if round_log is None else [round_log]
    if checkpoints is not None:
        checkpoints.follow(progress.ledger)
        own.append(checkpoints)
    try:
        if rounds > len(past):
            left = rounds - len(past)
            with plain_errors(), dead_workers_named(fl_model.workers):
                fl_model.fit(federated_data, labels, epochs=left, callbacks=[*own, *callbacks])
        if fl_model.collapse_reason is not None:
            for callback in own[: 1 + (round_log is not None)]:
                callback.on_epoch_end()  # the host leaves before it tells of the last round
        if checkpoints is not None:
            checkpoints.finish(fl_model.workers)
    except PartiesBack:
        raise
    except BaseException as error:
        if checkpoints is not None:
            checkpoints.tell_how_to_resume(error)
        raise
    finally:
        progress.close()
        if round_log is not None:
            round_log.close()
    folder = None if checkpoints is None else checkpoints.folder
    traffic = traffic_of(exchange, progress.ledger)
    return _results(fl_model, progress.ledger, manifest, folder, traffic)


def _results(
    fl_model: OrchestraFLModel,
    ledger: list[dict[str, Any]],
    manifest: list[dict[str, Any]],
    checkpoint: str | None,
    traffic: dict[str, int | None],
) -> TrainingResults:
    stop_reason = fl_model.stop_reason
    if stop_reason is not None and checkpoint is not None:
        stop_reason += f" The state is in `{checkpoint}`: `resume(...)` goes on from it."
    names = [k for k in ledger[-1] if k.startswith(("train_", "health_", "privacy_"))]
    return TrainingResults(
        history={k: [row[k] for row in ledger] for k in names},
        metrics={k: ledger[-1][k] for k in names},
        ledger=ledger,
        manifest=manifest,
        rounds=sum(row["rounds"] for row in ledger),
        seconds=sum(row["seconds"] for row in ledger),
        stop_reason=stop_reason,
        checkpoint=checkpoint,
        traffic=traffic,
        **spent(fl_model.workers),
    )
