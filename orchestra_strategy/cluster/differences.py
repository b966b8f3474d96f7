"""Comparison, by name, of all that must be the same at every party."""

from collections.abc import Mapping

from orchestra_strategy.errors import PeersDifferError

__all__ = ["refuse_differences"]

_ABSENT = "nothing"


def refuse_differences(values: Mapping[str, Mapping[str, str]]) -> None:
    """Compare what each party says.

    Args:
        values: A text by name, by party.

    Raises:
        PeersDifferError: Something is not the same at all; each such name is listed with each
            party's value.
    """
    names = dict.fromkeys(name for party in values.values() for name in party)
    found = []
    for name in names:
        each = {party: said.get(name, _ABSENT) for party, said in values.items()}
        if len(set(each.values())) > 1:
            found.append(f"`{name}`: " + ", ".join(f"{p} {_short(v)}" for p, v in each.items()))
    if found:
        raise PeersDifferError(
            f"Expected all parties to have the same settings, got {'; '.join(found)}. Give each "
            "party the same job file."
        )


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."
