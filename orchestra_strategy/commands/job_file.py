"""A job's settings: a YAML file, changed by ``--set``, checked with the line at fault."""

import argparse
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from orchestra_strategy.commands.own_modules import import_modules
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.commands.quiet_import import load_host
from orchestra_strategy.commands.yaml_file import Place, parse_value, read_yaml
from orchestra_strategy.errors import OrchestraError, ParameterError

if TYPE_CHECKING:
    from federated_orchestra import TrainerConfig
    from orchestra_strategy.config_problems import Problem

__all__ = ["add_job", "job_to_use", "read_job", "read_job_as", "resolved_yaml"]

ConfigT = TypeVar("ConfigT", bound="TrainerConfig")


def add_job(parser: SentenceParser) -> None:
    """Declare the job's file, ``--set`` and ``--print-config``."""
    parser.add_argument(
        "job", type=Path, metavar="job.yaml", help="the job's settings, see docs/cli.md"
    )
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="A.B=VALUE",
        help="change a setting, such as rounds=10 or parameters.lr=0.01; may be repeated",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print all settings as they are used, defaults included, and end",
    )


def job_to_use(arguments: argparse.Namespace) -> "TrainerConfig | None":
    """Return a job with the user's own modules loaded; None where it was only to be printed.

    Args:
        arguments: Of a parser with :func:`add_job` and ``add_import``.
    """
    import_modules(arguments.modules)
    config = read_job(arguments)
    if arguments.print_config:
        print(resolved_yaml(config), end="")
        return None
    return config


def read_job(arguments: argparse.Namespace) -> "TrainerConfig":
    """Return the settings of a training, checked; see :func:`read_job_as`.

    A job with ``parties`` is one of :class:`~orchestra_strategy.commands.cluster_job.ClusterJob`.
    """
    load_host()
    from federated_orchestra import TrainerConfig
    from orchestra_strategy.commands.cluster_job import ClusterJob

    of_parties = "parties" in read_yaml(arguments.job).values
    return read_job_as(ClusterJob if of_parties else TrainerConfig, arguments)


def read_job_as(config_class: type[ConfigT], arguments: argparse.Namespace) -> ConfigT:
    """Return the settings that the job's file and ``--set`` make together, checked.

    The strategy's own parameters are checked, too.

    Args:
        config_class: A TrainerConfig, or one with more fields.
        arguments: Of a parser with :func:`add_job`.

    Raises:
        ParameterError: A file cannot be read, or a setting is unknown or out of range; each with
            its line, or as the ``--set`` that it comes from.
    """
    load_host()
    from orchestra_strategy.config_problems import checked

    file = read_yaml(arguments.job)
    values, changed = _changed(file.values, arguments.changes)
    config, problems = checked(config_class, values, "a job")
    if config is not None:
        problems = _of_the_strategy(config)
    if config is None or problems:
        sources = {place: f"`--set {'.'.join(map(str, place))}`: " for place in changed}
        sources |= {
            place: f"`{arguments.job}`, line {line}: "
            for place, line in file.lines.items()
            if place not in sources
        }
        raise ParameterError("\n".join(_source(p, sources) + p.sentence for p in problems))
    return config


def resolved_yaml(config: "TrainerConfig") -> str:
    """Return all of a job's settings as YAML, those of the strategy with their defaults."""
    values = config.model_dump(mode="json")
    values["parameters"] = _parameters_of(config).model_dump(mode="json")
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _changed(values: dict[str, Any], changes: Sequence[str]) -> tuple[dict[str, Any], list[Place]]:
    """Return the values with the changes of ``--set``, and their places."""
    result = deepcopy(values)
    places: list[Place] = []
    for change in changes:
        dotted, value = parse_value("--set", change)
        *parents, last = dotted.split(".")
        inner = result
        for name in parents:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ParameterError(
                    f"Expected `--set {dotted}` to change a setting within `{name}`, which is "
                    f"{inner!r} and has none."
                )
        inner[last] = value
        places.append((*parents, last))
    return result, places


def _parameters_of(config: "TrainerConfig") -> Any:
    from orchestra_strategy.config import parse_config
    from orchestra_strategy.runtime.checks import our_strategy

    return parse_config(our_strategy(config.strategy).config_class, config.parameters)


def _of_the_strategy(config: "TrainerConfig") -> list["Problem"]:
    """Return what is wrong with the strategy's name, its parameters or its views."""
    from orchestra_strategy.config_problems import Problem, checked
    from orchestra_strategy.runtime.checks import our_strategy

    try:
        cls = our_strategy(config.strategy)
    except ParameterError as error:
        return [Problem(("strategy",), str(error))]
    of = f"strategy `{config.strategy}`"
    parameters, problems = checked(cls.config_class, config.parameters, of)
    if parameters is not None and hasattr(cls, "views_for"):
        problems = _of_the_views(cls, parameters)
    return [Problem(("parameters", *place), sentence) for place, sentence in problems]


def _of_the_views(cls: Any, parameters: Any) -> list["Problem"]:
    from orchestra_strategy.config_problems import Problem
    from orchestra_strategy.data import VIEWS

    try:
        cls.views_for(parameters)
    except OrchestraError as error:
        place = "view_options" if parameters.views in VIEWS else "views"
        return [Problem((place,), str(error))]
    return []


def _source(problem: "Problem", sources: dict[Place, str]) -> str:
    """Return where a value comes from, or what is nearest around it."""
    for length in range(len(problem.place), 0, -1):
        if problem.place[:length] in sources:
            return sources[problem.place[:length]]
    return ""
