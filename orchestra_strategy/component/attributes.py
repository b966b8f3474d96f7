"""SecretFlow's attributes, made from the package's own configurations and read back.

A platform draws a form from them. They know numbers, texts, choices and bounds, but neither None
nor dictionaries: what may be None is 0 or an empty text for it, a dictionary is written as JSON.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import make_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
import numpy as np
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from orchestra_strategy.component.meanings import meaning_of
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.host_component import Field, Interval

__all__ = ["Changed", "attributes_of", "structure", "values_from"]

_NONE = {int: " (0: none)", float: " (0: none)", str: " (empty: none)"}

Attributes = dict[str, tuple[Any, Any]]


class Changed(NamedTuple):
    """What a form shows in another way than the configuration has it.

    Attributes:
        text: The explanation.
        choices: Of a text that has some which its type does not tell.
        default: Another one.
    """

    text: str | None = None
    choices: list[str] | None = None
    default: Any = None


def attributes_of(
    config_class: type[BaseModel],
    names: Iterable[str] | None = None,
    documented: Any = None,
    changed: Mapping[str, Changed] | None = None,
) -> Attributes:
    """Return the type and SecretFlow's field for each field of a configuration.

    Args:
        config_class: The configuration.
        names: Which of its fields; by default all.
        documented: Whose docstring explains them, if not the configuration's.
        changed: What a form shows in another way, by name.
    """
    fields = config_class.model_fields
    return {
        name: _attribute(
            fields[name],
            meaning_of(documented or config_class, name),
            (changed or {}).get(name, Changed()),
        )
        for name in (fields if names is None else names)
    }


def structure(name: str, attributes: Attributes, bases: tuple[type, ...] = ()) -> Any:
    """Return a class with these attributes, as SecretFlow reads a group of them."""
    fields = [(key, kind, field) for key, (kind, field) in attributes.items()]
    return make_dataclass(name, fields, bases=bases)


def values_from(group: Any, config_class: type[BaseModel], names: Iterable[str]) -> dict[str, Any]:
    """Return values of a configuration from a component's attributes.

    Args:
        group: The component, or a group of its attributes.
        config_class: The configuration that they were made from.
        names: Which of its fields.

    Raises:
        ParameterError: The text of a dictionary is no JSON of one.
    """
    values = {}
    for name in names:
        kind, may_be_none = _kind(config_class.model_fields[name])
        value = getattr(group, name)
        if may_be_none and value == kind():
            value = None
        elif kind is dict:
            value = _dictionary(name, value)
        elif kind is float:
            # The platform's message has 4 bytes for it: 0.003 comes as 0.003000000026.
            value = float(str(np.float32(value)))
        values[name] = value
    return values


def _attribute(field: FieldInfo, meaning: str, changed: Changed) -> tuple[Any, Any]:
    kind, may_be_none = _kind(field)
    choices, default = changed.choices, changed.default
    if default is None:
        default = field.get_default(call_default_factory=True)
    if get_origin(kind) is Literal:
        choices, kind = list(get_args(kind)), str
    bound = _bound(field, may_be_none) if kind in (int, float) else None
    if may_be_none:
        meaning, default = meaning + _NONE[kind], kind() if default is None else default
    if kind is dict:
        meaning, kind, default = f"{meaning} As JSON.", str, json.dumps(default)
    return kind, Field.attr(
        desc=changed.text or meaning,
        default=kind(default),
        choices=choices,
        bound_limit=bound,
        is_optional=True,
    )


def _kind(field: FieldInfo) -> tuple[Any, bool]:
    """Return a field's type without None, and whether it may be None."""
    annotation: Any = field.annotation
    may_be_none = False
    if get_origin(annotation) in (Union, UnionType):
        kinds = [one for one in get_args(annotation) if one is not NoneType]
        (annotation,), may_be_none = kinds, True
    return (dict if get_origin(annotation) is dict else annotation), may_be_none


def _bound(field: FieldInfo, from_zero: bool) -> Any:
    """Return the range of a number; one that may be None starts at 0, which stands for it."""
    lower: Any = None
    upper: Any = None
    lower_closed = upper_closed = False
    for rule in field.metadata:
        if isinstance(rule, annotated_types.Ge):
            lower, lower_closed = rule.ge, True
        elif isinstance(rule, annotated_types.Gt):
            lower = rule.gt
        elif isinstance(rule, annotated_types.Le):
            upper, upper_closed = rule.le, True
        elif isinstance(rule, annotated_types.Lt):
            upper = rule.lt
    if from_zero:
        lower, lower_closed = 0, True
    if lower is None and upper is None:
        return None
    return Interval(lower, upper, lower_closed, upper_closed)


def _dictionary(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        value = error
    if not isinstance(value, dict):
        raise ParameterError(
            f'Expected `{name}` to be a dictionary as JSON, such as {{"noise": 0.1}}, got {text!r}.'
        )
    return value
