"""Why a job ends early, in a form that travels: whose fault, of what kind, and a sentence."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from orchestra_strategy.errors import (
    ClusterError,
    OrchestraError,
    PeerFailedError,
    PeerLostError,
    PeersDifferError,
)

__all__ = ["Failure", "failure_of"]

Kind = Literal["lost", "error", "interrupted", "differ"]

_ERRORS: dict[Kind, type[ClusterError]] = {
    "lost": PeerLostError,
    "error": PeerFailedError,
    "interrupted": PeerFailedError,
    "differ": PeersDifferError,
}
# A peer's words are shown, so they are short and printable.
_LONGEST = 4_000


@dataclass(frozen=True)
class Failure:
    """Why a job cannot go on.

    Attributes:
        kind: A party is ``lost``, has stopped with an ``error``, was ``interrupted``, or the
            parties ``differ``.
        party: Which one it is about.
        text: A sentence.
    """

    kind: Kind
    party: str
    text: str

    def to_dict(self) -> dict[str, str]:
        """Return it in a form that JSON takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Failure":
        """Return what a peer has told, made safe to show."""
        kind: Kind = "error"
        for known in get_args(Kind):
            kind = known if values["kind"] == known else kind
        party, text = (
            "".join(c if c.isprintable() else " " for c in str(values[name])[:_LONGEST])
            for name in ("party", "text")
        )
        return cls(kind, party, text)

    def error(self, told_by: str | None = None) -> ClusterError:
        """Return it as an exception.

        Args:
            told_by: The party that this one knows it from; None if it has seen it itself.
        """
        told = "" if told_by in (None, self.party) else f" (told by {told_by})"
        error = _ERRORS[self.kind](f"{self.text}{told}")
        if isinstance(error, PeerLostError):
            error.party = self.party
        return error


def failure_of(error: BaseException, party: str) -> Failure:
    """Return what the peers are told of an error at this party.

    Texts of the package's own errors are made to be seen by peers; of any other, which may quote
    data, they get its kind alone.
    """
    if isinstance(error, PeersDifferError):
        return Failure("differ", party, str(error))
    if isinstance(error, PeerLostError):
        return Failure("lost", error.party or party, str(error))
    if isinstance(error, OrchestraError):
        return Failure("error", party, f"{party} has stopped: {error}")
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", party, f"{party} was interrupted by its user.")
    name = type(error).__name__
    return Failure("error", party, f"{party} has stopped with {name}; its own output says more.")
