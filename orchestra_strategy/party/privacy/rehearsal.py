"""A protected party's first round in advance, on made-up samples, where errors still show.

Under ``privacy`` an error in a party's local work counts as a contribution of zero, so that it does
not tell of the data (:mod:`orchestra_strategy.privacy.silence`). A mistake in the code or in the
configuration would then train on noise alone, and nobody would know. So before its data are touched
a party goes through round 0 and one round with samples that are made up: of the real ones only
shape and dtype count, which are no secret.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from orchestra_strategy import host
from orchestra_strategy.party.own_server import answer_of_one
from orchestra_strategy.party.roles import Party
from orchestra_strategy.privacy.accounting import Release
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.rng import numpy_generator

__all__ = ["rehearse"]

_ROWS = 4  # of each user: a loss that compares samples needs several


class _WithoutNoise(GaussianMechanism):
    """Stands in for the mechanism: made-up samples need no noise, and cost no budget."""

    def add_noise(
        self, tensors: Sequence[Tensor], sensitivity: float, release: Release
    ) -> list[Tensor]:
        """Return copies of the tensors."""
        return [tensor.detach().clone() for tensor in tensors]


def rehearse(party: Party) -> None:
    """Run a stand-in of a party through round 0 and one round of training.

    Args:
        party: A strategy with ``privacy`` and data; it is not changed.

    Raises:
        Exception: Whatever its objective, model, views or hooks raise on samples of that shape.
    """
    cls = host.plain_class(party)
    parameters = {**party.config.model_dump(), **_small(party.config)}
    stand_in = cls(party.model_builder, random_seed=party.seed, **parameters)
    stand_in.privacy.rehearsed = None  # it is the rehearsal
    stand_in.privacy.silence.loud = True
    mechanism = stand_in.privacy.mechanism
    stand_in.privacy.replace_mechanism(_WithoutNoise(mechanism.ledger, mechanism.source))
    users = stand_in.user_type.num_users()
    rows = max(_ROWS, getattr(party.config, "k_min", _ROWS)) * users
    data = party.require_data()
    labels = None if data.labels is None else np.zeros(rows, np.int64)
    stand_in.build_dataset(_made_up(data.samples, rows), labels)
    stand_in.apply_weights(answer_of_one(stand_in, stand_in.get_weights()))
    payload, _ = stand_in.train_step(None, 0, 1)
    stand_in.apply_weights(answer_of_one(stand_in, payload))


def _small(config: Any) -> dict[str, Any]:
    """Return parameters with which a round takes a moment; the kinds of everything stay."""
    small = {
        "local_epochs": 1,
        "num_virtual_users": min(2, config.num_virtual_users),
        "users_per_round": None,
        "user_workers": 1,
        # One of the two ways to say how much noise; there will be none.
        **{"noise_multiplier": 1.0, "target_epsilon": None, "planned_rounds": None},
        **{"max_epsilon": None, "noise_seed": 0, "streams": "auto", "delta": 1e-9},
        "noise_sampler": "gaussian",  # which a seed can have
        "on_bad_reply": "fail",
        "aggregation": "mean",
    }
    few = {"num_local_clusters": 1, "num_clusters": 1, "memory_size": getattr(config, "k_min", 2)}
    return small | {name: n for name, n in few.items() if name in type(config).model_fields}


def _made_up(samples: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    generator = numpy_generator(0, "rehearsal", 0, "samples")
    shape = (rows, *samples.shape[1:])
    if samples.dtype == np.uint8:
        return generator.integers(0, 256, shape, np.uint8)
    if samples.ndim == 2:
        return generator.standard_normal(shape, np.float32)
    return generator.random(shape, np.float32)
