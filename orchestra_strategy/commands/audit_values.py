"""The configuration of an audit as its command line and its file give it."""

import argparse
from pathlib import Path
from typing import Any

from orchestra_strategy.commands.audit_command import DEFAULTS
from orchestra_strategy.commands.name_values import name_values
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.files import parse_json

__all__ = ["audit_values"]


def audit_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the configuration as loose values: the file's, then what was given beside it."""
    values = _from_file(arguments.config) if arguments.config else {}
    for name in (*DEFAULTS, "user_types", "attacks"):
        given = getattr(arguments, name)
        if given is not None:
            values[name] = given
    if arguments.set:
        given = name_values("--set", arguments.set)
        values["parameters"] = {**values.get("parameters", {}), **given}
    privacy = _privacy(arguments)
    if privacy is not None:
        values["privacy"] = privacy
    return values


def _privacy(arguments: argparse.Namespace) -> list[dict[str, Any]] | None:
    """Return the settings that the options ask for; None if none is given."""
    options = {name: getattr(arguments, name) for name in ("epsilon", "noise", "clip")}
    given = [name for name, value in options.items() if value is not None]
    if arguments.privacy is None:
        if not given:
            return None
        raise ParameterError(
            f"Expected `--privacy` with `--{given[0]}`, got none; say what it protects, 'user' or "
            "'record'."
        )
    if given and set(arguments.privacy) == {"none"}:
        raise ParameterError(
            f"Expected `--privacy` with `--{given[0]}` to name 'user' or 'record', got 'none' "
            f"alone, which has no {given[0]}; add one, or leave `--{given[0]}` out."
        )
    strengths = [{"target_epsilon": e} for e in options["epsilon"] or ()]
    strengths += [{"noise_multiplier": z} for z in options["noise"] or ()]
    clip = {} if options["clip"] is None else {"clip_norm": options["clip"]}
    settings: list[dict[str, Any]] = []
    for unit in arguments.privacy:
        if unit == "none":
            settings.append({})
        else:
            for strength in strengths or [{"target_epsilon": 8.0}]:
                settings.append({"privacy": unit, **strength, **clip})
    return settings


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else error
        raise ParameterError(
            f"Expected `--config` to be a JSON file, got `{path}`: {found}."
        ) from error
    if not isinstance(values, dict):
        raise ParameterError(
            f"Expected `--config` to hold one JSON object, got {type(values).__name__}."
        )
    return values
