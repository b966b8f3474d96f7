"""``partition``: every sample once, and refusals."""

import numpy as np
import pytest

from tests.commands.jobs import status

RNG = np.random.default_rng(0)


@pytest.fixture
def data(tmp_path):
    np.savez(
        tmp_path / "all.npz",
        x=np.arange(60, dtype=np.float32)[:, None] / 60,
        y=RNG.integers(0, 3, 60),
    )
    np.save(tmp_path / "plain.npy", RNG.random((20, 8, 8), dtype=np.float32))
    return tmp_path


@pytest.mark.parametrize(
    "how", [("iid",), ("dirichlet", "--alpha", "1", "--min-size", "5"), ("shards", "--shards", "2")]
)
def test_every_sample_goes_to_one_file_with_its_label(how, data, capsys):
    names = ("alice", "bob", "carol")
    arguments = ("--parties", *names, "--test-fraction", "0.25", "--how", *how)
    assert status("partition", data / "all.npz", "--out", data / "out", *arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    parts = {name: np.load(data / "out" / f"{name}.npz") for name in (*names, "test")}
    assert len(parts["test"]["x"]) == 15
    rows = np.concatenate([part["x"][:, 0] for part in parts.values()]) * 60
    assert sorted(np.rint(rows).astype(int)) == list(range(60))
    whole = np.load(data / "all.npz")["y"]
    labels = np.concatenate([part["y"] for part in parts.values()])
    assert (whole[np.rint(rows).astype(int)] == labels).all()


def test_the_seed_decides(data):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        more = ("--parties", "alice", "bob", "--seed", seed)
        assert status("partition", data / "plain.npy", "--out", data / folder, *more) == 0
    a, b, c = (np.load(data / folder / "bob.npz")["x"] for folder in "abc")
    assert (a == b).all()
    assert not (a == c).all()


def test_digits_are_at_hand(tmp_path):
    assert status("partition", "digits", "--parties", "alice", "--out", tmp_path) == 0
    assert np.load(tmp_path / "alice.npz")["x"].shape == (1797, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{d}/plain.npy", "--how", "shards"), "plain.npy` to have labels, got none"),
        (("{d}/all.npz", "--how", "dirichlet", "--alpha", "0"), "`alpha` to be a number in"),
        (("{d}/all.npz", "--test-fraction", "1"), "`--test-fraction` to be in [0, 1), got 1"),
        (("{d}/all.npz", "--out", "{d}/full"), "`--out` to have no file of that name, got"),
        (("{d}/all.npz", "--parties", "a", "a"), "different names that make file names"),
        (("{d}/all.npz", "--parties", "../a"), "different names that make file names"),
        (("{d}/all.npz", "--parties", "test", "--test-fraction", "0.1"), "different names that"),
        (("digits", "--data-option", "a=1"), "no `--data-option` for scikit-learn's digits"),
        (("nowhere",), "Expected data in `nowhere`"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(arguments, message, data, capsys):
    (data / "full").mkdir()
    (data / "full" / "bob.npz").write_bytes(b"")
    before = sorted(data.rglob("*"))
    filled = [a.format(d=data) for a in arguments]
    defaults = [*([] if "--parties" in filled else ["--parties", "alice", "bob"])]
    defaults += [] if "--out" in filled else ["--out", str(data / "out")]
    assert status("partition", *filled, *defaults) in (1, 2)
    assert message in capsys.readouterr().err
    assert sorted(data.rglob("*")) == before
