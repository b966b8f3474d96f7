"""Checkpoints of a training: what is written where, and what a crash or a spent budget leaves."""

import gc
import json
import logging

import pytest
import torch

from orchestra_strategy import host
from orchestra_strategy.checkpoints.file import read_checkpoint
from orchestra_strategy.checkpoints.party import PartyCheckpoints, party_folder
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import CheckpointError, DataError, PrivacyError
from tests.federated import toy
from tests.federated.checkpoint_runs import (
    PRIVATE,
    USER,
    assert_same,
    bobs,
    epsilon,
    flat,
    kept,
    numbers,
    states,
    trainer,
)

# ---- What is written -----------------------------------------------------------------------


def both(*rounds):
    return {"party-alice": list(rounds), "party-bob": list(rounds)}


def test_results_name_the_folder_and_the_older_ones_are_gone(plain_run):
    folder, results = plain_run
    assert results.checkpoint == str(folder)
    assert kept(folder) == both(2, 3)
    assert sorted(p.name for p in (folder / "party-bob").iterdir()) == [
        *("lock", "round-000002.ckpt", "round-000003.ckpt")
    ]


def test_a_partys_file_has_its_state_and_what_the_driver_knows(plain_run):
    folder, results = plain_run
    label, state = read_checkpoint(bobs(folder, 3))
    assert (label.owner, label.round_index) == ("bob", 3)
    assert sorted(state) == ["common", "party"]
    assert sorted(state["common"]) == ["ledger", "settings"]
    assert state["common"]["ledger"] == results.ledger
    assert sorted(state["party"]["objective"]) == ["centroids", "memory", "moves", "target"]


def test_without_a_folder_nothing_is_written(devices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = trainer(devices, 1, None)
    assert run.train(toy.data(devices)).checkpoint is None
    assert list(tmp_path.iterdir()) == []
    for call in (run.save, lambda: run.resume(toy.data(devices))):
        with pytest.raises(CheckpointError, match=r"`checkpoint_dir`.*None"):
            call()


def test_every_and_save(devices, tmp_path):
    run = trainer(devices, 5, tmp_path, checkpoint_every=2, keep_checkpoints=9)
    with pytest.raises(CheckpointError, match=r"to save, got .* no rounds of it; call `train"):
        run.save()
    run.train(toy.data(devices))
    assert kept(tmp_path) == both(2, 4, 5)
    assert run.save() == 5
    assert kept(tmp_path) == both(2, 4, 5)


def test_a_further_training_of_the_same_trainer_goes_on_writing(devices, tmp_path):
    run = trainer(devices, 2, tmp_path)
    run.train(toy.data(devices))
    results = run.train(toy.data(devices))
    assert kept(tmp_path) == both(3, 4)
    assert [row["round"] for row in results.ledger] == [3, 4]


def test_the_manifest_says_what_checkpoints_tell_the_driver(devices):
    model = toy.build(devices)
    (row,) = [row for row in model.manifest() if row["name"] == "checkpoint"]
    assert row["to"] == "driver"
    assert "digest of the averaged weights" in row["meaning"]


# ---- Resuming ------------------------------------------------------------------------------


def test_a_finished_training_gives_its_stored_result_and_trains_nothing(devices, folder, plain_run):
    run = trainer(devices, 3, folder)
    before = bobs(folder, 3).stat().st_mtime_ns
    results = run.resume(toy.data(devices))
    assert numbers(results) == numbers(plain_run[1])
    assert results.ledger == plain_run[1].ledger
    assert bobs(folder, 3).stat().st_mtime_ns == before
    assert run.embed(toy.images("alice")).shape == (41, 512)


def test_an_older_round_can_be_chosen(devices, folder, plain_run):
    run = trainer(devices, 3, folder)
    results = run.resume(toy.data(devices), round_index=2)
    assert numbers(results) == numbers(plain_run[1])


def test_rounds_after_the_chosen_one_are_abandoned_when_training_goes_on(devices, tmp_path):
    options = {"keep_checkpoints": 3}
    trainer(devices, 4, tmp_path, **options).train(toy.data(devices))
    others = fed_ndarray({d: toy.images(d.party)[:-1] for d in devices})
    with pytest.raises(DataError, match="to be those of the checkpoint"):
        trainer(devices, 4, tmp_path, **options).resume(others, round_index=2)
    assert kept(tmp_path) == both(2, 3, 4)
    with pytest.raises(RuntimeError, match="state after round 3"):  # round 3 is done anew, 4 is not
        trainer(devices, 4, tmp_path, **options).resume(
            toy.data(devices), [Interrupt(1, RuntimeError("cut"))], round_index=2
        )
    assert kept(tmp_path) == both(2, 3)
    run = trainer(devices, 4, tmp_path, **options)
    assert run.resume(toy.data(devices)).rounds == 4
    assert kept(tmp_path) == both(2, 3, 4)


def test_what_only_says_when_to_end_may_change(devices, folder):
    parameters = {"stop_on_collapse": False, "predict_output": "features"}
    run = trainer(devices, 4, folder, parameters=parameters, checkpoint_every=3)
    assert run.resume(toy.data(devices)).rounds == 4


class Interrupt(host.Callback):
    """Ends the training in the middle of a round."""

    def __init__(self, epoch, error):
        super().__init__()
        self.epoch, self.error = epoch, error

    def on_train_batch_end(self, batch=None, logs=None):
        if self.epoch == 0:
            raise self.error
        self.epoch -= 1


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RuntimeError("a wire was cut"), KeyboardInterrupt("stop")]
)
def test_an_interrupted_round_costs_that_round_alone(devices, tmp_path, caplog, error):
    whole = trainer(devices, 3, None)
    expected = whole.train(toy.data(devices))
    run = trainer(devices, 3, tmp_path)
    told = (
        rf"after round 2 is in `{tmp_path}`: `FederatedOrchestraTrainer\(config, devices\).resume\("
    )
    with caplog.at_level(logging.ERROR), pytest.raises(type(error), match=told):
        run.train(toy.data(devices), callbacks=[Interrupt(2, error)])
    assert "`FederatedOrchestraTrainer(config, devices).resume(federated_data)`" in caplog.text
    # The same object goes on, or another one.
    resumed = run.resume(toy.data(devices))
    assert numbers(resumed) == numbers(expected)
    for party in toy.PARTIES:
        assert_same(states(run)[party], states(whole)[party])


