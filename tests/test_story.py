"""The notebook runs as it stands, and shows what it prints."""

import json
import re
from pathlib import Path

import pytest

from tests.notebook import code_cells, run_cells

pytestmark = pytest.mark.usefixtures("log_levels_kept")
PATH = Path(__file__).parents[1] / "examples/story.ipynb"
ROUNDS = '"rounds": 8'


def form_of(text):
    """What is printed but for numbers, of which there may be fewer in a list, and for spaces."""
    text = re.sub(r"-?\d[\d.]*", "#", text)
    return re.sub(r" +", " ", re.sub(r"#(, #)+", "#", text))


def notebook_of(rounds, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = PATH.read_text(encoding="utf-8")
    short = text.replace(json.dumps(ROUNDS)[1:-1], json.dumps(f'"rounds": {rounds}')[1:-1])
    assert (short != text) == (rounds != 8)
    return json.loads(short)


def check_outputs(notebook, printed):
    shown = [
        "".join(line for output in cell["outputs"] for line in output["text"])
        for cell in code_cells(notebook)
    ]
    assert len(printed) == 5
    assert all(printed)
    assert list(map(form_of, printed)) == list(map(form_of, shown))


def test_every_cell_runs_and_prints_what_it_shows(monkeypatch, tmp_path):
    notebook = notebook_of(1, monkeypatch, tmp_path)
    check_outputs(notebook, run_cells(notebook, "story"))


@pytest.mark.slow
def test_the_whole_story(monkeypatch, tmp_path):
    notebook = notebook_of(8, monkeypatch, tmp_path)
    printed = run_cells(notebook, "story")
    check_outputs(notebook, printed)
    encoder, untrained, pixels = (
        [float(number) for number in re.findall(r"([\d.]+) ±", line)]
        for line in printed[3].splitlines()[1:]
    )
    assert all(a > max(b, c) for a, b, c in zip(encoder, untrained, pixels, strict=True))


def test_no_place_of_a_machine_is_in_it():
    text = PATH.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|tmp|work|usr)/", text)
