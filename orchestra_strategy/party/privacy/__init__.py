"""The protection of a party's data: one object for each value of the parameter ``privacy``."""

from typing import Any

from orchestra_strategy.party.privacy.no_privacy import NoPrivacy
from orchestra_strategy.party.privacy.protected_records import RecordLevel
from orchestra_strategy.party.privacy.protected_users import UserLevel
from orchestra_strategy.party.privacy.rounded_users import RoundedUserLevel
from orchestra_strategy.party.privacy.shared_users import SharedUserLevel

__all__ = [
    "UNITS",
    "NoPrivacy",
    "RecordLevel",
    "RoundedUserLevel",
    "SharedUserLevel",
    "UserLevel",
    "unit_of",
]

UNITS: dict[str, type[NoPrivacy]] = {
    unit.name: unit for unit in (NoPrivacy, UserLevel, RecordLevel)
}
"""The units that are protected, by the parameter ``privacy``."""


def unit_of(config: Any) -> type[NoPrivacy]:
    """Return the class for a strategy's parameters."""
    if config.noise == "shared":
        return SharedUserLevel
    return UNITS[config.privacy] if config.payload_bits is None else RoundedUserLevel
