"""The demo as a user runs it, in process and short; the full run is `make demo`."""

import json

import pytest

import demo_custom_strategy
from orchestra_strategy import registered_strategies
from tests.evaluation.test_html_report import Page


def test_the_demo_prints_and_writes_what_it_says(tmp_path, capsys):
    demo_custom_strategy.main(["--mode", "debug", "--rounds", "1", "--out", str(tmp_path)])
    output = capsys.readouterr().out
    places = [
        output.index(text)
        for text in (
            "orchestra_torch",
            *(f"{n}. " for n in range(1, 7)),
            "Parameters: three ways",
            "Accuracy on the test set",
            "Done in",
        )
    ]
    assert places == sorted(places)
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["probes"]) == {"orchestra", "untrained", "pixels"}
    for row in results["probes"].values():
        assert set(row) == {"1", "5", "20", "all", "knn"}
        assert all(0 <= accuracy <= 1 for accuracy in row.values())
    assert results["rounds"] == 1
    assert results["seconds"] > 0
    assert results["registered"] == registered_strategies()
    assert results["settings"]["parameters"]["memory_size"] == 128
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.of("h2") == [
        *("Accuracy with few labels", "Maps of the test samples", "Curves", "Clusters"),
        *("What left each party", "Cost", "Settings"),
    ]
    first = next(tag for tag, _ in page.tags if tag in ("img", "table"))
    assert first == "img"  # the chart stands before its numbers
    maps = [text for text in page.of("figcaption") if "near samples" in text]
    assert [text.split(":")[0] for text in maps] == ["orchestra", "untrained", "pixels"]
    assert {"parameters.memory_size", "128"} <= set(page.of("td"))


def test_bad_arguments_end_with_a_sentence(capsys):
    with pytest.raises(SystemExit):
        demo_custom_strategy.main(["--rounds", "0"])
    assert "Expected `--rounds` to be at least 1, got 0" in capsys.readouterr().err
