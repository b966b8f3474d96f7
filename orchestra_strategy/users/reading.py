"""Reads configurations by attribute, from any kind of object.

A dataclass, a ``SimpleNamespace``, an OmegaConf node or a dictionary: all work. What is missing and
needed is named; what is missing and optional has the private default: nothing is told to the server
unless a ``provide_*`` flag says so.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from orchestra_strategy.errors import ParameterError, did_you_mean
from orchestra_strategy.privacy.local import LocalPrivacy

__all__ = ["count", "flag", "local_privacy", "required", "setting"]

_MISSING = object()


def setting(cfg: Any, name: str, default: Any = None) -> Any:
    """Return an optional entry; one that is absent or None has the default."""
    value = cfg.get(name) if isinstance(cfg, Mapping) else getattr(cfg, name, None)
    return default if value is None else value


def required(cfg: Any, owner: str, name: str, rule: str) -> Any:
    """Return an entry that must be there.

    Raises:
        ParameterError: It is absent or None; the message names it and says what it is for.
    """
    value = setting(cfg, name, _MISSING)
    if value is _MISSING:
        raise ParameterError(f"Expected `{owner}` to have `{name}` ({rule}), got none.")
    return value


def count(name: str, value: Any, least: int = 1) -> int:
    """Return an integer of at least ``least``.

    Raises:
        ParameterError: It is none.
    """
    try:
        number = value.__index__()
    except AttributeError:
        number = None
    if number is None or isinstance(value, bool) or number < least:
        raise ParameterError(f"Expected `{name}` to be an integer >= {least}, got {value!r}.")
    return int(number)


def flag(cfg: Any, name: str) -> bool:
    """Return a switch that is off by default.

    Raises:
        ParameterError: It is neither True nor False; ``"no"`` would otherwise mean yes.
    """
    value = setting(cfg, name, False)
    if not isinstance(value, bool):
        raise ParameterError(f"Expected `{name}` to be True or False, got {value!r}.")
    return value


def local_privacy(cfg: Any) -> LocalPrivacy:
    """Read ``local_diff_privacy``; absent means no defence.

    Raises:
        ParameterError: A value out of range, or an unknown name: a defence that is misspelt must
            not be silently off.
    """
    node = setting(cfg, "local_diff_privacy")
    if node is None or isinstance(node, LocalPrivacy):
        return node or LocalPrivacy()
    known = [f.name for f in fields(LocalPrivacy)]
    for name in node if isinstance(node, Mapping) else getattr(node, "__dict__", ()):
        if name not in known and not str(name).startswith("_"):
            raise ParameterError(
                f"Expected `local_diff_privacy` to have known entries, got `{name}`; "
                f"{did_you_mean(str(name), known)}."
            )
    given = {name: setting(node, name) for name in known}
    return LocalPrivacy(**{name: value for name, value in given.items() if value is not None})
