"""What an installation brings: extras, the supported Python, and the lock file."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from orchestra_strategy.errors import HostError
from orchestra_strategy.host_find import check_versions

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def extra(name):
    """Return the one requirement of an extra."""
    return Requirement(re.search(rf'^{name} = \["([^"]+)"\]', PROJECT, flags=re.MULTILINE)[1])


def usable(version):
    try:
        return check_versions(version, has_secretflow_fl=True, has_sfl=False) == "secretflow_fl"
    except HostError:
        return False


def test_the_extra_brings_the_versions_that_are_accepted():
    wanted = extra("secretflow").specifier
    for version in ("1.10.0b1", "1.11.0b0", "1.12.0b0", "1.13.0b0", "1.14.0b0", "1.14.0"):
        assert wanted.contains(version, prereleases=True) == usable(version), version


def test_secretflow_is_no_hard_requirement_and_sfl_an_alternative():
    hard = re.search(r"^dependencies = \[\n(.*?)^\]", PROJECT, flags=re.MULTILINE | re.DOTALL)[1]
    assert not re.search(r'^ *"secretflow', hard, flags=re.MULTILINE)
    assert extra("sfl").name == "secretflow-lite"


def test_python_is_the_one_that_the_pins_resolve_on():
    python = SpecifierSet(re.search(r'^requires-python = "([^"]+)"', PROJECT, re.MULTILINE)[1])
    assert [v for v in ("3.9", "3.10", "3.11", "3.12") if v in python] == ["3.10"]


def test_the_lock_file_has_exact_versions_and_no_addresses():
    lines = LOCK.splitlines()
    assert "secretflow==1.13.0b0" in lines
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.+!]+", line)] == []


def test_files_beside_the_modules_are_installed_with_them():
    package = ROOT / "orchestra_strategy"
    listed = re.search(r"^orchestra_strategy = \[(.*?)\]", PROJECT, re.MULTILINE | re.DOTALL)[1]
    beside = {
        str(path.relative_to(package))
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert "evaluation/templates/report.html" in beside
    assert beside == set(re.findall(r'"([^"]+)"', listed))
