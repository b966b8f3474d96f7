import ast
from pathlib import Path

import pytest

from orchestra_strategy import evaluation

FILES = sorted(Path(evaluation.__file__).parent.rglob("*.py"))


def imported(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_public_names_exist_and_are_sorted():
    assert evaluation.__all__ == sorted(evaluation.__all__)
    assert all(hasattr(evaluation, name) for name in evaluation.__all__)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports_only_through_its_doors(path):
    names = list(imported(ast.walk(ast.parse(path.read_text()))))
    own = {name.split(".")[1] for name in names if name.startswith("orchestra_strategy.")}
    tools = {"errors", "files", "global_randomness", "rng", "threads"}
    assert own <= {"algorithms", "data", "evaluation", "privacy"} | tools
    assert not {name.split(".")[0] for name in names} & {"secretflow", "secretflow_fl", "sfl"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_matplotlib_is_never_imported_at_the_top(path):
    # The top level only: neither inside functions nor under `if TYPE_CHECKING`.
    top = ast.parse(path.read_text()).body
    assert not [name for name in imported(top) if name.split(".")[0] == "matplotlib"]
