"""What the users' configurations may hold."""

import math
from dataclasses import dataclass
from typing import Any

from orchestra_strategy.errors import ParameterError, did_you_mean
from orchestra_strategy.privacy.local import LocalPrivacy
from orchestra_strategy.users.reading import count, flag, local_privacy, required, setting

__all__ = ["AggregateSettings", "StepSettings", "UserSettings"]


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
            num_data_points=None if points in (None, "all") else count("num_data_points", points),
            provide_num_data_points=flag(cfg, "provide_num_data_points"),
            provide_labels=flag(cfg, "provide_labels"),
            provide_buffers=flag(cfg, "provide_buffers"),
            provide_local_hyperparams=flag(cfg, "provide_local_hyperparams"),
            seed=count("seed", setting(cfg, "seed", 0), least=0),
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
            count(name, required(cfg, "cfg_user", name, "an integer"))
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
        per_round = count("users_per_round", setting(cfg, "users_per_round", num_users))
        if per_round > num_users:
            raise ParameterError(
                f"Expected `users_per_round` to be at most the number of users, got {per_round} "
                f"> {num_users}."
            )
        least = count("min_users", setting(cfg, "min_users", per_round))
        if least > per_round:
            raise ParameterError(
                f"Expected `min_users` to be at most `users_per_round`, got {least} > {per_round}."
            )
        return cls(weights, per_round, least)
