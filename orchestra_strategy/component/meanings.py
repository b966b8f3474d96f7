"""The sentence that a docstring has on each attribute, for people who see a form and no code."""

import inspect
import re
from typing import Any

__all__ = ["meaning_of"]

_ROLE = re.compile(r":\w+:`~?(?:[\w.]*\.)?(\w+)`")


def meaning_of(documented: Any, name: str) -> str:
    """Return what a docstring says of an attribute or argument.

    Args:
        documented: A function; or a class, which may also inherit what is said.
        name: The attribute.

    Raises:
        KeyError: Nothing is said.

    >>> class Settings:
    ...     '''Of a job.
    ...
    ...     Attributes:
    ...         lr: The learning
    ...             rate of ``SGD``.
    ...     '''
    >>> meaning_of(Settings, "lr")
    'The learning rate of SGD.'
    """
    for one in getattr(documented, "__mro__", (documented,)):
        if one.__doc__ and name in (told := _attributes(inspect.cleandoc(one.__doc__))):
            return told[name]
    raise KeyError(f"no docstring of {documented.__name__} says what `{name}` is")


def _attributes(text: str) -> dict[str, str]:
    """Return the texts of a docstring's section on attributes, or arguments."""
    found: dict[str, str] = {}
    name = None
    section = re.split(r"^(?:Attributes|Args):\n", text, flags=re.MULTILINE)
    for line in section[1].splitlines() if len(section) > 1 else ():
        if line and not line.startswith(" "):
            break
        if start := re.match(r"    (\w+): (.*)", line):
            name = start[1]
            found[name] = start[2]
        elif name is not None and line.strip():
            found[name] += f" {line.strip()}"
    return {key: _ROLE.sub(r"\1", value).replace("``", "") for key, value in found.items()}
