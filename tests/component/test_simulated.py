"""Both components with all parties in this process: what comes out, and what is refused."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.orc as orc
import pytest
from secretflow.component.core import Context, comp_eval
from secretflow_spec.core.utils import build_node_eval_param
from secretflow_spec.v1.report_pb2 import Report

from orchestra_strategy import session
from orchestra_strategy.component import plugin
from orchestra_strategy.encoder_file import unpack_encoder
from tests.component.inputs import PARTIES, embed_call, storage, train_call, write_table

plugin()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of two tables, and its outputs."""
    folder = tmp_path_factory.mktemp("storage")
    tables = [write_table(folder, party) for party in PARTIES]
    with session(PARTIES, mode="debug"):
        model, report = comp_eval(train_call(tables), storage(folder), None).outputs
        yield folder, tables, model, report


def test_each_party_has_the_same_model_and_scales_of_its_own(trained):
    folder, _, model, _ = trained
    assert model.type == "sf.model.orchestra"
    files = {(r.party, Path(r.uri).name): (folder / r.uri).read_bytes() for r in model.data_refs}
    for name in ("encoder.safetensors", "encoder.json"):
        assert files["alice", name] == files["bob", name]
    kept = (io.BytesIO(files["alice", n]) for n in ("encoder.json", "encoder.safetensors"))
    encoder = unpack_encoder(*kept, "alice")
    assert (encoder.strategy, encoder.rounds, encoder.options["in_channels"]) == ("orchestra", 2, 6)
    scales = {party: json.loads(files[party, "scales.json"]) for party in PARTIES}
    assert list(scales["alice"]) == [f"x{i}" for i in range(6)]
    assert scales["alice"] != scales["bob"]


def test_the_report_has_the_curves_and_what_left(trained):
    report = Report()
    trained[3].meta.Unpack(report)
    tabs = {tab.name: tab.divs[0].children[0] for tab in report.tabs}
    assert list(tabs) == ["summary", "losses", "health", "cost", "manifest"]
    facts = {item.name: item.value for item in tabs["summary"].descriptions.items}
    assert facts["rounds"].i64 == 2
    losses = tabs["losses"].table
    assert [header.name for header in losses.headers][:2] == ["round", "cluster"]
    assert [row.items[0].i64 for row in losses.rows] == [1, 2]
    assert facts["final_train_cluster"].f == losses.rows[-1].items[1].f
    entries = [row.items[0].s for row in tabs["manifest"].table.rows]
    assert "num_samples" in entries
    assert any(name.startswith("weights/backbone") for name in entries)


def test_features_come_with_ids_and_labels(trained):
    folder, tables, model, _ = trained
    (table,) = comp_eval(embed_call(model, tables[1]), storage(folder), None).outputs
    rows = orc.read_table(str(folder / table.data_refs[0].uri)).to_pandas()
    assert list(rows.columns[:3]) == ["id", "y", "orchestra_0"]
    assert list(rows["id"]) == [f"bob{i}" for i in range(48)]
    assert rows.shape == (48, 2 + 256)
    features = rows.iloc[:, 2:].to_numpy()
    assert np.isfinite(features).all()
    assert features.std(axis=0).max() > 0


def test_secretflows_own_components_go_on_from_the_features(trained):
    folder, tables, model, _ = trained
    (table,) = comp_eval(embed_call(model, tables[0], "go-on"), storage(folder), None).outputs
    names = ["orchestra_0", "orchestra_9"]
    call = build_node_eval_param(
        *("stats", "table_statistics", "1.0.2"), {"input/input_ds/features": names}, [table], ["s"]
    )
    (told,) = comp_eval(call, storage(folder), None).outputs
    statistics = Report()
    told.meta.Unpack(statistics)
    rows = statistics.tabs[0].divs[0].children[0].table.rows
    assert [row.name for row in rows] == names


def test_features_are_scaled_as_the_party_was_in_the_training(trained):
    """Not by the rows at hand: a table of one row would be nothing but zeros."""
    folder, tables, model, _ = trained
    lines = (folder / "alice.csv").read_text(encoding="utf-8").splitlines()
    (folder / "one.csv").write_text("\n".join(lines[:2]) + "\n", encoding="utf-8")
    one = type(tables[0])()
    one.CopyFrom(tables[0])
    one.data_refs[0].uri = "one.csv"
    both = [
        comp_eval(embed_call(model, table, uri), storage(folder), None).outputs[0]
        for table, uri in ((tables[0], "whole"), (one, "part"))
    ]
    whole, part = (orc.read_table(str(folder / t.data_refs[0].uri)).to_pandas() for t in both)
    expected, got = (rows.iloc[:1, 2:].to_numpy(float) for rows in (whole, part))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_columns_can_be_kept_and_features_chosen(trained):
    folder, tables, _, _ = trained
    call = train_call(tables, "few", **{"input/input_ds/features": ["x5", "x1", "x2", "x4"]})
    model, _ = comp_eval(call, storage(folder), None).outputs
    kept = {"input/input_ds/keep": ["x0"]}
    (table,) = comp_eval(
        embed_call(model, tables[0], "kept", **kept), storage(folder), None
    ).outputs
    rows = orc.read_table(str(folder / table.data_refs[0].uri)).to_pandas()
    assert list(rows.columns[:4]) == ["id", "y", "x0", "orchestra_0"]


def test_progress_is_told_by_round(trained, monkeypatch):
    told = []
    monkeypatch.setattr(Context, "update_progress", lambda _, share, infos=None: told.append(share))
    folder, tables, _, _ = trained
    comp_eval(train_call(tables, "again", rounds=4), storage(folder), None)
    assert told == pytest.approx([0.2475, 0.495, 0.7425, 0.99])


def test_a_training_goes_on_from_its_checkpoint(trained, monkeypatch):
    folder, tables, _, _ = trained
    calls = {"checkpoint_dir": "checkpoints", "streams": "seed"}
    comp_eval(train_call(tables, "first", rounds=2, **calls), storage(folder), None)
    told = []
    monkeypatch.setattr(Context, "update_progress", lambda _, share, infos=None: told.append(share))
    on = comp_eval(train_call(tables, "on", rounds=3, resume=True, **calls), storage(folder), None)
    whole = comp_eval(train_call(tables, "anew", rounds=3, streams="seed"), storage(folder), None)
    assert told[0] == pytest.approx(0.99)  # one round was left
    resumed, anew = (losses_of(outputs.outputs[1]) for outputs in (on, whole))
    assert resumed == anew


def losses_of(report):
    found = Report()
    report.meta.Unpack(found)
    (table,) = [t.divs[0].children[0].table for t in found.tabs if t.name == "losses"]
    return [[item.f for item in row.items[1:]] for row in table.rows]


def test_epsilon_stands_in_the_report(trained):
    folder, tables, _, _ = trained
    private = {"strategy": "fed_simclr", "strategy/fed_simclr/privacy": "user"}
    private |= {"noise_multiplier": 5.0, "network/norm": "group+batch"}
    call = train_call(tables, "private", **private)
    _, report = comp_eval(call, storage(folder), None).outputs
    found = Report()
    report.meta.Unpack(found)
    tabs = {tab.name: tab.divs[0].children[0] for tab in found.tabs}
    facts = {item.name: item.value.f for item in tabs["summary"].descriptions.items}
    by_round = [row.items[1].f for row in tabs["privacy"].table.rows]
    assert 0 < by_round[0] < by_round[1] == facts["epsilon"]
    assert "losses" not in tabs  # they are not told
