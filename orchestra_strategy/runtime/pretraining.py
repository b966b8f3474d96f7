"""An encoder trained on images of a random process: a start that costs no privacy."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from orchestra_strategy.algorithms.model import orchestra_model
from orchestra_strategy.data.random_processes import dead_leaves
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.runtime.checks import our_strategy
from orchestra_strategy.trained_encoder import TrainedEncoder

__all__ = ["pretrained"]

_log = logging.getLogger(__name__)

_PARAMETERS = {"local_epochs": 1, "batch_size": 64, "lr": 0.03, "health_samples": 0}


def pretrained(
    model: Mapping[str, Any],
    strategy: str = "fed_simclr",
    images: int = 4000,
    size: int = 32,
    epochs: int = 10,
    seed: int = 0,
    parameters: Mapping[str, Any] | None = None,
    tell: Callable[[int, float], None] | None = None,
) -> TrainedEncoder:
    """Train an encoder on :func:`~orchestra_strategy.data.random_processes.dead_leaves`.

    Args:
        model: Arguments of :func:`~orchestra_strategy.orchestra_model`.
        strategy: By whose objective; stepped by hand, so SecretFlow starts nothing.
        images: How many are made.
        size: Their side in pixels.
        epochs: Passes over them.
        seed: Of images and training.
        parameters: Of the strategy, beside batches of 64 and a learning rate of 0.03.
        tell: Called after each epoch with its number and loss.

    Raises:
        ParameterError: The model takes tables, or a parameter cannot be used.
    """
    options = {name: value for name, value in model.items() if name != "weights"}
    if options["backbone"] == "mlp":
        raise ParameterError("Expected a `backbone` for images, got 'mlp': there are images alone.")
    cls = our_strategy(strategy)
    build = partial(orchestra_model, **options, heads=cls.heads)
    views = "grey" if options["in_channels"] == 1 else "colour"
    own = {**_PARAMETERS, "views": views, "streams": "seed", "party": "random process"}
    party = cls(build, random_seed=seed, **{**own, **(parameters or {})})
    party.build_dataset(dead_leaves(images, size, options["in_channels"], seed))
    while party.rounds_done < epochs:
        before = party.rounds_done
        party.train_step(None, 0, 1)
        if tell is not None and party.rounds_done > before:
            tell(party.rounds_done, party.get_logs()["train_loss"])
    trained = {**options, "heads": tuple(cls.heads)}
    return TrainedEncoder(party.model, trained, seed, strategy, epochs, {})
