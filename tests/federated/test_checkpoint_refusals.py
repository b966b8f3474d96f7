"""What a training refuses to write or to resume, each with its message."""

import json
import os
import shutil
from pathlib import Path

import pytest

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import session
from orchestra_strategy.checkpoints.file import read_checkpoint, write_checkpoint
from orchestra_strategy.checkpoints.party import party_folder
from orchestra_strategy.checkpoints.state import PartyState
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import CheckpointError, DataError
from tests.federated import toy
from tests.federated.checkpoint_runs import (
    GROUP,
    PRIVATE,
    bobs,
    kept,
    made,
    numbers,
    trainer,
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"`.*party-bob/privacy.json` to say what this party has released, got .*No such"),
        (b"{", "to say what this party has released"),
        (b"[]", "to be a ledger, got another content"),
        (b'{"schema": 2, "ledger": {}, "draws": 0}', "a schema of at most 1, got 2: a newer ver"),
    ],
)
def test_without_its_ledger_a_party_does_not_go_on(devices, private, content, message):
    path = party_folder(str(private), "bob") / "privacy.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"party `bob` to have its state.*{message}"):
        trainer(devices, 4, private, **PRIVATE).resume(toy.data(devices))


def test_a_folder_of_another_training_is_refused(devices, folder):
    with pytest.raises(
        CheckpointError, match=r"party `alice` to be ready .* another training .*party `bob`"
    ):
        trainer(devices, 1, folder).train(toy.data(devices))


def test_a_ledger_of_a_training_with_privacy_is_not_passed_over(devices, tmp_path):
    path = party_folder(str(tmp_path), "bob") / "privacy.json"
    path.parent.mkdir()
    path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"party `bob` to be ready .* another training"):
        trainer(devices, 1, tmp_path).train(toy.data(devices))
    with pytest.raises(CheckpointError, match=r"party `bob` to be ready .* to be a ledger, got"):
        trainer(devices, 1, tmp_path, **PRIVATE).train(toy.data(devices))


def test_a_party_that_cannot_write_is_named(devices, tmp_path):
    (tmp_path / "party-bob").write_text("in the way")
    with pytest.raises(
        CheckpointError, match=r"party `bob` to be ready for checkpoints, got: .*another"
    ):
        trainer(devices, 1, tmp_path).train(toy.data(devices))


def test_a_disk_that_fills_up_ends_the_training_with_the_last_checkpoint(
    devices, tmp_path, monkeypatch
):
    real = os.replace

    def full(source, target):
        if Path(target).parent.name == "party-bob" and "000002" in str(target):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    message = r"party `bob` to write its checkpoint, got: .*No space left.*round 1 is in `.*`: `Fed"
    with pytest.raises(CheckpointError, match=message):
        trainer(devices, 3, tmp_path).train(toy.data(devices))


def test_nothing_to_resume(devices, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"of this training in `.*nowhere`, got none at any .* call `train"
    ):
        trainer(devices, 3, tmp_path / "nowhere").resume(toy.data(devices))


def test_a_round_that_is_not_kept(devices, folder):
    with pytest.raises(
        CheckpointError, match=r"a round that all parties have, got 1; alice has \[2, 3\], bob"
    ):
        trainer(devices, 4, folder).resume(toy.data(devices), round_index=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "orchestra_advanced"}, "`strategy` .*'orchestra', got 'orchestra_advanced'"),
        ({"seed": 8}, "`seed` to be that of the checkpoint, 7, got 8"),
        ({"parameters": {"lr": 0.5}}, "`parameters.lr` .* 0.01, got 0.5: a resumed training is"),
        ({"model": {**GROUP}}, "`model.norm` .* 'batch', got 'group'"),
        ({"secure": True}, "`aggregator` .* None, got 'SecureAggregator'"),
    ],
)
def test_other_settings_are_refused_by_the_first_that_differs(devices, folder, change, message):
    with pytest.raises(CheckpointError, match=f"Expected {message}"):
        trainer(devices, 4, folder, **change).resume(toy.data(devices))


def test_other_parties_are_refused(folder):
    with session(("alice", "carol"), mode="debug") as devices:
        data = fed_ndarray({d: toy.images("alice") for d in devices})
        with pytest.raises(CheckpointError, match=r"`parties` .*'bob'\], got \['alice', 'carol'\]"):
            trainer(devices, 4, folder).resume(data)


def test_other_data_are_refused(devices, folder):
    other = fed_ndarray(
        {
            d: toy.images(d.party)[::-1].copy() if d.party == "bob" else toy.images(d.party)
            for d in devices
        }
    )
    with pytest.raises(DataError, match=r"the data of party `bob` to be those of the checkpoint"):
        trainer(devices, 4, folder).resume(other)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 255
    path.write_bytes(content)


def test_a_damaged_party_is_named_with_its_file_and_the_older_round_is_offered(
    devices, folder, plain_run
):
    damage(bobs(folder, 3))
    message = (
        rf"party `bob` to have its state of round 3, got: Expected `{bobs(folder, 3)}` to be a "
        r"whole .*SHA-256.* Round 2 is kept, too: `resume\(..., round_index=2\)`"
    )
    with pytest.raises(CheckpointError, match=message):
        trainer(devices, 3, folder).resume(toy.data(devices))
    run = trainer(devices, 3, folder)
    assert numbers(run.resume(toy.data(devices), round_index=2)) == numbers(plain_run[1])


