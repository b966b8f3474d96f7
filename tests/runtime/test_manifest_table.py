"""The upload manifest as a person reads it before training, and that it tells all there is."""

import io

import pytest
from rich.console import Console

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import host, session
from orchestra_strategy.runtime.manifest_table import manifest_table
from tests.federated import toy

MODEL = {"backbone": "conv4", "in_channels": 1, "hidden_dim": 16, "projection_dim": 16}


def text_of(table):
    out = io.StringIO()
    Console(file=out, width=400).print(table)
    return out.getvalue()


def row(name, **more):
    fixed = {"shape": (2, 3), "dtype": "float32", "bytes": 24, "combine": "weighted mean"}
    fixed |= {"when": "both", "per_sample": False, "seen_by": "bob", "max_rows": 0}
    return {"name": name, **fixed, **more}


def test_weights_make_one_line_and_all_bytes_are_counted():
    rows = [row("weights/a"), row("weights/b", shape=(4,), bytes=1600), row("moments/S")]
    lines = text_of(manifest_table(rows)).splitlines()
    (weights,) = [line for line in lines if "weights/" in line]
    cells = [cell.strip() for cell in weights.strip("│").split("│")]
    assert cells == [
        *("weights/* (2 arrays)", "various", "float32", "1,624", "both", "weighted mean", "no"),
        "bob",
    ]
    assert any("moments/S" in line and "2 x 3" in line for line in lines)


def test_what_differs_in_who_sees_it_or_is_per_sample_stays_apart():
    rows = [
        *(row("weights/a"), row("weights/b", per_sample=True), row("weights/c", seen_by="carol")),
        row("z", shape=(None, 3), max_rows=7),
        row("n", shape=()),
    ]
    lines = [line for line in text_of(manifest_table(rows)).splitlines() if "float32" in line]
    assert [line.split("│")[1].strip() for line in lines] == [
        *("weights/a", "weights/b", "weights/c", "z", "n")
    ]
    assert [line.split("│")[7].strip() for line in lines] == ["no", "yes", "no", "no", "no"]
    assert "<=7 x 3" in lines[3]
    assert "a number" in lines[4]


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
    assert printed.index("Upload manifest") < printed.index("rounds")
    for entry in results.manifest:
        assert entry["name"] in printed or entry["name"].startswith("weights/")
        assert entry["seen_by"] in printed
    total = sum(r["bytes"] for r in results.manifest if r["name"].startswith("weights/"))
    assert f"{total:,}" in printed
    saved = (tmp_path / "results.json").read_text()
    assert saved.count('"seen_by"') == saved.count('"per_sample": false') == len(results.manifest)
