"""The kinds of user as the audit plays them: how many samples they share, and their words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestra_strategy.users import MultiUserAggregate, UserMultiStep, UserSingleStep

__all__ = ["KINDS", "UserKind"]


@dataclass(frozen=True)
class UserKind:
    """A kind of user.

    Attributes:
        sends: What its party sends, in words for the report.
        user: The class of :mod:`orchestra_strategy.users` that answers an attacked query.
        shares: Whether a gradient comes back, or the difference after local steps.
        steps: Local steps that the attacked samples are dealt to.
        users: Users that they are dealt to.
        unit: What privacy protects by default.
        clustering_steps: Of the server, in each of the audited training's rounds.
        training: Parameters of the audited training beside those of every kind.
    """

    sends: str
    user: type[UserSingleStep]
    shares: Literal["gradient", "update"]
    steps: int = 1
    users: int = 1
    unit: str = "record"
    clustering_steps: int = 100
    training: Mapping[str, Any] = field(default_factory=dict)


KINDS: dict[str, UserKind] = {
    "local_gradient": UserKind(
        sends="the party sends one averaged gradient of one batch each round",
        user=UserSingleStep,
        shares="gradient",
        clustering_steps=10,
    ),
    "local_update": UserKind(
        sends="the party trains on its own samples for several steps each round, and sends how "
        "the model has changed",
        user=UserMultiStep,
        shares="update",
        steps=2,
    ),
    "multiuser_aggregate": UserKind(
        sends="the party hosts many users, each of whom trains on its own samples, and sends the "
        "mean of how their models have changed",
        # Its users have one step each: attacked as if they were one user.
        user=MultiUserAggregate,
        shares="update",
        users=2,
        unit="user",
        # Steps of few samples, and many of them.
        training={"num_virtual_users": 20, "local_epochs": 2},
    ),
}
"""By the parameter ``user_type``."""
