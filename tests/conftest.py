"""Order of the tests: files that start processes come first.

Workers take one file after another. A file of minutes that is begun last keeps one of them busy
while the others have nothing left to do.
"""

from typing import Any

_STARTS_PROCESSES = ("ray", "cluster")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    slow = {
        item.path for item in items for name in _STARTS_PROCESSES if item.get_closest_marker(name)
    }
    items.sort(key=lambda item: item.path not in slow)  # stable: the order stays otherwise