def test_a_missing_party_is_named_with_both_rounds(devices, folder):
    bobs(folder, 3).unlink()
    message = r"party `bob` to have its state of round 3, got: no file of it.* has the rounds \[2\]"
    with pytest.raises(CheckpointError, match=message):
        trainer(devices, 4, folder).resume(toy.data(devices))
    shutil.rmtree(folder / "party-bob")
    with pytest.raises(CheckpointError, match=r"the rounds \[\]\. No other round is kept; start"):
        trainer(devices, 4, folder).resume(toy.data(devices))


def test_a_party_at_another_round_is_named_with_both(devices, folder):
    shutil.copy(bobs(folder, 2), bobs(folder, 3))
    message = (
        r"party `bob` to have its state of round 3, got: .* of party `bob`, round 3, .*`bob`, 2\."
    )
    with pytest.raises(CheckpointError, match=message):
        trainer(devices, 4, folder).resume(toy.data(devices))


def test_a_party_of_another_training_is_refused(devices, folder, tmp_path):
    made(tmp_path / "other", parameters={"lr": 0.5})
    shutil.copy(bobs(tmp_path / "other", 3), bobs(folder, 3))
    with pytest.raises(
        CheckpointError, match=r"round 3 with the same weights, got .* bob .*another training"
    ):
        trainer(devices, 4, folder).resume(toy.data(devices))


def test_a_party_that_comes_back_with_other_weights_is_refused(devices, folder):
    label, state = read_checkpoint(bobs(folder, 3))
    state["party"]["model"]["backbone.body.0.weight"] += 1
    write_checkpoint(bobs(folder, 3), label, state)
    with pytest.raises(CheckpointError, match=r"the same weights, got round 3, .* at party `bob`"):
        trainer(devices, 4, folder).resume(toy.data(devices))


def test_a_file_that_is_cut_off_is_named_and_the_older_round_offered(devices, folder):
    bobs(folder, 3).write_bytes(bobs(folder, 3).read_bytes()[:-10])
    message = rf"`{bobs(folder, 3)}` to be a whole .* ends after .*`resume\(..., round_index=2"
    with pytest.raises(CheckpointError, match=message):
        trainer(devices, 4, folder).resume(toy.data(devices))
    bobs(folder, 2).unlink()
    with pytest.raises(CheckpointError, match=r"No other round is kept; start anew"):
        trainer(devices, 4, folder).resume(toy.data(devices))


def test_a_file_with_other_content_is_refused(devices, folder):
    label, state = read_checkpoint(bobs(folder, 3))
    write_checkpoint(bobs(folder, 3), label, {"party": state["party"]})
    with pytest.raises(CheckpointError, match=r"to have `common` and `party`, got \['party'\]"):
        trainer(devices, 4, folder).resume(toy.data(devices))


def test_what_was_prepared_and_never_committed_is_no_training_of_another(devices, tmp_path):
    made(tmp_path / "run", rounds=1)
    for party in toy.PARTIES:
        path = party_folder(str(tmp_path / "run"), party) / "round-000001.ckpt"
        path.rename(path.with_suffix(".prepared"))
    run = trainer(devices, 2, tmp_path / "run", checkpoint_every=2)
    assert run.train(toy.data(devices)).rounds == 2
    assert kept(tmp_path / "run") == {"party-alice": [2], "party-bob": [2]}
    assert not list(tmp_path.glob("run/*/*.prepared"))


def test_a_newer_schema_is_refused_by_file(devices, folder):
    path = bobs(folder, 3)
    magic, line, body = path.read_bytes().split(b"\n", 2)
    line = json.dumps({**json.loads(line), "schema": 2}).encode()
    path.write_bytes(b"\n".join([magic, line, body]))
    with pytest.raises(CheckpointError, match=rf"`{path}` to have a schema of at most 1, got 2"):
        trainer(devices, 4, folder).resume(toy.data(devices))


def test_parties_that_have_drifted_apart_are_not_saved(devices, tmp_path):
    run = trainer(devices, 1, tmp_path)
    run.train(toy.data(devices))
    (bob,) = [w for d, w in run.fl_model.workers.items() if d.party == "bob"]
    bob.apply(lambda w: setattr(w, "rounds_done", 7))
    with pytest.raises(CheckpointError, match=r"at one round .* got round 7, .* `bob` and round 1"):
        run.save()


def test_a_state_of_other_fields_is_refused():
    with pytest.raises(CheckpointError, match=r"the state of a party to have .*, got \['model'\]"):
        PartyState.from_dict({"model": {}})


@pytest.mark.parametrize(
    ("name", "value"), [("checkpoint_every", 0), ("keep_checkpoints", 0), ("checkpoint_dir", 3)]
)
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be .*, got {value}"):
        FederatedOrchestraTrainer({name: value}, [])
