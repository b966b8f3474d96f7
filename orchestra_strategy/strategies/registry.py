"""Registration with the host: checked, and repeatable."""

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from orchestra_strategy import host
from orchestra_strategy.errors import ParameterError, RegistrationError, did_you_mean
from orchestra_strategy.strategies.class_checks import check_class, check_train_step
from orchestra_strategy.strategies.hooks import StrategyHooks

__all__ = ["check_dispatch", "lookup_strategy", "register_strategy", "registered_strategies"]

T = TypeVar("T", bound=type)

_OURS = "orchestra_strategy.strategies."


def register_strategy(*, strategy_name: str, backend: str = "torch") -> Callable[[T], T]:
    """Register a strategy class with SecretFlow; use it like SecretFlow's own decorator.

    The same class may be registered again (re-import, reload, a notebook cell that runs twice): the
    newest wins. Another class under a taken name is refused.

    Args:
        strategy_name: What users write in ``FLModel(strategy=...)``.
        backend: ``"torch"``.

    Raises:
        RegistrationError: The class would break FLModel, or the name is another class's.
    """
    if backend != "torch":
        raise RegistrationError(f"Expected `backend` to be 'torch', got {backend!r}.")

    def register(cls: T) -> T:
        check_train_step(cls)
        if issubclass(cls, StrategyHooks):
            check_class(cls)
        # The names of SecretFlow's own strategies, and of this package's, count as taken.
        host.load_builtin_strategies()
        if not cls.__module__.startswith(_OURS):
            load_ours()
        table = host.dispatcher_table()
        name = f"{strategy_name}_{backend}"
        holder = table.get(name)
        if holder is not None:
            if _identity(holder) != _identity(cls):
                raise RegistrationError(
                    f"Expected `strategy_name` to be free, got {strategy_name!r}, which belongs to "
                    f"`{_identity(holder)}`; choose another name."
                )
            del table[name]
        host.host_register(strategy_name=strategy_name, backend=backend)(cls)
        return cls

    return register


def load_ours() -> None:
    """Register every strategy of this package."""
    importlib.import_module(f"{_OURS}built_in")


def _identity(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def registered_strategies() -> list[str]:
    """Return every registered name, the host's own included, e.g. ``"orchestra_torch"``; sorted."""
    host.load_builtin_strategies()
    load_ours()
    return sorted(name for name in host.dispatcher_table() if name.endswith("_torch"))


def check_dispatch(strategy_name: str, backend: str, **kwargs: Any) -> None:
    """Refuse what FLModel was given for one of our strategies, before it starts a worker.

    Args:
        strategy_name: As given; of another package's strategies nothing is looked at.
        backend: As given.
        **kwargs: What the worker would get.

    Raises:
        ParameterError: Parameters or wiring cannot work.
        RegistrationError: The class cannot; SecretFlow's decorator looks at nothing.
    """
    cls: Any = host.dispatcher_table().get(f"{strategy_name}_{backend}")
    if isinstance(cls, type) and issubclass(cls, StrategyHooks):
        check_train_step(cls)
        check_class(cls)
        cls.checked_config(kwargs)


def lookup_strategy(strategy_name: str) -> type[Any]:
    """Return the class registered for the torch backend under a name.

    Raises:
        ParameterError: Unknown name; the nearest known one is named.
    """
    table = host.dispatcher_table()
    host.load_builtin_strategies()
    load_ours()
    if f"{strategy_name}_torch" not in table:
        known = [name.removesuffix("_torch") for name in table if name.endswith("_torch")]
        raise ParameterError(
            f"Expected `strategy` to be a registered one, got {strategy_name!r}; "
            f"{did_you_mean(strategy_name, known)}."
        )
    return table[f"{strategy_name}_torch"]
