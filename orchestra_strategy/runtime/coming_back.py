"""Parties that were lost and come back: they are taken in after a checkpoint."""

from typing import Any

from orchestra_strategy import host
from orchestra_strategy.checkpoints.driver import Checkpoints
from orchestra_strategy.runtime.cluster_session import absent_are_back

__all__ = ["ComingBack", "PartiesBack"]


class PartiesBack(BaseException):
    """Ends a training at a checkpoint, as all parties could go on from it together."""


class ComingBack(host.Callback):  # type: ignore[misc]
    """FLModel callback: ends the training when all absent parties call to be taken in.

    Args:
        server: The PYU whose process answers for all: each party must do the same.
        checkpoints: Tells whether the round is written.
    """

    def __init__(self, server: Any, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.server, self.checkpoints = server, checkpoints

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Ask the server.

        Raises:
            PartiesBack: They do.
        """
        # Asked here, in each party's own process; the server's answer counts.
        back = absent_are_back()
        if self.checkpoints.up_to_date and host.reveal(self.server(lambda: back)()):
            raise PartiesBack
