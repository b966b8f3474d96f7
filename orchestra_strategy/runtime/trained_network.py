"""The network of a training: by its options, or as its owner hands it in."""

import hashlib
import re
from collections.abc import Collection, Mapping
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from orchestra_strategy.algorithms.model import OrchestraModel, orchestra_model
from orchestra_strategy.algorithms.own_network import fresh_network
from orchestra_strategy.errors import ModelError
from orchestra_strategy.global_randomness import first_weights_of
from orchestra_strategy.starting_weights import start_digest
from orchestra_strategy.weights_file import digest_of_file, is_state_file

__all__ = ["TrainedNetwork", "is_own_network", "settings_of"]


def is_own_network(model: Any) -> bool:
    """Whether a trainer's ``model`` is a network, or builds one, and not options of one."""
    return isinstance(model, nn.Module) or callable(model) or hasattr(model, "model_fn")


class TrainedNetwork:
    """What a trainer makes of its ``model``.

    Args:
        given: Options by name, or a network of one's own, see :func:`is_own_network`.
        heads: What the strategy trains; a network of one's own has its own.

    Attributes:
        channels: ``in_channels`` of the options, known of the data where it is None; None, too, for
            a network of one's own.
    """

    def __init__(self, given: Any, heads: Collection[str]) -> None:
        self.given = given
        self.heads = tuple(heads)
        self.own = is_own_network(given)
        self.channels: int | None = None if self.own else given.in_channels

    @property
    def asks_the_data(self) -> bool:
        """Whether the number of channels is still to be read off the data."""
        return not self.own and self.channels is None

    def learn(self, sample_shape: tuple[int, ...]) -> None:
        """Take the number of channels or columns of samples (F,), (H, W) or (C, H, W)."""
        self.channels = 1 if len(sample_shape) == 2 else sample_shape[0]

    def settings(self) -> dict[str, Any]:
        """Return what decides the network, as plain values; see :func:`settings_of`."""
        return self._known if self.own else {**self._known, "in_channels": self.channels}

    @cached_property
    def _known(self) -> dict[str, Any]:
        return settings_of(self.given)  # once: at the end a file of weights may be gone

    @property
    def builder(self) -> Any:
        """What FLModel builds the parties' networks of."""
        if self.own:
            return self.given
        return partial(orchestra_model, **self._arguments())

    def _arguments(self) -> dict[str, Any]:
        options = {**self.given.model_dump(), "in_channels": self.channels}
        return {**options, "heads": self.heads}

    def blank(self) -> OrchestraModel:
        """Return a network to write weights into.

        Raises:
            ModelError: As of :meth:`untrained`.
        """
        if self.own:
            return self.untrained(0)
        with first_weights_of(0):
            return orchestra_model(**{**self._arguments(), "weights": None}).eval()

    def options(self, sample_shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the options that are written beside an encoder; of a file of weights its digest.

        Args:
            sample_shape: Of the data.
        """
        if not self.own:
            told = self.settings()
            first = {"first_weights": told.pop("weights")} if "weights" in told else {}
            return {**told, **first, "heads": self.heads}
        channels = 1 if len(sample_shape) == 2 else sample_shape[0]
        return {"backbone": None, **self.settings(), "in_channels": channels, "heads": self.heads}

    def untrained(self, seed: int) -> OrchestraModel:
        """Return the network as every party has it before training.

        Raises:
            ModelError: A network of one's own is no :class:`OrchestraModel`.
        """
        with first_weights_of(seed):
            network = fresh_network(self.builder)
        if not isinstance(network, OrchestraModel):
            raise ModelError(
                "Expected `model` to be or to build an OrchestraModel, which says what the encoder "
                f"is, got {type(network).__name__}; wrap it: `OrchestraModel(network, "
                f"feature_dim=d, heads={self.heads})`, d the length of its output."
            )
        return network.eval()


def settings_of(model: Any) -> dict[str, Any]:
    """Return what decides a trainer's network, as plain values by name.

    The same at all parties, and of a training that is resumed: of a file of weights its digest, of
    a network of one's own that of its layers.

    Raises:
        ModelError: The file cannot be read, or there is no network.
    """
    if not is_own_network(model):
        given: dict[str, Any] = {"weights": None, **model.model_dump()}
        # What is None is left out: a checkpoint from before it was known has nothing of it.
        options = {
            k: v for k, v in given.items() if v is not None or k in ("weights", "in_channels")
        }
        weights = options.pop("weights")
        if weights is None:
            return options
        digest = digest_of_file if is_state_file(weights) else start_digest
        return {**options, "weights": digest(weights)}
    with first_weights_of(0):
        network = fresh_network(model)
    return {"own": type(network).__name__, "layers": _digest_of_layers(network)}


def _digest_of_layers(network: nn.Module) -> str:
    """Return a digest of how a network is made, whatever its weights."""
    shapes: Mapping[str, torch.Tensor] = network.state_dict()
    # Where an object is in memory is another each time.
    told = re.sub(r" at 0x[0-9a-f]+", "", repr(network))
    told += repr([(name, tuple(t.shape), str(t.dtype)) for name, t in shapes.items()])
    return hashlib.sha256(told.encode()).hexdigest()
