"""The check of a whole number above its minimum, for options of all kinds."""

from numbers import Integral
from typing import Any

from orchestra_strategy.errors import ParameterError

__all__ = ["as_count"]


def as_count(name: str, value: Any, minimum: int = 1) -> int:
    """Return ``value`` as an ``int`` if it is a whole number of at least ``minimum``.

    Args:
        name: The argument's name, for the message.
        value: A Python or numpy integer; ``bool`` is no count, though Python calls it an ``int``.
        minimum: The smallest allowed value.

    Raises:
        ParameterError: If it is anything else.

    >>> as_count("num_parties", 3)
    3
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ParameterError(f"Expected `{name}` to be an integer >= {minimum}, got {value!r}.")
    return int(value)
