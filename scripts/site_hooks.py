"""What the docs site has beyond `docs/`: the documents of the root, and links that fit both places.

Links are written for a reader of the repository (``../CHANGELOG.md``); in the site these documents
are pages beside the others. MkDocs calls the ``on_*`` functions, see `hooks` in ``mkdocs.yml``.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import CombinedEvent, event_priority
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {  # page of the site -> document of the root
    "guide.md": "CUSTOM_STRATEGY_GUIDE.md",
    "guide.zh.md": "CUSTOM_STRATEGY_GUIDE.zh-CN.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
_LINK = re.compile(r"\]\((?P<path>[\w./-]+\.md)(?P<anchor>#[^)]*)?\)")


@event_priority(100)  # before the plug-in for languages, which sorts files by theirs
def _add(files: Any, config: Any) -> Any:
    for page in PAGES:
        files.append(File(page, config.docs_dir, config.site_dir, config.use_directory_urls))
    return files


@event_priority(-200)  # after it, as it makes new entries that look for them in `docs/`
def _find(files: Any, config: Any) -> Any:
    for file in files:
        if file.src_uri in PAGES:
            file.abs_src_path = str(ROOT / PAGES[file.src_uri])
    return files


on_files = CombinedEvent(_add, _find)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links between documents into links between pages."""
    of_root = {document: uri.replace(".zh.", ".") for uri, document in PAGES.items()}

    language = page.file.locale_alternate_of
    in_english = page.file.locale != language  # for want of a translation

    def in_site(match: re.Match[str]) -> str:
        path, anchor = match["path"].removeprefix("../"), match["anchor"] or ""
        if page.file.src_uri in PAGES:
            path = path.removeprefix("docs/")
        path = of_root.get(path, path)
        if in_english and path.replace(".md", f".{language}.md") in files.src_uris:
            anchor = ""  # it is one of the English headings
        # With the suffix of a language a link would leave the reader's language.
        return f"]({re.sub(r'[.]zh[.]md$', '.md', path)}{anchor})"

    return _LINK.sub(in_site, markdown)
