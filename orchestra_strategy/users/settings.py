"""The users' configurations, read by attribute and checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.errors import ParameterError, did_you_mean
from orchestra_strategy.privacy.local_privacy import LocalPrivacy

__all__ = [
    "AggregateSettings",
    "StepSettings",
    "UserSettings",
    "flag",
    "local_privacy",
    "required",
    "setting",
]


@dataclass(frozen=True)
class UserSettings:
    """What all users have.

    Attributes:
        num_data_points: Samples to use; None for all that the user owns.
        provide_num_data_points: Whether the server is told their number,
        provide_labels: their sorted labels,
        provide_buffers: the model's buffers after training,
        provide_local_hyperparams: learning rate, steps, samples and labels per step.
        seed: Root of the user's random streams.
        privacy: The active defences.
    """

    num_data_points: int | None
    provide_num_data_points: bool
    provide_labels: bool
    provide_buffers: bool
    provide_local_hyperparams: bool
    seed: int
    privacy: LocalPrivacy

    @classmethod
    def read(cls, cfg: Any, streaming: bool = False) -> "UserSettings":
        """Read and check a configuration; a streaming user needs no ``num_data_points``."""
        points: Any = None
        if not streaming:
            points = required(cfg, "cfg_user", "num_data_points", "an integer, or 'all'")
        return cls(
            num_data_points=(
                None if points in (None, "all") else as_count("num_data_points", points)
            ),
            provide_num_data_points=flag(cfg, "provide_num_data_points"),
            provide_labels=flag(cfg, "provide_labels"),
            provide_buffers=flag(cfg, "provide_buffers"),
            provide_local_hyperparams=flag(cfg, "provide_local_hyperparams"),
            seed=as_count("seed", setting(cfg, "seed", 0), minimum=0),
            privacy=local_privacy(cfg),
        )


@dataclass(frozen=True)
class StepSettings:
    """What a user with several local steps has besides; None where its owner says it otherwise.

    Attributes:
        num_local_updates: Number of steps; None if batches are streamed.
        num_data_per_local_update_step: Samples per step; None if batches are streamed.
        local_learning_rate: Learning rate; None if the optimizer is given.
    """

    num_local_updates: int | None
    num_data_per_local_update_step: int | None
    local_learning_rate: float | None

    @classmethod
    def read(
        cls, cfg: Any, num_data_points: int | None, streaming: bool, own_optimizer: bool
    ) -> "StepSettings":
        """Read and check a configuration."""
        rate = None
        if not own_optimizer:
            rate = required(cfg, "cfg_user", "local_learning_rate", "a number > 0")
            if not (isinstance(rate, (int, float)) and math.isfinite(rate) and rate > 0):
                raise ParameterError(
                    f"Expected `local_learning_rate` to be a number > 0, got {rate!r}."
                )
        if streaming:
            return cls(None, None, rate)
        steps, size = (
            as_count(name, required(cfg, "cfg_user", name, "an integer"))
            for name in ("num_local_updates", "num_data_per_local_update_step")
        )
        if num_data_points is not None and size > num_data_points:
            raise ParameterError(
                "Expected `num_data_per_local_update_step` to be at most `num_data_points`, got "
                f"{size} > {num_data_points}."
            )
        return cls(steps, size, rate)


@dataclass(frozen=True)
class AggregateSettings:
    """How the updates of several users become one.

    Attributes:
        aggregate_weights: ``"uniform"``, or ``"num_samples"`` for weights by sample count.
        users_per_round: How many users, drawn without replacement, take part in a call.
        min_users: With fewer that succeed, a call fails.
    """

    aggregate_weights: str
    users_per_round: int
    min_users: int

    @classmethod
    def read(cls, cfg: Any, num_users: int) -> "AggregateSettings":
        """Read and check a configuration for ``num_users`` users."""
        weights = setting(cfg, "aggregate_weights", "uniform")
        known = ("uniform", "num_samples")
        if weights not in known:
            raise ParameterError(
                f"Expected `aggregate_weights` to be one of {', '.join(map(repr, known))}, got "
                f"{weights!r}; {did_you_mean(str(weights), known)}."
            )
        per_round = as_count("users_per_round", setting(cfg, "users_per_round", num_users))
        if per_round > num_users:
            raise ParameterError(
                f"Expected `users_per_round` to be at most the number of users, got {per_round} "
                f"> {num_users}."
            )
        least = as_count("min_users", setting(cfg, "min_users", per_round))
        if least > per_round:
            raise ParameterError(
                f"Expected `min_users` to be at most `users_per_round`, got {least} > {per_round}."
            )
        return cls(weights, per_round, least)


_MISSING = object()


def setting(cfg: Any, name: str, default: Any = None) -> Any:
    """Return an optional entry; one that is absent or None has the default."""
    value = cfg.get(name) if isinstance(cfg, Mapping) else getattr(cfg, name, None)
    return default if value is None else value


def required(cfg: Any, owner: str, name: str, rule: str) -> Any:
    """Return an entry that must be there.

    Raises:
        ParameterError: It is absent or None; the message names it and says what it is for.
    """
    value = setting(cfg, name, _MISSING)
    if value is _MISSING:
        raise ParameterError(f"Expected `{owner}` to have `{name}` ({rule}), got none.")
    return value


def flag(cfg: Any, name: str) -> bool:
    """Return a switch that is off by default.

    Raises:
        ParameterError: It is neither True nor False; ``"no"`` would otherwise mean yes.
    """
    value = setting(cfg, name, False)
    if not isinstance(value, bool):
        raise ParameterError(f"Expected `{name}` to be True or False, got {value!r}.")
    return value


def local_privacy(cfg: Any) -> LocalPrivacy:
    """Read ``local_diff_privacy``; absent means no defence.

    Raises:
        ParameterError: A value out of range, or an unknown name: a defence that is misspelt must
            not be silently off.
    """
    node = setting(cfg, "local_diff_privacy")
    if node is None or isinstance(node, LocalPrivacy):
        return node or LocalPrivacy()
    known = [f.name for f in fields(LocalPrivacy)]
    for name in node if isinstance(node, Mapping) else getattr(node, "__dict__", ()):
        if name not in known and not str(name).startswith("_"):
            raise ParameterError(
                f"Expected `local_diff_privacy` to have known entries, got `{name}`; "
                f"{did_you_mean(str(name), known)}."
            )
    given = {name: setting(node, name) for name in known}
    return LocalPrivacy(**{name: value for name, value in given.items() if value is not None})
