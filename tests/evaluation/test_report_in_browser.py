"""Reports in a headless Chromium: nothing goes wrong, nothing is too wide, all can be read."""

import pytest

from orchestra_strategy.evaluation import HtmlSection, HtmlTable, write_html
from tests.evaluation import chromium
from tests.evaluation.report_pages import cifar_page, training_page

pytestmark = pytest.mark.skipif(
    chromium.found() is None, reason="none of " + ", ".join(chromium.NAMES) + " is on PATH"
)

# Of each element that has text of its own: the contrast of WCAG 2 with what is behind it.
CONTRASTS = """(() => {
  const light = c => {
    const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = c.map(v => linear(v / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const parsed = text => text.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parsed(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  document.querySelectorAll('details').forEach(d => { d.open = true; });
  return [...document.body.querySelectorAll('*')]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => {
      const ink = light(parsed(getComputedStyle(e).color).slice(0, 3)), ground = light(behind(e));
      return [(Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05), e.tagName];
    });
})()"""
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
IMAGES = "[...document.images].map(i => i.complete ? i.naturalWidth : 0)"
TOO_WIDE = "document.documentElement.scrollWidth - innerWidth"
SCROLLED = (
    "[...document.querySelectorAll('.wide')].filter(b => b.scrollWidth > b.clientWidth).length"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = chromium.Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module", params=[training_page, cifar_page], ids=lambda f: f.__name__)
def page(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("width", [1200, 800, 400])
def test_a_window_holds_the_page_with_all_pictures(browser, page, width):
    assert browser.show(page, width) == []
    widths = browser.value(IMAGES)
    assert len(widths) >= 8
    assert min(widths) > 0
    assert browser.value("innerWidth") == width
    assert browser.value(TOO_WIDE) <= 0
    if width >= 800:  # nothing is cut off: not even tables need to be scrolled
        assert browser.value(SCROLLED) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable_on_its_ground(browser, page, scheme):
    assert browser.show(page, 1200, scheme=scheme) == []
    ground = sum(map(int, browser.value(BACKGROUND)[4:-1].split(",")))
    assert ground > 700 if scheme == "light" else ground < 150
    contrasts = browser.value(CONTRASTS)
    assert len(contrasts) > 100
    assert min(contrasts)[0] >= 4.5, min(contrasts)


def test_words_without_an_end_stay_in_their_box(browser, tmp_path):
    word = "w" * 400
    blocks = [word, HtmlTable([word, "b"], [[word, 1]], word, [[word, 1]], folded=word)]
    write_html(tmp_path / "r.html", word, [HtmlSection(word, blocks)])
    assert browser.show(tmp_path / "r.html", 400) == []
    browser.value("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert browser.value(SCROLLED) == 1
    assert browser.value(TOO_WIDE) <= 0


def test_the_checks_find_faults(browser, tmp_path):
    policy = (
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:\">"
    )
    picture = "<img src='data:image/png;base64,AAAA'><p style='width: 2000px; color: #999'>pale</p>"
    bad = tmp_path / "bad.html"
    bad.write_text(f"<!doctype html>{policy}<script>1</script>{picture}")
    assert browser.show(bad, 800)
    assert browser.value(IMAGES) == [0]
    bad.write_text(f"<!doctype html>{picture}<script>console.error('x')</script>")
    assert [e["method"] for e in browser.show(bad, 800)] == ["Runtime.consoleAPICalled"]
    assert browser.value(TOO_WIDE) > 0
    assert min(browser.value(CONTRASTS))[0] < 4.5
