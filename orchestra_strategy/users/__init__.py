"""Federated users: server payload in, shared update out, and nothing else leaves the party."""

from orchestra_strategy.users.aggregate import MultiUserAggregate
from orchestra_strategy.users.construct import construct_user
from orchestra_strategy.users.dataloader import construct_dataloader
from orchestra_strategy.users.multi_step import UserMultiStep
from orchestra_strategy.users.single_step import UserSingleStep

__all__ = [
    "MultiUserAggregate",
    "UserMultiStep",
    "UserSingleStep",
    "construct_dataloader",
    "construct_user",
]
