"""Checks of a strategy's class, before any of its objects is made."""

import inspect
import typing
from typing import Any

from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.errors import RegistrationError
from orchestra_strategy.strategies.hooks import StrategyHooks

__all__ = ["check_class", "check_train_step"]

_ADVICE = (
    "Write `from typing import Tuple` and `-> Tuple[np.ndarray, int]`, in a module without "
    "`from __future__ import annotations`: SecretFlow reads from this annotation that `train_step` "
    'returns two things, and otherwise fails with "cannot unpack non-iterable PYUObject".'
)
_ON_THE_SERVER = "aggregate_weights"


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


def check_class(cls: Any) -> None:
    """Refuse a strategy that could not train, or of which something would be passed over.

    Args:
        cls: A subclass of :class:`StrategyHooks`, as it was written.

    Raises:
        RegistrationError: Its objective is missing, its parameters, losses or ``aggregate_weights``
            have a form that is not looked at, or a hook takes other arguments.
    """
    if not cls.overrides("make_objective"):
        raise RegistrationError(
            f"Expected `{cls.__name__}` to define `make_objective`, got none: return a function of "
            "model and batch from it, or subclass a strategy that has an objective."
        )
    named = any("objective_class" in vars(c).get("__annotations__", {}) for c in cls.__mro__)
    if named and not hasattr(cls, "objective_class"):
        raise RegistrationError(
            f"Expected `{cls.__name__}` to name its `objective_class`, got none; or subclass "
            "`FederatedStrategy` and define `make_objective`."
        )
    _check_config_class(cls)
    _check_metric_names(cls)
    _check_aggregate_weights(cls)
    for name, hook in vars(StrategyHooks).items():
        if inspect.isfunction(hook) and not name.startswith("_"):
            _check_arguments(cls, name, hook)


def _check_config_class(cls: Any) -> None:
    own = cls.config_class
    wanted = next(
        (base.config_class for base in cls.__mro__[1:] if hasattr(base, "config_class")),
        StrategyConfig,
    )
    if not isinstance(own, type) or not issubclass(own, wanted):
        raise RegistrationError(
            f"Expected `config_class` of `{cls.__name__}` to be a subclass of "
            f"`{wanted.__name__}`, which has the parameters that it inherits, got {_name(own)}; "
            f"write `class {cls.__name__}Config({wanted.__name__})` and add your fields."
        )
    settings = getattr(getattr(cls, "objective_class", None), "settings_class", None)
    if settings is None:
        return
    fields = getattr(settings, "_fields", None)
    if fields is None:
        raise RegistrationError(
            f"Expected `settings_class` of the objective of `{cls.__name__}` to be a NamedTuple, "
            f"got {_name(settings)}."
        )
    missing = [name for name in fields if name not in own.model_fields]
    if missing:
        raise RegistrationError(
            f"Expected `config_class` of `{cls.__name__}` to have the settings of its objective, "
            f"got `{own.__name__}` without {', '.join(f'`{name}`' for name in missing)}; add the "
            "fields."
        )


def _check_metric_names(cls: Any) -> None:
    names = cls.metric_names
    fine = isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)
    if not fine or "train_loss" not in names or not all(n.startswith("train_") for n in names):
        raise RegistrationError(
            f"Expected `metric_names` of `{cls.__name__}` to be a tuple with 'train_loss' and "
            f"'train_NAME' for each part of the loss, got {names!r}."
        )


def _check_aggregate_weights(cls: Any) -> None:
    if not isinstance(inspect.getattr_static(cls, _ON_THE_SERVER), staticmethod | classmethod):
        raise RegistrationError(
            f"Expected `aggregate_weights` of `{cls.__name__}` to be a static method, got one with "
            "`self`: it runs on the server, where there is no party's object. Write "
            "`@staticmethod` above `def aggregate_weights(weights_list, sample_counts)`, and make "
            "functions of the methods that it calls."
        )
    _check_arguments(cls, _ON_THE_SERVER, getattr(StrategyHooks, _ON_THE_SERVER))


def _check_arguments(cls: Any, name: str, hook: Any) -> None:
    """Refuse a hook that cannot be called with the arguments of the one that it overrides."""
    wanted = inspect.signature(hook)
    own = getattr(cls, name)
    try:
        inspect.signature(own).bind(*wanted.parameters)
    except TypeError:
        raise RegistrationError(
            f"Expected `{name}` of `{cls.__name__}` to take ({', '.join(wanted.parameters)}), got "
            f"({', '.join(inspect.signature(own).parameters)})."
        ) from None


def _name(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else type(value).__name__
