"""docs/parameters.md says of every parameter what the code says: name, default and meaning.

A row that is missing or stale is shown as it has to be, so that it can be copied into the page.
"""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from federated_orchestra import ModelConfig, TrainerConfig
from orchestra_strategy import orchestra_model, registered_strategies
from orchestra_strategy.aggregation.fields import AggregationFields, ClusteringFields
from orchestra_strategy.aggregation.server_options import ServerOptions
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.data import VIEWS
from orchestra_strategy.privacy.settings import PrivacyFields
from orchestra_strategy.strategies.orchestra_config import OrchestraConfig
from orchestra_strategy.strategies.registry import lookup_strategy

PACKAGE = "orchestra_strategy."  # not those that a snippet of the guide registers
PAGE = (Path(__file__).parents[1] / "docs" / "parameters.md").read_text(encoding="utf-8")
SHARED = {
    "Every strategy": StrategyConfig,
    "The server's part": AggregationFields,
    "Differential privacy": PrivacyFields,
    "Orchestra and its kin": OrchestraConfig,
    "Global clusters": ClusteringFields,
}
OURS = {
    name.removesuffix("_torch"): cls
    for name in registered_strategies()
    if (cls := lookup_strategy(name.removesuffix("_torch"))).__module__.startswith(PACKAGE)
}


def fields_of(cls):
    """Fields of a configuration or of views, with their defaults."""
    if dataclasses.is_dataclass(cls):
        return {field.name: field.default for field in dataclasses.fields(cls)}
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in cls.model_fields.items()
    }


def meanings_of(documented):
    """What a docstring says of each attribute, or argument, in one line of Markdown."""
    found, name = {}, None
    section = re.split(r"^(?:Attributes|Args):\n", inspect.getdoc(documented), flags=re.MULTILINE)
    for line in section[1].splitlines() if len(section) > 1 else ():
        if line and not line.startswith(" "):
            break
        if start := re.match(r"    (\w+): (.*)", line):
            name = start[1]
            found[name] = start[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    roles = r":\w+:`~?(?:[\w.]*\.)?(\w+)`"
    return {k: re.sub(roles, r"`\1`", v).replace("``", "`") for k, v in found.items()}


def rows_of(cls, documented=None):
    """The rows of a class's own parameters."""
    meanings, defaults = meanings_of(documented or cls), fields_of(cls)
    shown = {n: {} if isinstance(d, BaseModel) else d for n, d in defaults.items()}
    return [f"| `{n}` | `{d!r}` | {meanings[n]} |" for n, d in shown.items() if n in meanings]


def expected():
    """Heading -> rows of its table."""
    tables = {heading: rows_of(cls) for heading, cls in SHARED.items()}
    for name, cls in OURS.items():
        if cls.config_class not in SHARED.values() and (rows := rows_of(cls.config_class)):
            tables[f"`{name}`"] = rows
    tables["`server_aggregation(...)`"] = rows_of(ServerOptions)
    tables["`FederatedOrchestraTrainer(...)`"] = rows_of(TrainerConfig)
    tables["The trainer's `model`"] = rows_of(ModelConfig, orchestra_model)
    return tables | {f"Views `{name}`": rows_of(cls) for name, cls in VIEWS.items()}


def found():
    """Heading -> rows of its table, as the page has them; tables of parameters alone."""
    sections = re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", PAGE, flags=re.MULTILINE)
    return {
        heading: re.findall(r"^\| `.*$", text, flags=re.MULTILINE)
        for heading, text in sections
        if "| parameter | default | meaning |" in text
    }


@pytest.mark.parametrize("heading", sorted(expected()))
def test_a_table_says_what_the_code_says(heading):
    assert found().get(heading) == expected()[heading]


def test_no_table_is_of_something_that_is_gone():
    assert found().keys() == expected().keys()


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_parameter_of_a_strategy_is_explained(name):
    told = {row.split("`")[1] for rows in found().values() for row in rows}
    assert f"| `{name}` |" in PAGE
    assert fields_of(OURS[name].config_class).keys() <= told


def test_a_default_of_its_own_is_told():
    """Where a strategy changes what it has inherited."""
    usual = {k: v for cls in SHARED.values() for k, v in fields_of(cls).items()}
    inherited = {k for cls in SHARED.values() for k in fields_of(cls)}
    rows = [
        f"| `{strategy}` | `{name}` | `{default!r}` |"
        for strategy, cls in OURS.items()
        for name, default in fields_of(cls.config_class).items()
        if name in inherited
        and name not in meanings_of(cls.config_class)
        and default != usual[name]
    ]
    assert rows
    assert [row for row in rows if row not in PAGE] == []
