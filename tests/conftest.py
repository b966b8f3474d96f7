"""For all tests: Ray's priority, and the order, in which files that start processes come first.

Workers take one file after another. A file of minutes that is begun last keeps one of them busy
while the others have nothing left to do.
"""

import os
from typing import Any

# Ray's workers are nice to others by 15: beside busy tests they would hardly run at all.
os.environ.setdefault("RAY_worker_niceness", "0")

_STARTS_PROCESSES = ("ray", "cluster")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    slow = {
        item.path for item in items for name in _STARTS_PROCESSES if item.get_closest_marker(name)
    }
    items.sort(key=lambda item: item.path not in slow)  # stable: the order stays otherwise