def test_before_the_first_checkpoint_the_error_says_so(devices, tmp_path):
    run = trainer(devices, 3, tmp_path, checkpoint_every=2)
    with pytest.raises(RuntimeError, match=r"cut No checkpoint has been written so far"):
        run.train(toy.data(devices), callbacks=[Interrupt(0, RuntimeError("cut"))])


@pytest.mark.parametrize("point", range(6))
def test_a_crash_before_any_step_of_writing_loses_nothing(
    devices, tmp_path, monkeypatch, plain_run, point
):
    """Of the second checkpoint, where one is kept: both prepare, commit, and remove the first."""
    real, left = PartyCheckpoints.do, [6 + point]

    def crash(self, step, *arguments):
        if step in ("prepare", "commit", "prune"):
            if left[0] == 0:
                raise KeyboardInterrupt("power cut")
            left[0] -= 1
        return real(self, step, *arguments)

    monkeypatch.setattr(PartyCheckpoints, "do", crash)
    with pytest.raises(KeyboardInterrupt, match=r"power cut The state after round"):
        trainer(devices, 3, tmp_path, keep_checkpoints=1).train(toy.data(devices))
    monkeypatch.setattr(PartyCheckpoints, "do", real)
    run = trainer(devices, 3, tmp_path, keep_checkpoints=1)
    assert numbers(run.resume(toy.data(devices))) == numbers(plain_run[1])
    assert kept(tmp_path) == both(3)
    for party in toy.PARTIES:
        (_, ours), (_, theirs) = (
            read_checkpoint(party_folder(str(folder), party) / "round-000003.ckpt")
            for folder in (tmp_path, plain_run[0])
        )
        assert_same(flat(ours["party"]), flat(theirs["party"]))


# ---- Privacy -------------------------------------------------------------------------------


def test_a_spent_budget_stops_with_a_checkpoint_and_goes_on_with_a_higher_one(devices, tmp_path):
    def run(rounds, folder, limit):
        parameters = {**USER, "max_epsilon": limit}
        return trainer(devices, rounds, folder, **{**PRIVATE, "parameters": parameters})

    limit = epsilon(2) * 1.001
    stopped = run(4, tmp_path, limit)
    results = stopped.train(toy.data(devices))
    assert results.rounds == 2
    told = "the privacy budget does not allow another round at every party. Resume with a larger"
    assert told in results.stop_reason
    assert f"The state is in `{tmp_path}`: `resume(...)`" in results.stop_reason
    with pytest.raises(
        PrivacyError, match=r"got 0 left at party .* resume from a checkpoint .*round 2 is in"
    ):
        run(4, tmp_path, limit).resume(toy.data(devices))
    whole = run(4, None, 100.0)
    expected = whole.train(toy.data(devices))
    more = run(4, tmp_path, 100.0)
    assert numbers(more.resume(toy.data(devices))) == numbers(expected)
    assert more.results.epsilon == pytest.approx(epsilon(4))
    for party in toy.PARTIES:
        assert_same(states(more)[party], states(whole)[party])


