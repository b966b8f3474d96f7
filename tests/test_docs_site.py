"""The docs site's menu and API page; that it builds, without a warning, is `make docs`."""

import re
from pathlib import Path

import federated_orchestra
from orchestra_strategy.public_names import WITH_HOST, WITHOUT_HOST

ROOT = Path(__file__).parents[1]
SITE = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
MENU = SITE[SITE.index("\nnav:") :]
OF_ROOT = re.findall(
    r'"([\w.]+)": "\w[\w.-]+\.md"', (ROOT / "scripts/site_hooks.py").read_text(encoding="utf-8")
)


def test_the_menu_leads_to_every_page_once():
    shown = re.findall(r"[\w]+\.md$", MENU, flags=re.MULTILINE)
    pages = [path.name for path in (ROOT / "docs").glob("*.md")] + OF_ROOT
    assert len(OF_ROOT) == 5
    assert sorted(shown) == sorted(page for page in pages if ".zh." not in page)


def test_the_menu_is_in_two_languages():
    titles = re.findall(r"^ +- ([^:\n]+):", MENU, flags=re.MULTILINE)
    translations = SITE[SITE.index("nav_translations:") : SITE.index("  - autorefs:")]
    translated = re.findall(r"^ {12}([^:\n]+): \S", translations, flags=re.MULTILINE)
    assert sorted(titles) == sorted(translated)


def test_the_api_page_has_every_public_name_once():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    names = re.findall(r"^::: orchestra_strategy\.(\w+)$", page, flags=re.MULTILINE)
    rooms = {"audit", "data", "evaluation", "users"}
    assert sorted(names) == sorted({**WITH_HOST, **WITHOUT_HOST, **dict.fromkeys(rooms)})
    of_trainer = re.findall(r"^::: federated_orchestra\.(\w+)$", page, flags=re.MULTILINE)
    assert sorted(of_trainer) == sorted(federated_orchestra.__all__)


def test_the_glossary_has_the_words_that_puzzle_readers():
    text = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| ([^|]+?) \|", text[text.index("## Glossary") :], flags=re.MULTILINE)[
        2:
    ]
    assert {"PYU", "round 0", "Dirichlet", "echo", "route", "epsilon"} <= {*words}
    assert words == sorted(words, key=lambda word: word.strip("`").lower())


def test_nothing_is_fetched_by_who_reads_the_site():
    assert "font: false" in SITE
    assert not re.search(r"extra_(css|javascript)", SITE)
