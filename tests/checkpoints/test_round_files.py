"""Files of rounds in two phases: at whatever moment parties die, all of them have a round left."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from orchestra_strategy.checkpoints.common_round import Offer, choose_round
from orchestra_strategy.checkpoints.file import Label, write_checkpoint
from orchestra_strategy.checkpoints.round_files import RoundFiles
from orchestra_strategy.errors import CheckpointError

PARTIES = ("alice", "bob", "carol")


def digest(round_index):
    return f"weights of round {round_index}"


def label(owner, round_index):
    return Label(owner, round_index, digest(round_index), PARTIES)


def prepare(files, round_index):
    files.prepare(label(files.owner, round_index), {"at": round_index})


@pytest.fixture
def files(tmp_path):
    return RoundFiles(tmp_path / "party", "alice")


def offer(files):
    labels, problems = files.offered()
    digests = {n: found.digest for n, found in labels.items()}
    parties = {n: found.parties for n, found in labels.items()}
    return Offer(digests, parties, problems, max(files.committed(), default=None))


def made(digests, problems=(), committed=None, parties=("alice", "bob")):
    return Offer(digests, dict.fromkeys(digests, parties), dict(problems), committed)


def names(files):
    return sorted(path.name for path in files.folder.iterdir())


def test_a_round_is_prepared_then_committed_and_the_older_ones_go_last(files):
    prepare(files, 1)
    assert names(files) == ["round-000001.prepared"]
    assert files.committed() == []
    files.commit(1)
    prepare(files, 2)
    assert names(files) == ["round-000001.ckpt", "round-000002.prepared"]
    assert files.offered() == ({1: label("alice", 1), 2: label("alice", 2)}, {})
    files.commit(2)
    assert files.committed() == [1, 2]
    (files.folder / ".round-000002.prepared.abc.tmp").write_bytes(b"of a killed writer")
    files.prune(keep=1)
    assert names(files) == ["round-000002.ckpt"]
    assert files.read(2) == (label("alice", 2), {"at": 2})


def test_a_folder_that_is_not_there_has_no_rounds(files):
    assert files.committed() == []
    assert files.offered() == ({}, {})
    assert not files.folder.exists()


def test_large_numbers_and_other_names(files):
    for n in (2, 10, 1_000_000):
        prepare(files, n)
        files.commit(n)
    (files.folder / "round-x.ckpt").write_bytes(b"other")
    assert files.committed() == [2, 10, 1_000_000]


def test_what_cannot_be_read_is_not_offered(files):
    for n in (1, 2, 3):
        prepare(files, n)
        files.commit(n)
    files.path(1).write_bytes(files.path(1).read_bytes()[:-1])
    write_checkpoint(files.path(3), label("bob", 3), {})
    labels, problems = files.offered()
    assert labels == {2: label("alice", 2)}
    assert "ends after" in problems[1]
    assert problems[3].endswith("to be of party `alice`, round 3, got `bob`, 3.")
    with pytest.raises(CheckpointError, match="to be of party `alice`, round 3, got `bob`, 3"):
        files.read(3)


def test_going_back_takes_no_file_before_all_have_taken_back_their_commit(files):
    for n in (1, 2, 3):
        prepare(files, n)
        files.commit(n)
    files.demote(1)
    assert files.committed() == [1]
    assert sorted(files.offered()[0]) == [1, 2, 3]
    files.settle(1)
    assert names(files) == ["round-000001.ckpt"]


def test_a_prepared_round_that_is_gone_on_from_is_committed(files):
    prepare(files, 1)
    files.demote(1)
    files.settle(1)
    assert names(files) == ["round-000001.ckpt"]


# ---- Agreement -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alice", "bob", "asked", "message"),
    [
        (made({}), made({}), None, r"in `run`, got none at any party; call `train"),
        (made({1: "a"}), made({}), None, r"got alice has \[1\], bob has \[\]: the training end"),
        (made({1: "a"}), made({2: "b"}), 1, r"got 1; alice has \[1\], bob has \[2\]\."),
        (made({1: "a"}, {}, 1), made({}), None, r"`bob` .* round 1, got: no file .* start anew"),
        (
            made({1: "a", 2: "b"}, {}, 2),
            made({1: "a"}, {2: "Cut off."}, 2),
            None,
            r"`bob` .* round 2, got: Cut off\. .* rounds \[1\]\. .*`resume\(..., round_index=1\)`",
        ),
        (made({1: "a"}, {}, 1), made({1: "b"}), None, r"round 1 .* digests alice a, bob b: one"),
    ],
)
def test_refusals(alice, bob, asked, message):
    with pytest.raises(CheckpointError, match=message):
        choose_round({"alice": alice, "bob": bob}, "run", asked)


def test_the_newest_that_all_have_is_taken_and_another_where_it_is_asked_for():
    offers = {"alice": made({1: "a", 2: "b"}, {}, 2), "bob": made({1: "a", 2: "b"}, {}, 1)}
    assert choose_round(offers, "run") == (2, "b")
    assert choose_round(offers, "run", 1) == (1, "a")


def test_a_party_that_was_away_does_not_hold_up_the_others():
    three = ("alice", "bob", "carol")
    alice = Offer({4: "d", 5: "e"}, dict.fromkeys((4, 5), three[:2]), {}, 5)
    carol = made({2: "b"}, parties=three)
    offers = {"alice": alice, "bob": alice, "carol": carol}
    assert choose_round(offers, "run") == (5, "e")
    late = Offer({4: "d"}, {4: three[:2]}, {}, 4)
    assert choose_round(
        {**offers, "bob": late, "alice": Offer(alice.digests, alice.parties)}, "run"
    ) == (4, "d")
    with pytest.raises(
        CheckpointError, match=r"^Expected party `bob` .* round 5, got: no file"
    ) as told:
        choose_round({**offers, "bob": late}, "run")
    assert "carol" not in str(told.value)


def test_a_party_that_is_away_now_is_not_waited_for():
    alice = made({3: "c"}, committed=3, parties=("alice", "bob", "carol"))
    assert choose_round({"alice": alice, "bob": alice}, "run") == (3, "c")


# ---- Whoever dies when -----------------------------------------------------------------------


class Party:
    """One that does steps of a run, and may be dead."""

    def __init__(self, folder, name):
        self.files, self.alive, self.done = RoundFiles(folder / name, name), True, 0


def steps(rounds, keep):
    """What the driver asks all parties for; each step begins when all have done the one before."""
    for n in range(1, rounds + 1):
        yield lambda files, n=n: prepare(files, n)
        yield lambda files, n=n: files.commit(n)
        yield lambda files: files.prune(keep)


@given(st.data(), st.integers(1, 2), st.integers(2, 3))
def test_whenever_parties_die_no_round_is_lost(tmp_path_factory, data, keep, count):
    """All have the last round that all had committed, or the one after it."""
    folder = tmp_path_factory.mktemp("run")
    parties = [Party(folder, name) for name in PARTIES[:count]]
    committed = 0
    for number, step in enumerate(steps(3, keep)):
        order = data.draw(st.permutations(parties))
        # A party dies before it does this step; those that come before it have done it.
        dead = data.draw(st.sets(st.sampled_from(range(count)))) if number > 2 else set()
        for party in order:
            if parties.index(party) not in dead:
                step(party.files)
        if dead:
            break
        if number % 3 == 1:
            committed += 1
    chosen, _ = choose_round({p.files.owner: offer(p.files) for p in parties}, "run")
    assert chosen in (committed, committed + 1)
    for party in parties:
        assert party.files.read(chosen)[1] == {"at": chosen}


@given(st.data())
def test_whenever_parties_die_while_going_back_no_round_is_lost(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run")
    parties = [Party(folder, name) for name in ("alice", "bob")]
    for step in steps(3, 3):
        for party in parties:
            step(party.files)
    for step in ("demote", "settle"):
        dead = data.draw(st.sets(st.sampled_from([0, 1])))
        for i, party in enumerate(parties):
            if i not in dead:
                getattr(party.files, step)(1)
        if dead:
            break
    chosen, _ = choose_round({p.files.owner: offer(p.files) for p in parties}, "run")
    assert chosen in (1, 3)


def test_a_write_that_fails_leaves_what_was_there(files, monkeypatch):
    prepare(files, 1)
    files.commit(1)
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        prepare(files, 2)
    assert names(files) == ["round-000001.ckpt"]
