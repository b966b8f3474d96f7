"""Tells the user when the pretext's loss is worse than guessing: the learning rate is too high."""

import logging
import math
from typing import Any

from orchestra_strategy import host

__all__ = ["GUESSING", "WorseThanGuessing"]

_log = logging.getLogger(__name__)

GUESSING = math.log(4)
"""The cross entropy of a guess among four classes: quarters of a turn, or what views replaced."""

_LOSS = "train_degeneracy"
_FAR_ABOVE = 1.1  # a head that has just been made is a few per cent above


class WorseThanGuessing(host.Callback):  # type: ignore[misc]
    """FLModel callback that warns once if the pretext's loss is far above that of guessing.

    A classifier can always guess. One that does worse is thrown about by its own steps, and so is
    the encoder behind it: nothing has collapsed, and yet little is learnt.

    Args:
        config: The strategy's parameters.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.watching = getattr(config, "deg_weight", 0.0) > 0

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Compare the loss of the last round; the parties' answers are waited for."""
        if not self.watching:
            return
        loss = float(self._calc_aggregated_metrics().get(_LOSS, 0.0))
        if loss <= _FAR_ABOVE * GUESSING:
            return
        self.watching = False
        remedy = "" if self.config.deg_length else ", or set `deg_length=4.0`"
        _log.warning(
            "`%s` is %.2f in epoch %d, where guessing one of 4 %s has %.2f: the steps are "
            "too long for it, and it disturbs the encoder. Lower `lr` (%g)%s.",
            _LOSS,
            loss,
            int(epoch or 0) + 1,
            "answers" if getattr(self.config, "views", "") == "table" else "rotations",
            GUESSING,
            self.config.lr,
            remedy,
        )
