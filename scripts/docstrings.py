"""What docstrings need on the API page: doctests as code, and Sphinx's roles as plain code.

The page is made by mkdocstrings, which loads this as an extension of griffe (``mkdocs.yml``).
"""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^(?P<indent> *)>>> (?:.*\n?)(?:(?P=indent)\S.*\n?)*", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")


def as_markdown(text: str) -> str:
    """Return a docstring for Markdown: doctests in fences, ``:func:`a.b``` as `b` in backticks."""
    fenced = _DOCTEST.sub(
        lambda m: f"{m['indent']}```pycon\n{m[0].rstrip()}\n{m['indent']}```\n", text
    )
    return _ROLE.sub(r"`\1`", fenced).rstrip()


class Docstrings(griffe.Extension):
    """Changes every docstring that is read."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
