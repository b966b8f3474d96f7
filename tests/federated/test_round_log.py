"""What a training writes down while it runs."""

import json
import logging
from importlib.util import find_spec

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from orchestra_strategy import host
from orchestra_strategy.runtime import round_log
from orchestra_strategy.runtime.round_log import RoundLog
from tests.federated import toy
from tests.federated.checkpoint_runs import trainer

OURS = logging.getLogger("orchestra_strategy")


def rows(folder):
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def test_a_row_per_round_as_the_ledger_and_tensorboard_has_its_numbers(devices, tmp_path):
    handlers = list(OURS.handlers)
    results = trainer(devices, 2, None, log_dir=str(tmp_path)).train(toy.data(devices))
    assert rows(tmp_path) == results.ledger
    events = EventAccumulator(str(tmp_path)).Reload()
    losses = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert losses == [
        (i + 1, pytest.approx(v)) for i, v in enumerate(results.history["train_loss"])
    ]
    assert list(OURS.handlers) == handlers


def test_a_row_is_there_when_its_round_is_done(devices, tmp_path):
    seen = []

    class Look(host.Callback):
        def on_epoch_end(self, epoch=None, logs=None):
            seen.append(len(rows(tmp_path)))

    trainer(devices, 2, None, log_dir=str(tmp_path)).train(toy.data(devices), [Look()])
    assert seen == [1, 2]


def test_rounds_that_are_done_again_stand_there_once(devices, tmp_path):
    class Cut(host.Callback):
        def on_epoch_end(self, epoch=None, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    options = {"log_dir": str(tmp_path / "log"), "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        trainer(devices, 4, tmp_path, **options).train(toy.data(devices), [Cut()])
    assert len(rows(tmp_path / "log")) == 3
    results = trainer(devices, 4, tmp_path, **options).resume(toy.data(devices))
    assert rows(tmp_path / "log") == results.ledger
    assert "Training ended by KeyboardInterrupt" in (tmp_path / "log" / "training.log").read_text()


def test_the_log_stays_within_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(round_log, "_LONGEST", 1000)
    log = RoundLog(tmp_path, [])
    for number in range(500):
        OURS.warning("warning %d", number)
    log.close()
    files = sorted(tmp_path.glob("training.log*"))
    assert len(files) == 5
    assert all(path.stat().st_size <= 1000 for path in files)
    assert "warning 499" in (tmp_path / "training.log").read_text()


def test_without_tensorboard_the_lines_are_there(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    ledger = [{"round": 1, "seconds": 0.5}]
    log = RoundLog(tmp_path, ledger)
    log.on_epoch_end()
    log.close()
    assert rows(tmp_path) == ledger
    assert not list(tmp_path.glob("events*"))


def test_rounds_are_in_mlflow_and_a_resumed_training_goes_on_there(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    ledger = []
    for loss in (2.0, 1.5):  # the second one is the resumed training
        log = RoundLog(tmp_path, ledger)
        ledger.append({"round": len(ledger) + 1, "train_loss": loss, "left_out": []})
        log.on_epoch_end()
        log.close()
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("orchestra").experiment_id
    (run,) = client.search_runs([experiment])
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(1, 2.0), (2, 1.5)]
    assert run.info.status == "FINISHED"


@pytest.mark.skipif(find_spec("mlflow") is not None, reason="the extra `mlflow` is installed")
def test_mlflow_that_is_asked_for_and_missing_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    log = RoundLog(tmp_path, [{"round": 1}])
    log.on_epoch_end()
    log.close()
    assert "install the extra `mlflow`" in caplog.text
    assert rows(tmp_path) == [{"round": 1}]


def test_mlflow_that_does_not_answer_stops_nothing(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    log = RoundLog(tmp_path, [{"round": 1}])
    log.on_epoch_end()
    log.close()
    assert "MLflow does not take this training" in caplog.text
    assert rows(tmp_path) == [{"round": 1}]
