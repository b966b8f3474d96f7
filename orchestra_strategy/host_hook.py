"""Registration that waits for SecretFlow: ours join its strategies when the first one is asked for.

``FLModel(strategy="orchestra", backend="torch", ...)`` must work once ``orchestra_strategy`` has
been imported, before or after SecretFlow. But importing SecretFlow takes seconds, which a command's
help cannot wait for. So nothing is imported here; SecretFlow's dispatcher, once it is loaded, calls
back before it looks up a name.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["register_when_asked"]

_DISPATCHERS = frozenset(
    f"{root}.ml.nn.fl.strategy_dispatcher" for root in ("secretflow_fl", "sfl")
)
_OURS = "orchestra_strategy.strategies.built_in"
_CHECKS = "orchestra_strategy.strategies.registry"


def register_when_asked() -> None:
    """Have SecretFlow's dispatcher import this package's strategies before it looks up a name.

    It asks them, too, whether they can be built in the way that FLModel was called: on the driver,
    where no worker has been started yet.
    """
    for name in _DISPATCHERS & sys.modules.keys():
        _call_back(sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds nothing itself; sees to it that a dispatcher calls back as soon as it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _DISPATCHERS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((found for found in specs if found is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _call_back(module)

            loader.exec_module = exec_module
        return spec


def _call_back(module: ModuleType) -> None:
    dispatcher = getattr(module, "_strategy_dispatcher", None)
    if dispatcher is None or hasattr(dispatcher, "_orchestra_strategy"):
        return
    dispatch = dispatcher.dispatch

    def with_ours(name: str, *args: Any, **kwargs: Any) -> Any:
        importlib.import_module(_OURS)
        importlib.import_module(_CHECKS).check_dispatch(name, *args, **kwargs)
        return dispatch(name, *args, **kwargs)

    dispatcher.dispatch = with_ours
    dispatcher._orchestra_strategy = True  # once is enough, after a reload, too
