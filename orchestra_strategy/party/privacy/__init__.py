"""The protection of a party's data: one object for each value of the parameter ``privacy``."""

from typing import Any

from orchestra_strategy.party.privacy.no_privacy import NoPrivacy
from orchestra_strategy.party.privacy.protected_records import RecordLevel
from orchestra_strategy.party.privacy.protected_users import UserLevel
from orchestra_strategy.party.privacy.shared_users import SharedUserLevel

__all__ = ["UNITS", "NoPrivacy", "RecordLevel", "SharedUserLevel", "UserLevel", "unit_of"]

UNITS: dict[str, type[NoPrivacy]] = {
    unit.name: unit for unit in (NoPrivacy, UserLevel, RecordLevel)
}
"""The units that are protected, by the parameter ``privacy``."""


def unit_of(config: Any) -> type[NoPrivacy]:
    """Return the class for a strategy's parameters."""
    return SharedUserLevel if config.noise == "shared" else UNITS[config.privacy]
