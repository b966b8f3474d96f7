"""Registration with the host: checked, and repeatable."""

import importlib
import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from orchestra_strategy import host
from orchestra_strategy.errors import ParameterError, RegistrationError, did_you_mean

__all__ = ["check_dispatch", "lookup_strategy", "register_strategy", "registered_strategies"]

T = TypeVar("T", bound=type)

_OURS = "orchestra_strategy.strategies."

_ADVICE = (
    "Write `from typing import Tuple` and `-> Tuple[np.ndarray, int]`, in a module without "
    "`from __future__ import annotations`: SecretFlow reads from this annotation that `train_step` "
    'returns two things, and otherwise fails with "cannot unpack non-iterable PYUObject".'
)


def check_train_step(cls: type) -> None:
    """Refuse a class whose ``train_step`` would break inside FLModel.

    Raises:
        RegistrationError: With the reason.
    """
    train_step = getattr(cls, "train_step", None)
    if not inspect.isfunction(train_step) or getattr(train_step, "__isabstractmethod__", False):
        raise RegistrationError(f"Expected `{cls.__name__}` to define `train_step`, got none.")
    got = inspect.signature(train_step).return_annotation
    if got is inspect.Signature.empty:
        found = "no annotation"
    elif isinstance(got, str):
        found = f"the string {got!r}"
    elif getattr(got, "_name", None) == "Tuple" and len(typing.get_args(got)) == 2:
        return
    else:
        found = f"`{got!r}`"
    raise RegistrationError(
        f"Expected `{cls.__name__}.train_step` to be annotated `-> Tuple[np.ndarray, int]`, "
        f"got {found}. {_ADVICE}"
    )


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
    """
    cls: Any = host.dispatcher_table().get(f"{strategy_name}_{backend}")
    if hasattr(cls, "checked_config"):
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
