"""Findings about a configuration's values, in the grammar of the package's errors."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ValidationError

from orchestra_strategy.errors import did_you_mean

__all__ = ["Problem", "checked"]

ModelT = TypeVar("ModelT", bound=BaseModel)


class Problem(NamedTuple):
    """A value that a configuration cannot have.

    Attributes:
        place: Names from the outermost to the one at fault; empty if several are.
        sentence: What was expected, and what was got.
    """

    place: tuple[str | int, ...]
    sentence: str


def checked(
    config_class: type[ModelT], values: Mapping[str, Any], of: str
) -> tuple[ModelT | None, list[Problem]]:
    """Build a configuration, or find all that is wrong; see ``parse_config``."""
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
    try:
        return config_class.model_validate(plain), []
    except ValidationError as error:
        # Unknown names first: what else is wrong often follows from them.
        details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        return None, [_problem(config_class, detail, of) for detail in details]


def _problem(config_class: type[BaseModel], detail: Any, of: str) -> Problem:
    """Turn one of pydantic's findings into the package's error grammar."""
    place = detail["loc"]
    if detail["type"] == "extra_forbidden":
        *parents, name = place
        owner = f"of `{'.'.join(map(str, parents))}`" if parents else f"of {of}"
        hint = did_you_mean(str(name), _names_in(config_class, parents))
        return Problem(place, f"Expected a parameter {owner}, got `{name}`; {hint}.")
    hint = _nearest(detail) if detail["type"] == "literal_error" else ""
    return Problem(place, _sentence(place, detail["msg"], detail["input"], hint))


def _names_in(config_class: Any, parents: Sequence[str | int]) -> Sequence[str]:
    """Return the names that the model at a place has."""
    for parent in parents:
        if isinstance(parent, str) and parent in getattr(config_class, "model_fields", ()):
            annotation = config_class.model_fields[parent].annotation
            inner = (annotation, *get_args(annotation))  # of `Model | None`, the model
            config_class = next((one for one in inner if hasattr(one, "model_fields")), None)
    return list(getattr(config_class, "model_fields", ()))


def _sentence(location: tuple[Any, ...], message: str, got: Any, hint: str = "") -> str:
    """Return what was expected, and what was got."""
    if message.startswith("Value error, "):  # a rule of ours, already in our words
        return message.removeprefix("Value error, ") + "."
    name = ".".join(str(part) for part in location)
    rule = message.removeprefix("Input should be ")
    return f"Expected `{name}` to be {rule[0].lower() + rule[1:]}, got {got!r}{hint or '.'}"


def _nearest(detail: Mapping[str, Any]) -> str:
    """Return a hint naming the nearest of the words that are known; empty if none is near."""
    known = re.findall(r"'([^']*)'", detail["msg"])
    nearest = get_close_matches(str(detail["input"]), known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
