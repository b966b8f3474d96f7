"""CIFAR's report as it is read: the note, the chart, names of classes, error bars."""

import pytest

from experiments.cifar_report import write_report
from tests.evaluation.report_pages import CLASSES, cifar_page, cifar_results
from tests.evaluation.test_html_report import Page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return Page(cifar_page(tmp_path_factory.mktemp("page")).read_text(encoding="utf-8"))


def test_the_note_and_the_chart_come_first(page):
    assert page.open == []
    assert page.of("h2")[:4] == [
        *("Accuracy beside controls", "Maps of the test images"),
        *("Accuracy over the rounds", "Clusters"),
    ]
    assert page.of("p")[0].startswith("This preset only tests the machinery")
    tags = [tag for tag, _ in page.tags]
    assert tags.index("p") < tags.index("img") < tags.index("table")
    assert "note" not in page.of("td")


def test_classes_spreads_and_controls_are_there(page):
    assert f"10 classes: {', '.join(CLASSES)}." in page.of("p")
    assert "36.0 ± 1.4" in page.of("td")
    captions = page.of("figcaption")
    assert captions[0].startswith("Accuracy on the test images, %. Bars are means over 2 seeds")
    assert captions[1:5] == ["orchestra_advanced", "fed_simsiam", "untrained", "pixels"]
    assert sum("standard deviation; higher is better" in caption for caption in captions) == 2


def test_one_seed_has_no_deviation_and_another_preset_no_note(tmp_path):
    results = cifar_results("cpu")
    results["runs"] = [run for run in results["runs"] if run["seed"] == 0]
    results["controls"] = results["controls"][:1]
    page = Page(write_report(tmp_path, results).read_text(encoding="utf-8"))
    assert "Of one seed: there is nothing to take a deviation of." in page.of("figcaption")[0]
    assert not [a for tag, a in page.tags if a.get("class") == "note"]
    assert "No maps were drawn." in page.of("p")
