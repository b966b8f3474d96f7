"""YAML files as people write them: with line numbers, no key twice, and 1e-3 a number."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from orchestra_strategy.errors import ParameterError

__all__ = ["Place", "YamlFile", "parse_value", "parse_yaml", "read_yaml"]

Place = tuple[str | int, ...]

_LONGEST = 2**20
_FLOAT = re.compile(
    r"^[-+]?(?:(?:\d[\d_]*)?\.\d[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*\.?(?:[eE][-+]?\d+)|\d[\d_]*\."
    r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """YAML 1.1 without aliases, and with 1e-3 as a number, which that takes for a word."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(
                None, None, "an alias (`*`), which is not supported", mark
            )
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


class YamlFile(NamedTuple):
    """What a file says, and where.

    Attributes:
        values: The mapping that it holds.
        lines: The line, counted from 1, of each key and item, by its place.
    """

    values: dict[str, Any]
    lines: dict[Place, int]


def parse_yaml(text: str) -> Any:
    """Return the value that a piece of YAML stands for, such as one of ``--set``.

    Raises:
        yaml.YAMLError: It is none.

    >>> parse_yaml("1e-3"), parse_yaml("[1, a]"), parse_yaml("")
    (0.001, [1, 'a'], None)
    """
    return yaml.load(text, _Loader)


def parse_value(option: str, text: str) -> tuple[str, Any]:
    """Return name and value of an option such as ``--set name=value``, the value as YAML.

    Raises:
        ParameterError: There is no ``=``, or the value is no YAML.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ParameterError(f"Expected `{option}` to be name=value, got {text!r}.")
    try:
        return name, parse_yaml(value)
    except yaml.YAMLError:
        raise ParameterError(
            f"Expected the value of `{option} {name}` to be YAML, got {value!r}."
        ) from None


def read_yaml(path: Path) -> YamlFile:
    """Read a file that holds one mapping.

    Raises:
        ParameterError: It cannot be read, is no YAML, holds something else, or a key twice; the
            line is named.
    """
    try:
        content = path.expanduser().read_bytes()
    except OSError as error:
        raise ParameterError(
            f"Expected a YAML file in `{path}`, got: {error.strerror or error}."
        ) from error
    if len(content) > _LONGEST:
        raise ParameterError(f"Expected `{path}` to be a YAML file of at most 1 MiB, got more.")
    try:
        # A loader by hand, because the nodes know their lines and the values do not.
        loader = _Loader(content.decode("utf-8"))
        node = loader.get_single_node()
        lines: dict[Place, int] = {}
        _find_lines(node, (), lines, path)
        values = None if node is None else loader.construct_document(node)
    except RecursionError:
        raise ParameterError(f"Expected `{path}` to be YAML, got it nested too deep.") from None
    except (UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, ParameterError):
            raise
        raise ParameterError(
            f"`{path}`{_where(error)}: Expected YAML, got {_why(error)}."
        ) from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise ParameterError(f"Expected `{path}` to hold settings by name, got {found}.")
    return YamlFile(values, lines)


def _find_lines(node: Any, place: Place, lines: dict[Place, int], path: Path) -> None:
    """Note the line of everything below a node, and refuse keys that stand there twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:str":
                raise ParameterError(
                    f"`{path}`, line {line}: Expected a name before the colon, got "
                    f"{key.value!r}; put it in quotes if it is one."
                )
            inner = (*place, key.value)
            if inner in lines:
                raise ParameterError(
                    f"`{path}`, line {line}: Expected `{'.'.join(map(str, inner))}` once, got it "
                    f"in line {lines[inner]} already; take one of them out."
                )
            lines[inner] = line
            _find_lines(value, inner, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            inner = (*place, number)
            lines[inner] = value.start_mark.line + 1
            _find_lines(value, inner, lines, path)


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f", line {mark.line + 1}"


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "bytes that are no UTF-8"
    return getattr(error, "problem", None) or type(error).__name__
