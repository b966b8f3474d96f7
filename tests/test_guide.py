"""Snippets of README, guide and pages, each document run in order as one program; and links."""

import re
from pathlib import Path

import pytest

from orchestra_strategy.aggregation.server_options import ServerOptions
from orchestra_strategy.strategies.registry import lookup_strategy, registered_strategies

ROOT = Path(__file__).parents[1]
PAGES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
DOCUMENTS = ["CONTRIBUTING.md", "CUSTOM_STRATEGY_GUIDE.md", "README.md", "README.zh-CN.md", *PAGES]
WITHOUT_SNIPPETS = {
    *("CONTRIBUTING.md", "docs/architecture.md", "docs/parameters.md", "docs/results.md")
}


def text_of(document):
    return (ROOT / document).read_text(encoding="utf-8")


def snippets_of(document):
    return re.findall(r"^```python\n(.*?)^```", text_of(document), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("document", sorted({*DOCUMENTS} - WITHOUT_SNIPPETS))
def test_snippets_run(document, capsys):
    snippets = snippets_of(document)
    assert snippets, f"{document} has no snippet"
    namespace = {"__name__": f"snippets_of_{Path(document).stem.lower()}"}
    for snippet in snippets:
        exec(compile(snippet, document, "exec"), namespace)
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("document", sorted(WITHOUT_SNIPPETS))
def test_no_snippet_goes_unrun(document):
    assert not snippets_of(document)


def anchors_of(document):
    headings = re.findall(r"^#+ (.+)$", text_of(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), f"{document}: {target}"
        if anchor:
            assert anchor in anchors_of(file.resolve().relative_to(ROOT)), f"{document}: {target}"


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 150


def test_every_parameter_is_explained():
    told = text_of("docs/parameters.md")
    names = set(ServerOptions.model_fields)
    for name in registered_strategies():
        cls = lookup_strategy(name.removesuffix("_torch"))
        if cls.__module__.startswith("orchestra_strategy."):
            names |= set(cls.config_class.model_fields)
            assert f"`{name.removesuffix('_torch')}`" in told
    assert not [name for name in sorted(names) if f"| `{name}` |" not in told]
