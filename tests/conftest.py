"""For all tests: Ray's priority, and the order, in which files that take longest come first.

Workers take one file after another. A file of minutes that is begun last keeps one of them busy
while the others have nothing left to do.
"""

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

# Ray's workers are nice to others by 15: beside busy tests they would hardly run at all.
os.environ.setdefault("RAY_worker_niceness", "0")

_STARTS_PROCESSES = ("ray", "cluster")
_RUNS_PROGRAMS = ("test_demo.py", "test_examples.py", "test_guide.py")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    slow = {
        item.path for item in items for name in _STARTS_PROCESSES if item.get_closest_marker(name)
    }
    slow |= {item.path for item in items if item.path.name in _RUNS_PROGRAMS}
    items.sort(key=lambda item: item.path not in slow)  # stable: the order stays otherwise


@pytest.fixture
def log_levels_kept() -> Iterator[None]:
    """Put the levels of this package's loggers back: programs of users change them."""
    names = [n for n in logging.root.manager.loggerDict if n.startswith("orchestra_strategy")]
    names.append("orchestra_strategy")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for name in logging.root.manager.loggerDict:
        if name.startswith("orchestra_strategy"):
            logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
