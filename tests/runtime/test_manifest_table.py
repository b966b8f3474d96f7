"""The upload manifest as a person reads it before training, and that it tells all there is."""

import io

import pytest
from rich.console import Console

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import host, session
from orchestra_strategy.runtime.manifest_table import manifest_table
from tests.federated import toy

MODEL = {"backbone": "conv4", "in_channels": 1, "hidden_dim": 16, "projection_dim": 16}


def text_of(table, width=400):
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


def row(name, **more):
    fixed = {"shape": (2, 3), "dtype": "float32", "bytes": 24, "combine": "weighted mean"}
    fixed |= {"when": "both", "per_sample": False, "seen_by": "bob", "max_rows": 0}
    return {"name": name, **fixed, **more}


def cells_of(table):
    """The cells of each line, but the legend's."""
    lines = text_of(table).splitlines()
    return [[c for c in line.split("  ") if c] for line in lines if "float32" in line]


def stripped(cells):
    return [cell.strip() for cell in cells if cell.strip()]


def test_weights_make_one_line_and_all_bytes_are_counted():
    rows = [row("weights/a"), row("weights/b", shape=(4,), bytes=1600), row("moments/S")]
    weights, moments = cells_of(manifest_table(rows))
    assert stripped(weights) == [
        *("weights/* (2)", "various", "float32", "1,624", "both", "weighted mean", "no", "A"),
    ]
    assert stripped(moments)[:4] == ["moments/S", "2 x 3", "float32", "24"]
    assert text_of(manifest_table(rows)).splitlines()[-1] == "A: bob"


def test_what_differs_in_who_sees_it_or_is_per_sample_stays_apart():
    rows = [
        *(row("weights/a"), row("weights/b", per_sample=True), row("weights/c", seen_by="carol")),
        *(row("z", shape=(None, 3), max_rows=7), row("n", shape=())),
        row("description", shape=(), when="asked", seen_by="carol"),
    ]
    cells = [stripped(line) for line in cells_of(manifest_table(rows))]
    assert [c[0] for c in cells] == ["weights/a", "weights/b", "weights/c", "z", "n", "description"]
    assert [c[-2] for c in cells] == ["no", "yes", "no", "no", "no", "no"]
    assert [c[-1] for c in cells] == ["A", "A", "B", "A", "A", "B"]
    assert [c[1] for c in cells[3:]] == ["<=7 x 3", "number", "values"]
    assert [c[3] for c in cells[3:]] == ["24", "24", "few"]
    assert text_of(manifest_table(rows)).splitlines()[-2:] == ["A: bob", "B: carol"]


NAMES = ["local_centroids", "reading and embedding", "averaged weights", "weights/a", "moments/S"]


@pytest.mark.parametrize("width", [60, 80, 120, 400])
def test_names_and_who_sees_them_are_whole_at_any_width(width):
    rows = [
        row(name, seen_by=f"party{i}: each party's, as every party's process is a driver")
        for i, name in enumerate(NAMES)
    ]
    rows[0] |= {"per_sample": True, "shape": (None, 3), "max_rows": 7, "bytes": 123_456_789}
    text = text_of(manifest_table(rows), width)
    lines = text.splitlines()
    assert "…" not in text
    assert max(map(len, lines)) <= width
    for letter, name in zip("ABCDE", NAMES):
        line = next(line for line in lines if line.strip().startswith(name))
        assert line.split()[-1] == letter
    told = " ".join(text.split())
    for i, letter in enumerate("ABCDE"):
        assert f"{letter}: party{i}: each party's, as every party's process is a driver" in told
    assert "123,456,789 both" in told
    assert (
        "A party sends at most 123,456,885 bytes at the start and 123,456,885 in a round." in told
    )
    # Shape, dtype, what becomes of it, and a row per sample are told at any width, too.
    assert ("<=7 x 3 float32, weighted mean, a row per sample" in told) == (width < 120)
    assert (" yes A" in told) == (width >= 120)


@pytest.mark.parametrize("secure", [False, True])
def test_it_is_printed_before_training_and_saved_with_the_results(secure, tmp_path):
    with session(toy.PARTIES, mode="debug") as devices:
        aggregator = host.PlainAggregator(devices[1]) if secure else None
        config = {"rounds": 1, "seed": 7, "model": MODEL, "parameters": toy.PARAMETERS}
        config["out_dir"] = str(tmp_path)
        trainer = FederatedOrchestraTrainer(config, devices, aggregator=aggregator)
        trainer.console = Console(file=io.StringIO(), width=400)
        results = trainer.train(toy.data(devices))
    printed = trainer.console.file.getvalue()
    assert printed.index("Upload manifest") < printed.index("round   1/1")
    for entry in results.manifest:
        family = entry["name"].split("/")[0].split("_")[0]
        assert entry["name"] in printed or family in ("weights", "train", "health")
        assert entry["seen_by"] in printed
    total = sum(r["bytes"] for r in results.manifest if r["name"].startswith("weights/"))
    assert printed.count(f"{total:,}") == 2  # what is sent, and the mean if it is asked for
    asked = {r["name"] for r in results.manifest if r["when"] == "asked"}
    assert {"averaged weights", "data description"} <= asked
    per_round = sum(r["bytes"] for r in results.manifest if r["when"] in ("round", "both"))
    assert results.ledger[-1]["bytes_up_per_party"] == per_round < 1.1 * total
    saved = (tmp_path / "results.json").read_text()
    assert saved.count('"seen_by"') == saved.count('"per_sample": false') == len(results.manifest)