def test_rounds_after_the_checkpoint_stay_paid_and_their_noise_is_not_repeated(devices, tmp_path):
    run = trainer(devices, 4, tmp_path, **PRIVATE)
    with pytest.raises(RuntimeError):  # the third round has left the parties by then
        run.train(toy.data(devices), callbacks=[Interrupt(2, RuntimeError("cut"))])
    source = trainer(devices, 4, tmp_path, **PRIVATE)
    results = source.resume(toy.data(devices))
    assert results.rounds == 4
    assert results.epsilon == pytest.approx(epsilon(5))
    assert results.history["privacy_epsilon"] == pytest.approx(
        [epsilon(1), epsilon(2), epsilon(4), epsilon(5)]
    )
    whole = trainer(devices, 4, None, **PRIVATE)
    whole.train(toy.data(devices))
    drawn = {
        name: host.reveal(
            next(iter(r.fl_model.workers.values())).apply(
                lambda w: w.privacy.mechanism.source.draws
            )
        )
        for name, r in (("resumed", source), ("whole", whole))
    }
    per_round = drawn["whole"] // 4
    assert drawn["resumed"] == 5 * per_round


def test_rounds_before_the_first_checkpoint_stay_paid_too(devices, tmp_path):
    options = {**PRIVATE, "checkpoint_every": 3}
    with pytest.raises(RuntimeError, match="cut No checkpoint has been written so far"):
        trainer(devices, 3, tmp_path, **options).train(
            toy.data(devices), callbacks=[Interrupt(1, RuntimeError("cut"))]
        )
    results = trainer(devices, 1, tmp_path, **options).train(toy.data(devices))
    assert results.epsilon == pytest.approx(epsilon(3))


def test_what_two_runs_have_spent_before_the_first_checkpoint_adds_up(devices, tmp_path):
    options = {**PRIVATE, "checkpoint_every": 3}
    with pytest.raises(RuntimeError):  # after two rounds
        trainer(devices, 3, tmp_path, **options).train(
            toy.data(devices), callbacks=[Interrupt(1, RuntimeError("cut"))]
        )
    run = trainer(devices, 1, tmp_path, **options)
    run.setup_model().fit(toy.data(devices), epochs=2)
    assert run.train(toy.data(devices)).epsilon == pytest.approx(epsilon(5))


def test_what_a_worker_has_spent_itself_counts_once(devices, tmp_path):
    run = trainer(devices, 1, tmp_path, **PRIVATE)
    workers = run.setup_model().workers.values()
    run.fl_model.fit(toy.data(devices), epochs=2)
    for _ in range(2):  # as where another party was not ready the first time
        reports = host.reveal([w.checkpoint("begin", str(tmp_path)) for w in workers])
        assert [report["problem"] for report in reports] == [None, None]
    assert run.train(toy.data(devices)).epsilon == pytest.approx(epsilon(3))


def test_the_ledger_is_on_the_disk_before_a_payload_leaves(devices, tmp_path):
    seen = []
    path = party_folder(str(tmp_path), "bob") / "privacy.json"

    class Look(host.Callback):
        def on_train_batch_end(self, batch=None, logs=None):
            seen.append(json.loads(path.read_text())["ledger"]["spent"])

    trainer(devices, 2, tmp_path, **PRIVATE, checkpoint_every=2).train(
        toy.data(devices), callbacks=[Look()]
    )
    assert [sum(n for *_, n in spent) for spent in seen] == [2, 4]  # update and moments, each


def test_what_was_written_does_not_stay_in_memory(devices, tmp_path):
    """torch's writer leaves its tensors in a cycle, which the collector may not see for long."""
    run = trainer(devices, 1, tmp_path)
    run.train(toy.data(devices))

    def storages():
        return sum(type(o) is torch.UntypedStorage for o in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        run.save()
        before = storages()
        for _ in range(3):
            run.save()
        assert storages() == before
    finally:
        gc.enable()
