import base64
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.evaluation import (
    HtmlNote,
    HtmlPicture,
    HtmlRow,
    HtmlSection,
    HtmlTable,
    ProbeResult,
    plot_cluster_balance,
    results_html_table,
    write_html,
)

VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, texts, and that all tags close."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data))

    def of(self, tag):
        return [text for where, text in self.texts if where == tag]


def write(tmp_path, *blocks, title="Title", heading="Heading"):
    write_html(tmp_path / "new" / "r.html", title, [HtmlSection(heading, blocks)])
    page = Page((tmp_path / "new" / "r.html").read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture
def png(tmp_path):
    plot_cluster_balance(np.array([0, 1, 1]), 3, tmp_path / "p.png")
    return tmp_path / "p.png"


def test_everything_is_there_in_order(tmp_path, png):
    table = HtmlTable(["name", "value"], [["a", 1.5], ["b", None]], "Numbers")
    page = write(tmp_path, "One.", table, HtmlPicture(png, "Sizes"), "Two.")
    assert page.of("title") == page.of("h1") == ["Title"]
    assert page.of("h2") == ["Heading"]
    assert page.of("p") == ["One.", "Two."]
    assert page.of("caption") == ["Numbers"]
    assert page.of("th") == ["name", "value"]
    assert page.of("td") == ["a", "1.5", "b", "None"]
    assert page.of("figcaption") == ["Sizes"]
    names = [tag for tag, _ in page.tags if tag in ("p", "table", "img")]
    assert names == ["p", "table", "img", "p"]


def test_text_is_escaped_everywhere(tmp_path, png):
    evil = '<script>alert("1")</script> & \'"><img src=x onerror=y>'
    table = HtmlTable([evil], [[evil]], evil)
    page = write(tmp_path, evil, table, HtmlPicture(png, evil), title=evil, heading=evil)
    for tag in ("title", "h1", "h2", "p", "caption", "th", "td", "figcaption"):
        assert page.of(tag) == [evil], tag
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == [evil]
    assert set(images[0]) == {"alt", "src", "width", "height"}
    assert "script" not in {tag for tag, _ in page.tags}


def test_pictures_are_inside_and_nothing_is_outside(tmp_path, png):
    page = write(tmp_path, HtmlPicture(png, "Sizes"))
    sources = [a[k] for _, a in page.tags for k in ("src", "href", "data") if k in a]
    kind, data = sources[0].split(",")
    assert (len(sources), kind) == (1, "data:image/png;base64")
    assert base64.b64decode(data) == png.read_bytes()
    assert not {"link", "script", "iframe"} & {tag for tag, _ in page.tags}
    style = "".join(page.of("style"))
    assert "url(" not in style
    assert "@import" not in style
    policy = [a for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy[0]["content"]


def test_numbers_stand_right_totals_below_and_long_tables_folded(tmp_path):
    rows = [["a", "1.5 ± 0.1", "few", "2 rounds"], ["b", "-2", "7", "long"]]
    table = HtmlTable(["n", "v", "w", "t"], rows, totals=[["sum", "", "9", ""]], folded="All 2")
    page = write(tmp_path, table, HtmlNote("Mind."))
    cells = [attributes.get("class") for tag, attributes in page.tags if tag == "td"]
    assert cells == [None, "number", "number", None] * 3
    assert page.of("td")[-2:] == ["sum", "9"]
    order = [t for t, _ in page.tags if t in ("details", "summary", "table", "tbody", "tfoot")]
    assert order == ["details", "summary", "table", "tbody", "tfoot"]
    assert page.of("summary") == ["All 2"]
    assert [a for tag, a in page.tags if tag == "p"] == [{"class": "note"}]


def test_pictures_side_by_side_have_their_sizes(tmp_path, png):
    page = write(tmp_path, HtmlRow([HtmlPicture(png, "One"), HtmlPicture(png, "Two")]))
    assert [a for tag, a in page.tags if a.get("class") == "row"] == [{"class": "row"}]
    assert page.of("figcaption") == ["One", "Two"]
    width, height = Image.open(png).size
    for image in (a for tag, a in page.tags if tag == "img"):
        assert float(image["width"]) == pytest.approx(width / 1.5, abs=0.5)
        assert float(image["height"]) == pytest.approx(height / 1.5, abs=0.5)


def test_utf8(tmp_path):
    assert write(tmp_path, "结果 ± é").of("p") == ["结果 ± é"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (HtmlTable(["a", "b"], [[1, 2], [3]]), r"row of a table to have 2 cells.*got 1: \[3\]"),
        (b"bytes", r"`blocks` to hold strings, .* and HtmlRow, got bytes"),
    ],
)
def test_refusal_leaves_the_old_file(tmp_path, block, message):
    write(tmp_path, "Old.")
    with pytest.raises(ParameterError, match=message):
        write(tmp_path, block)
    assert Page((tmp_path / "new" / "r.html").read_text()).of("p") == ["Old."]


def test_another_picture_than_png_is_refused(tmp_path):
    (tmp_path / "p.svg").write_text("<svg/>")
    with pytest.raises(DataError, match=r"picture '.*p.svg' to be a PNG"):
        write(tmp_path, HtmlPicture(tmp_path / "p.svg", ""))


class TestResults:
    def test_controls_stand_below(self):
        few, knn = ProbeResult.from_values([0.5, 0.6]), ProbeResult.from_values([0.9])
        both = {"1%": few, "knn": knn}
        table = results_html_table({"pixels": both, "orchestra": both, "untrained": both})
        assert table.headers == ["features", "1% labels", "kNN"]
        assert [row[0] for row in table.rows] == ["orchestra", "pixels", "untrained"]
        assert table.rows[0][1:] == ["55.0 ± 7.1", "90.0"]

    def test_measures_are_named(self):
        one = ProbeResult.from_values([0.5])
        assert results_html_table({"a": {"1": one}}).headers == ["features", "1 label"]
        table = results_html_table({"pixels": {"knn": one, "knn auc": one, "5 ap": one}})
        assert table.headers[1:] == ["kNN", "kNN, AUC", "5 labels, Average precision"]

    def test_other_probes_are_refused(self):
        one = ProbeResult.from_values([0.5])
        with pytest.raises(ParameterError, match=r"with the same probes, got \{'a': "):
            results_html_table({"a": {"1": one}, "b": {"2": one}})
        with pytest.raises(ParameterError, match=r"with the same probes, got \{\}"):
            results_html_table({})
