"""Options of the form ``name=value`` that may be given more than once."""

import json
from collections.abc import Sequence
from typing import Any

from orchestra_strategy.errors import ParameterError

__all__ = ["name_values"]


def name_values(option: str, given: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value``; values are JSON, and words need no quotes.

    Raises:
        ParameterError: There is no ``=``, or a value is neither.

    >>> name_values("--data-option", ["image_size=32", "mode=RGB", 'columns=["age", "height"]'])
    {'image_size': 32, 'mode': 'RGB', 'columns': ['age', 'height']}
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ParameterError(
                f"Expected `{option}` to be name=value, got {text!r}; such as image_size=32."
            )
        found[name] = _json_value(f"{option} {name}", value)
    return found


def _json_value(name: str, text: str) -> Any:
    """Read a JSON value; words need no quotes.

    Raises:
        ParameterError: It is neither; named is ``name``.
    """
    try:
        return json.loads(text)
    except ValueError:
        if text and not set(text) & set("{}[]\"'"):
            return text
        raise ParameterError(f"Expected `{name}` to be a JSON value, got {text}.") from None
