"""Each fault ends at every party in a sentence that names it, within its limit."""

import time

import pytest

from orchestra_strategy.cluster import make_certificates

pytestmark = pytest.mark.cluster
ROUTES = [{"server": "alice"}, {"aggregator": "secure"}]
LONG = {"rounds": 500, "checkpoint_dir": "kept-{party}", "keep_checkpoints": 1}
LIMIT = 30  # seconds; peer_timeout is 6, start_timeout 20 or, where nobody comes, 4
KEYS = {"ca": "keys/ca.pem", "cert": "keys/{party}.pem", "key": "keys/{party}.key"}
SOON = {"start_timeout": 4, "heartbeat": 0.2, "peer_timeout": 6}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"parameters": {"lr": 0.5}}, "`lr`: alice 0.003, bob 0.5"),
        ({"parameters": {"local_epochs": 7}}, "`local_epochs`: alice 1, bob 7"),
        ({"seed": 9}, "`seed`: alice 0, bob 9"),
        ({"rounds": 7}, "`rounds`: alice 2, bob 7"),
        ({"strategy": "orchestra_advanced"}, "bob orchestra_advanced"),
        ({"model": {"hidden_dim": 32}}, "`model.hidden_dim`: alice 16, bob 32"),
        ({"server": "bob"}, "`server`: alice nothing, bob bob"),
        ({"aggregator": "secure"}, "`aggregator`: alice nothing, bob secure"),
        ({"cluster": {"start_timeout": 4, "job": "another"}}, "`job`"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_other_settings_at_one_party_are_named_at_both(job, changed, named):
    made = job(cluster=SOON) if named == "`job`" else job()
    parts = {k: {**made.values.get(k, {}), **v} for k, v in changed.items() if isinstance(v, dict)}
    made.write("job.yaml", seed=0)
    other = made.write("other.yaml", **{"seed": 0, **changed, **parts})
    made.start("alice").start("bob", job=other)
    codes = made.end(seconds=LIMIT)
    assert set(codes.values()) == {1 if "job" in named else 3}
    for party in made.names:
        assert named in made.log(party)


def test_resume_at_one_and_train_at_the_other(job):
    made = job(checkpoint_dir="kept-{party}")
    made.start("alice").start("bob", more=["--resume"])
    assert made.end(seconds=LIMIT) == {"alice": 3, "bob": 3}
    for party in made.names:
        assert "`action`: alice train, bob resume" in made.log(party)


def test_a_typo_at_one_ends_the_others_wait_too(job):
    made = job(cluster=SOON)
    other = made.write("other.yaml", parametrs={})
    made.start("alice").start("bob", job=other)
    assert made.end(seconds=LIMIT) == {"alice": 1, "bob": 2}
    assert "did you mean `parameters`" in made.log("bob")
    assert "Expected bob to come to `start` within 4 s" in made.log("alice")


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid:7000"])
def test_a_wrong_address_is_named(job, address):
    made = job(cluster={**SOON, "plain_text": True})
    parties = {**made.values["parties"], "alice": {"address": address}}
    wrong = made.write("wrong.yaml", parties=parties)
    made.start("bob", job=wrong)
    assert made.end("bob", seconds=LIMIT) == {"bob": 1}
    assert f"alice at {address}: " in made.log("bob")


def test_a_port_that_is_taken_is_named(job):
    made = job(cluster=SOON).start("alice")
    time.sleep(1.5)
    first = made.processes["alice"]
    made.start("alice")
    assert made.end("alice", seconds=LIMIT) == {"alice": 1}
    assert "which cannot be bound to: another process has the port" in made.log("alice")
    first.join(LIMIT)
    assert first.exitcode == 1  # bob never came


@pytest.mark.parametrize("combiner", ROUTES, ids=["server", "secure"])
def test_data_that_one_cannot_read_end_the_job_for_all(job, tmp_path, combiner):
    made = job(**combiner)
    (tmp_path / "bob.npy").unlink()
    made.start()
    # Whoever comes to it first says so himself, and the other may hear of it before.
    assert sorted(made.end(seconds=LIMIT).values()) in ([1, 1], [1, 5])
    for party in made.names:
        assert "party `bob`: Expected data in" in made.log(party)
        assert "Traceback" not in made.log(party)


@pytest.mark.parametrize("combiner", ROUTES, ids=["server", "secure"])
def test_a_full_disk_at_one_ends_the_job_for_all(job, combiner):
    made = job(**{**LONG, **combiner})
    made.start("alice").start("bob", file_limit=4096)
    codes = made.end(seconds=40)
    assert codes["bob"] == 1
    assert codes["alice"] in (1, 5)
    for party in made.names:
        assert "bob" in made.log(party)
        assert "Traceback" not in made.log(party)


def test_other_authority(job, tmp_path):
    made = job(cluster=SOON, tls=KEYS)
    make_certificates(tmp_path / "keys", made.names)
    make_certificates(tmp_path / "others", made.names)
    keys = {name: path.replace("keys", "others") for name, path in KEYS.items()}
    made.start("alice").start("bob", job=made.write("other.yaml", tls=keys))
    assert made.end(seconds=LIMIT) == {"alice": 1, "bob": 1}
    assert "Expected bob to come to `start`" in made.log("alice")
    assert "Expected alice to come to `start`" in made.log("bob")


def test_plain_text_at_one(job, tmp_path):
    made = job(cluster=SOON, tls=KEYS)
    make_certificates(tmp_path / "keys", made.names)
    made.start("alice").start("bob", job=made.write("other.yaml", tls=None))
    assert made.end(seconds=LIMIT) == {"alice": 1, "bob": 1}


def test_a_key_in_place_of_its_path_is_not_shown(job, tmp_path):
    made = job(cluster=SOON)
    make_certificates(tmp_path / "keys", made.names)
    text = (tmp_path / "keys" / "bob.key").read_text(encoding="ascii")
    job_file = made.write("other.yaml", tls={**KEYS, "key": text})
    made.start("bob", job=job_file)
    assert made.end("bob", seconds=LIMIT) == {"bob": 1}
    assert "the text of one (not shown here)" in made.log("bob")
    assert not any(line in made.log("bob") for line in text.splitlines()[1:-1])
