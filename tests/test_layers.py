"""Who may import whom, and that the pure layers need no SecretFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "orchestra_strategy"
PURE = {"algorithms", "data", "privacy"}
WIRE = PURE | {"exchange"}
PARTY = WIRE | {"users", "evaluation", "checkpoints", "aggregation", "party"}
MAY_IMPORT = {
    "algorithms": PURE,
    "data": PURE,
    "privacy": PURE,
    "exchange": WIRE,
    "users": PURE | {"users"},
    "evaluation": PURE | {"evaluation"},
    "aggregation": WIRE | {"aggregation"},
    "checkpoints": WIRE | {"checkpoints"},
    "party": PARTY,
    "strategies": PARTY | {"strategies"},
    "audit": PARTY | {"strategies", "audit"},
    "cluster": {"cluster"},
    "runtime": PARTY | {"strategies", "cluster", "runtime"},
    "commands": PARTY | {"strategies", "audit", "cluster", "runtime", "commands"},
    "component": PARTY | {"strategies", "cluster", "runtime", "component"},
}
HOST_PACKAGES = {"secretflow", "secretflow_fl", "sfl", "spu", "fed"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules():
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_doors(path):
    room = path.relative_to(PACKAGE).parts[0]
    rooms = {i.split(".")[1] for i in imports(path) if i.startswith("orchestra_strategy.")}
    if room in MAY_IMPORT:
        assert rooms & set(MAY_IMPORT) <= MAY_IMPORT[room]


def test_only_host_names_secretflow():
    naming = {p.name for p in modules() if HOST_PACKAGES & {i.split(".")[0] for i in imports(p)}}
    assert [name for name in naming if not name.startswith("host")] == []
    literal = {p.name for p in modules() if '"secretflow' in p.read_text(encoding="utf-8")}
    others = {name for name in literal if not name.startswith("host")}
    assert others == {"__init__.py", "session.py"}


def test_only_the_outer_rooms_use_the_host():
    inner = WIRE | {"users", "evaluation", "aggregation", "audit"}
    using = {
        str(p.relative_to(PACKAGE))
        for p in modules()
        if p.relative_to(PACKAGE).parts[0] in inner and "orchestra_strategy.host" in imports(p)
    }
    assert using == {"data/shared_tables.py", "data/sources.py"}


def test_pure_layers_import_without_secretflow():
    program = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n.split('.')[0] in ('secretflow',) else find(n, *a)\n"
        "import orchestra_strategy as o, orchestra_strategy.algorithms.orchestra_objective\n"
        "import orchestra_strategy.users, orchestra_strategy.evaluation, orchestra_strategy.data\n"
        "assert not any(m.split('.')[0].startswith('secretflow') for m in sys.modules)\n"
        "print(o.__all__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "OrchestraFLModel" not in done.stdout


SAME_IN_EVERY_ROOM = {"settings", "table"}


def test_no_basename_stands_for_two_things():
    names = [p.stem for p in modules() if not p.stem.startswith("__")]
    twice = {name for name in names if names.count(name) > 1}
    assert twice <= SAME_IN_EVERY_ROOM


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_says_in_a_noun_phrase_what_it_is(path):
    told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert told
    first = told.split("\n")[0]
    assert first.endswith((".", ":"))
    if path.stem != "__init__":
        assert first.split()[0] not in {"What", "How", "Which", "Who", "Where", "From", "When"}


def test_the_tests_have_the_packages_rooms():
    rooms = {str(p.parent.relative_to(PACKAGE)) for p in PACKAGE.rglob("__init__.py")}
    for room in rooms - {".", "party/privacy", "audit/report"}:
        assert list((ROOT / "tests" / room).glob("test_*.py")), room
