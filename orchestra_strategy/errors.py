"""The package's errors: one small tree over ``ValueError``.

Every message follows one grammar: the argument in backticks, the rule, the value that was got, and
the remedy where there is one.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

__all__ = [
    "CheckpointError",
    "ClusterError",
    "DataError",
    "HostError",
    "ModelError",
    "OrchestraError",
    "ParameterError",
    "PeerFailedError",
    "PeerLostError",
    "PeersDifferError",
    "PrivacyError",
    "RegistrationError",
    "ReplyError",
    "did_you_mean",
]


class OrchestraError(ValueError):
    """Base of all errors that this package raises on purpose.

    Attributes:
        exit_code: What ``orchestra-fl`` ends with.
    """

    exit_code: ClassVar[int] = 1


class ParameterError(OrchestraError):
    """A parameter is unknown, out of its range, or contradicts another one."""

    exit_code = 2


class DataError(OrchestraError):
    """A party's data cannot be trained or evaluated on."""


class ModelError(OrchestraError):
    """A model lacks a part that the objective needs."""


class PrivacyError(OrchestraError):
    """A privacy budget is spent, or something would leave a party beside its guarantee."""


class CheckpointError(OrchestraError):
    """A checkpoint cannot be written or read, or belongs to another training."""


class RegistrationError(OrchestraError):
    """A strategy class would break inside the host, so it is not registered."""


class ReplyError(OrchestraError):
    """What a party or the server sent does not have the agreed form."""


class HostError(OrchestraError):
    """SecretFlow is missing, of an unsupported version, or wired in a way that cannot work."""


class ClusterError(OrchestraError):
    """A job over several machines cannot start or go on."""


class PeersDifferError(ClusterError):
    """The parties do not agree on what to do; each difference is named."""

    exit_code = 3


class PeerLostError(ClusterError):
    """A party does not answer any more.

    Attributes:
        party: Its name, where that is known.
    """

    exit_code = 4
    party: str | None = None


class PeerFailedError(ClusterError):
    """A party has stopped with an error, or was interrupted."""

    exit_code = 5


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint naming the nearest known name, and all the known names.

    >>> did_you_mean("temprature", ["temperature", "lr"])
    'did you mean `temperature`? Known: `lr`, `temperature`'
    >>> did_you_mean("xyz", ["lr"])
    'known: `lr`'
    """
    names = sorted(known)
    listed = ", ".join(f"`{n}`" for n in names)
    nearest = get_close_matches(name, names, n=1)
    return f"did you mean `{nearest[0]}`? Known: {listed}" if nearest else f"known: {listed}"
