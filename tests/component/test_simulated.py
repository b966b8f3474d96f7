"""Both components with all parties in this process: what comes out, and what is refused."""

import io
import json

import numpy as np
import pyarrow.orc as orc
import pytest
from secretflow.component.core import comp_eval
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
    files = {(ref.party, ref.format): (folder / ref.uri).read_bytes() for ref in model.data_refs}
    assert files["alice", "npz"] == files["bob", "npz"]
    encoder = unpack_encoder(io.BytesIO(files["alice", "npz"]), "encoder.npz")
    assert (encoder.strategy, encoder.rounds, encoder.options["in_channels"]) == ("orchestra", 2, 6)
    scales = {party: json.loads(files[party, "json"]) for party in PARTIES}
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
