"""The demo as a user runs it, in process and short; the full run is `make demo`."""

import json

import pytest

import demo_custom_strategy
from orchestra_strategy import registered_strategies


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
    for picture in ("learning_curve.png", "embedding_map.png"):
        assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"


def test_bad_arguments_end_with_a_sentence(capsys):
    with pytest.raises(SystemExit):
        demo_custom_strategy.main(["--rounds", "0"])
    assert "Expected `--rounds` to be at least 1, got 0" in capsys.readouterr().err
