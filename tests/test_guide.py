"""Snippets of README, guide and pages, each document run in order as one program; and links.

A snippet below ``<!-- not run: reason -->`` has to be Python, and is not run.
"""

import inspect
import re
from pathlib import Path
from unittest import mock

import pytest

from orchestra_strategy.data import VIEWS
from orchestra_strategy.data.readers.loading import READERS

ROOT = Path(__file__).parents[1]
PAGES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
READMES = ["README.md", "README.zh-CN.md"]
GUIDES = ["CUSTOM_STRATEGY_GUIDE.md", "CUSTOM_STRATEGY_GUIDE.zh-CN.md"]
DOCUMENTS = ["CONTRIBUTING.md", "SECURITY.md", *GUIDES, *READMES, *PAGES]
TRANSLATED = {page.replace(".zh.", "."): page for page in PAGES if page.endswith(".zh.md")}
WITHOUT_SNIPPETS = {
    *(
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/architecture.md",
        "docs/cli.md",
        "docs/parameters.md",
    ),
    *("docs/reliability.md", "docs/results.md", "docs/scale.md", "docs/examples.md", "docs/api.md"),
    *("docs/index.md", "docs/index.zh.md"),
}
MINUTES = {"docs/quick_start.md"}
PUBLIC = ("audit", "data", "evaluation", "users")
SNIPPET = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+) -->\n)?```python\n(?P<code>.*?)^```",
    flags=re.DOTALL | re.MULTILINE,
)


def text_of(document):
    return (ROOT / document).read_text(encoding="utf-8")


def snippets_of(document):
    """(code, reason not to run it or None) of each."""
    return [(m["code"], m["reason"]) for m in SNIPPET.finditer(text_of(document))]


# What is in Chinese has the snippets of the English document, which need not run twice.
ONCE = sorted({*DOCUMENTS} - WITHOUT_SNIPPETS - {GUIDES[1], *TRANSLATED.values()})


@pytest.mark.parametrize(
    "document", [pytest.param(d, marks=[pytest.mark.slow] * (d in MINUTES)) for d in ONCE]
)
def test_snippets_run(document, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what they write goes with it
    snippets = [compile(code, document, "exec") for code, why in snippets_of(document) if not why]
    assert snippets, f"{document} has no snippet"
    namespace = {"__name__": f"snippets_of_{Path(document).stem.lower()}"}
    with mock.patch.dict(VIEWS):  # what a snippet adds goes with it
        for snippet in snippets:
            exec(snippet, namespace)
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("document", sorted({*DOCUMENTS} - WITHOUT_SNIPPETS))
def test_snippets_import_public_names_alone(document):
    code = "".join(code for code, _ in snippets_of(document))
    rooms = "|".join(PUBLIC)
    ours = re.findall(r"^\s*(?:from|import) (orchestra_strategy\S*)", code, flags=re.MULTILINE)
    wrong = [name for name in ours if not re.fullmatch(rf"orchestra_strategy(\.({rooms}))?", name)]
    assert wrong == []


def skeleton_of(document):
    """Levels of headings, blocks of code, numbers of rows of tables and of list items, in order."""
    marks = []
    for block in re.split(r"(^```.*?^```)", text_of(document), flags=re.DOTALL | re.MULTILINE):
        if block.startswith("```"):
            marks.append(block)
            continue
        for line in block.splitlines():
            heading = re.match(r"#+", line)
            marks += [heading[0]] if heading else []
            marks += [line[0]] if line.startswith(("|", "- ")) else []
    return marks


def test_both_guides_say_the_same_in_the_same_order():
    english, chinese = map(skeleton_of, GUIDES)
    assert english == chinese
    names = [re.findall(r"`([A-Za-z_][\w.]*)", prose_of(guide)) for guide in GUIDES]
    assert set(names[0]) == set(names[1])


@pytest.mark.parametrize("english", sorted(TRANSLATED))
def test_a_page_in_two_languages_says_the_same_in_the_same_order(english):
    assert skeleton_of(TRANSLATED[english]) == skeleton_of(english)


@pytest.mark.parametrize("document", sorted(WITHOUT_SNIPPETS))
def test_no_snippet_goes_unrun(document):
    assert not snippets_of(document)


def test_few_snippets_are_not_run():
    unrun = {}
    for document in DOCUMENTS:
        for code, why in snippets_of(document):
            if why:
                compile(code, document, "exec")
                unrun[document] = why
    assert unrun == {
        "docs/cluster.md": "needs the other party",
        "docs/data.md": "needs one process for each party",
        "docs/what_leaves.md": "an SPU has no debug mode",
    }


def prose_of(document):
    return re.sub(r"^```.*?^```", "", text_of(document), flags=re.DOTALL | re.MULTILINE)


def anchors_of(document):
    """What GitHub makes of the headings; the second one of the same words ends in -1."""
    found = []
    for heading in re.findall(r"^#+ (.+)$", prose_of(document), flags=re.MULTILINE):
        found.append(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    times = {anchor: found.count(anchor) for anchor in found}
    return {f"{a}-{i}" if i else a for a, count in times.items() for i in range(count)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(document)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in anchors_of(file.resolve().relative_to(ROOT)), f"{document}: {target}"


@pytest.mark.parametrize("readme", READMES)
def test_a_readme_leads_to_every_page(readme):
    pages = {*PAGES} - {*TRANSLATED.values()}
    if readme == "README.zh-CN.md":
        pages = {TRANSLATED.get(page, page) for page in pages}
    assert [page for page in sorted(pages) if f"]({page})" not in text_of(readme)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_are_there(document):
    roots = ("benchmarks", "experiments", "examples", "orchestra_strategy", "scripts", "tests")
    named = re.findall(rf"`((?:{'|'.join(roots)})/[\w./]*)`", text_of(document))
    modules = re.findall(r"python -m ([a-z_.]+)", text_of(document))
    files = [ROOT / name for name in named]
    files += [
        (
            ROOT / module.replace(".", "/") / "__main__.py"
            if (ROOT / module.replace(".", "/")).is_dir()
            else ROOT / f"{module.replace('.', '/')}.py"
        )
        for module in modules
    ]
    assert [str(file.relative_to(ROOT)) for file in files if not file.exists()] == []


@pytest.mark.parametrize("readme", READMES)
def test_the_readme_is_short(readme):
    assert len(text_of(readme).splitlines()) <= 155


def test_of_each_data_source_every_option_is_named():
    options = {
        parameter.name
        for reader in READERS.values()
        for parameter in inspect.signature(reader).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    told = text_of("docs/data.md")
    assert [name for name in sorted(options) if f"`{name}`" not in told] == []


@pytest.mark.parametrize("readme", READMES)
def test_a_readme_has_the_measured_numbers_of_the_page(readme):
    numbers = re.findall(r"\d[\d.]*(?: ± [\d.]+)?", text_of("docs/results.md"))
    cells = re.findall(r"\d[\d.]*(?: ± [\d.]+)", text_of(readme))
    assert len(cells) == 9
    assert [cell for cell in cells if cell not in numbers] == []


def test_both_readmes_have_the_same_parts():
    def parts(readme):
        text = text_of(readme)
        code = "".join(re.sub(r" *#.*", "", code) for code, _ in snippets_of(readme))
        links = re.findall(r"\]\(([^)\s#]+)", re.sub(r"[.]zh(-CN)?[.]md", ".md", text))
        return len(re.findall(r"^## ", text, flags=re.MULTILINE)), code, links[1:]

    assert parts("README.md") == parts("README.zh-CN.md")
