"""Whole jobs: ``orchestra-fl train`` in a process per party."""

import json

import numpy as np
import pytest

from orchestra_strategy.cli import main
from orchestra_strategy.cluster import make_certificates
from orchestra_strategy.privacy import Release, epsilon_of

pytestmark = pytest.mark.cluster
KEYS = {"ca": "keys/ca.pem", "cert": "keys/{party}.pem", "key": "keys/{party}.key"}


def history(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))["history"]


def assert_bytes_are_told(folder, is_centre):
    """The ledger's bytes are those on the wire to 1 %, with round 0 and checkpoints' reports."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    told = results["traffic"]
    others = 2 if is_centre else 1
    up, down = told["up_per_party"], told["down_per_party"]
    sent, received = (down, up) if is_centre else (up, down)
    assert told["sent"] == pytest.approx(others * sent, rel=0.01)
    assert told["received"] == pytest.approx(others * received, rel=0.01)
    who = {row["seen_by"] for row in results["manifest"] if row["to"] == "driver"}
    assert who == {"alice, bob, carol: each party's, as every party's process is a driver"}
    rows = results["ledger"]
    assert up == rows[0]["bytes_up_per_party"] * (len(rows) + 1)


@pytest.mark.parametrize("combiner", [{"server": "bob"}, {"aggregator": "secure"}], ids=str)
def test_three_parties_with_tls_do_what_one_process_does(job, tmp_path, monkeypatch, combiner):
    wide = {"backbone": "conv4", "in_channels": 1, "hidden_dim": 256}
    made = job(3, tls=KEYS, model=wide, checkpoint_dir="kept-{party}", **combiner)
    make_certificates(tmp_path / "keys", made.names)
    made.start()
    assert made.end(seconds=90) == dict.fromkeys(made.names, 0), made.log("alice")
    each = [history(tmp_path / f"out-{name}") for name in made.names]
    assert each[0] == each[1] == each[2]
    for name in made.names:
        assert_bytes_are_told(tmp_path / f"out-{name}", combiner.get("server", "alice") == name)
    monkeypatch.chdir(tmp_path)
    made.write("alone.yaml", out_dir="alone", checkpoint_dir="kept-alone", tls=None)
    assert main(["train", "alone.yaml", "--simulate"]) == 0
    alone = history(tmp_path / "alone")
    assert alone.keys() == each[0].keys()
    for name, values in alone.items():
        np.testing.assert_allclose(each[0][name], values, rtol=1e-4, err_msg=name)


def test_a_late_party_is_waited_for(job):
    made = job().start("alice")
    made.processes["alice"].join(2.0)
    made.start("bob")
    assert made.end(seconds=60) == {"alice": 0, "bob": 0}, made.log("alice")


def test_a_party_has_a_part_of_its_own(job, tmp_path):
    made = job(data=None)
    (tmp_path / "elsewhere").mkdir()
    for name in made.names:
        (tmp_path / f"{name}.npy").rename(tmp_path / "elsewhere" / f"{name}.npy")
        local = tmp_path / f"{name}.yaml"
        local.write_text("data: elsewhere/{party}.npy\nout_dir: mine\n", encoding="utf-8")
        made.start(name, more=["--local", f"{name}.yaml"])
    assert made.end(seconds=60) == {"alice": 0, "bob": 0}, made.log("alice")
    assert (tmp_path / "mine" / "results.json").exists()


@pytest.mark.slow
def test_three_parties_share_the_noise_and_their_budget_outlives_them(job, tmp_path):
    shared = {"privacy": "user", "noise": "shared", "noise_multiplier": 2.0, "clip_quantile": 0.5}
    made = job(
        3,
        strategy="fed_rotpred",
        rounds=1,
        aggregator="secure",
        checkpoint_dir="kept-{party}",
        model={"backbone": "conv4", "in_channels": 1, "hidden_dim": 16, "norm": "group+batch"},
        parameters={"local_epochs": 1, "batch_size": 8, **shared, "max_epsilon": 3.5},
        cluster={"start_timeout": 60, "heartbeat": 0.5, "peer_timeout": 20},
    )
    made.start()
    assert made.end(seconds=90) == dict.fromkeys(made.names, 0), made.log("alice")
    made.write(rounds=9)
    made.start(more=["--resume"])
    assert made.end(seconds=90) == dict.fromkeys(made.names, 0), made.log("alice")
    each = [
        json.loads((tmp_path / f"out-{name}" / "results.json").read_text(encoding="utf-8"))
        for name in made.names
    ]
    for results in each:
        assert results["history"] == each[0]["history"]
        assert results["rounds"] == 2
        assert results["epsilon"] == pytest.approx(epsilon_of({Release(2.0): 2}, 1e-5), rel=1e-6)
        assert results["epsilon_assumes"].startswith("at most 1 of 3 parties pool")
        clips = results["history"]["privacy_clip"]
        assert clips[0] == 1.0 != clips[1]
    spent = json.loads((tmp_path / "kept-bob" / "party-bob" / "privacy.json").read_bytes())
    assert sum(count for *_, count in spent["ledger"]["spent"]) == 4  # an update and a count each
