"""The report of a training, as its parts are read: order, captions, totals, settings."""

import numpy as np
import pytest

from orchestra_strategy.errors import DataError
from orchestra_strategy.runtime.report_tables import manifest_tables, plain_settings, rounds_table
from orchestra_strategy.runtime.training_page import Measured, write_training_report
from tests.evaluation.report_pages import HISTORY, LEDGER, MANIFEST, RESULTS, training_page
from tests.evaluation.test_html_report import Page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Page(training_page(tmp_path_factory.mktemp("page")).read_text(encoding="utf-8"))


def test_the_chart_comes_first_and_the_maps_side_by_side(page):
    assert page.open == []
    assert page.of("h2") == [
        *("Accuracy with few labels", "Maps of the test samples", "Curves", "Clusters"),
        *("What left each party", "Cost", "Settings"),
    ]
    tags = [tag for tag, _ in page.tags]
    assert tags.index("img") < tags.index("table")
    rows = [i for i, (_, a) in enumerate(page.tags) if a.get("class") == "row"]
    in_first = [tag for tag in tags[rows[0] : rows[1]] if tag == "figure"]
    assert len(in_first) == 3


def test_captions_say_which_direction_is_good(page):
    captions = page.of("figcaption")
    for text in (
        "train loss: better when lower",
        "alignment: better when lower",
        "effective rank: better when higher",
        "cluster balance: better when higher",
        "uniformity: better when lower, but it may rise",
    ):
        assert text in captions
    assert any(
        p.startswith("Uniformity may rise in a training that goes well") for p in page.of("p")
    )


def test_the_manifest_has_groups_totals_and_every_entry():
    groups, entries = manifest_tables(RESULTS)
    assert [row[0] for row in groups.rows] == [
        *("weights/* (2)", "local_centroids", "averaged weights", "health_alignment"),
    ]
    assert {row[-1] for row in groups.rows} == {entry["seen_by"] for entry in MANIFEST}
    sent = 3_000_000 + 82_896 + 32_768
    assert [row[2] for row in groups.totals] == [f"{sent:,}", f"{sent + 8:,}", "12,462,680"]
    assert [row[0] for row in entries.rows] == [entry["name"] for entry in MANIFEST]
    assert entries.rows[2][1] == "<=16 x 512"
    single = [{**MANIFEST[0], "per_sample": True}]
    told = manifest_tables({"manifest": single})[0].caption
    assert told.endswith(f"Entries with a row per sample: {MANIFEST[0]['name']}.")


def test_rounds_are_summed_and_many_are_folded():
    table = rounds_table(LEDGER)
    cells = dict(zip(table.headers, table.totals[0]))
    assert (cells["seconds"], cells["samples"]) == ("7.5", "12,933")
    assert cells["images per second"] == cells["round"] == ""
    assert table.folded == ""
    assert not [name for name in table.headers if "loss" in name or "health" in name]
    many = rounds_table(LEDGER * 5)
    assert many.folded.startswith("All 15 rounds, in all rounds 15, seconds 37.5, samples 64,665")
    assert rounds_table([]).rows == []


def test_settings_are_read_by_name(page):
    cells = page.of("td")
    for name, value in (("parameters.lr", "0.01"), ("parties", "alice, bob")):
        assert cells[cells.index(name) + 1] == value
    assert cells[cells.index("parameters.privacy") + 1] == "not set"
    told = plain_settings({"f": print, 1: np.float32(0.5), "deep": [{"x": float("nan")}]})
    assert told == {"f": str(print), "1": "0.5", "deep": [{"x": "nan"}]}


def test_without_matplotlib_the_numbers_are_there(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    page = Page(training_page(tmp_path).read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert len([p for p in page.of("p") if p.startswith("No pictures: Expected matplotlib")]) == 4
    assert f"{HISTORY['train_loss'][-1]:.4g}" in page.of("td")


def test_a_class_without_a_name_is_refused(tmp_path):
    x, y = np.eye(8, dtype=np.float32), np.arange(8) % 2
    measured = Measured({}, {"a": x}, y, ["one"])
    with pytest.raises(DataError, match=r"`results` to have feature sets"):
        write_training_report(tmp_path / "r.html", "", RESULTS, measured)
    from orchestra_strategy.evaluation import plot_embedding_map

    with pytest.raises(DataError, match="name for each class, got 1 names and class 1"):
        plot_embedding_map(x, y, tmp_path / "m.png", 0, ["one"])
