"""The strategies' parameters as attributes of ``orchestra_train``, and back.

What all strategies have in common, with the same default, stands once; the rest stands below the
strategy's name, as one of several of which a form shows the chosen one.
"""

from collections.abc import Sequence
from typing import Any, get_args

from orchestra_strategy.component.attributes import (
    Changed,
    attributes_of,
    structure,
    values_from,
)
from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.data import VIEWS
from orchestra_strategy.host_component import Field, UnionGroup
from orchestra_strategy.runtime.checks import our_strategy
from orchestra_strategy.strategies import built_in  # noqa: F401 - registers them

__all__ = ["AUTO", "COMMON", "STRATEGIES", "Common", "Strategy", "parameters_from"]

AUTO = "auto"

STRATEGIES = {
    "orchestra": "Orchestra: clustering against global centroids.",
    "orchestra_plus": "Orchestra with balanced targets and an instance term, for few rounds.",
    "orchestra_simple": "Orchestra without target network and server step, for a first experiment.",
    "orchestra_advanced": "Orchestra with an L2 term and a mean weighted by quality.",
    "orchestra_private": "Orchestra with differential privacy of weights and centroids.",
    "orchestra_single_step": "Orchestra with one gradient a round.",
    "orchestra_aggregate": "Orchestra with many virtual users at a party.",
    "fed_simclr": "SimCLR.",
    "fed_simsiam": "SimSiam.",
    "fed_byol": "BYOL.",
    "fed_specloss": "Spectral contrastive loss.",
    "fed_rotpred": "Rotation prediction.",
    "fed_masked": "Masked reconstruction.",
}
"""What a form says of each strategy; the first is the one that it starts with."""

# What a job says in another way (the route, by who combines), what belongs to another call
# (`predict`), and what nobody may know whose noise is to protect.
_LEFT_OUT = {"party", "parties", "ring_limit", "ring_parties", "route"}
_LEFT_OUT |= {"predict_output", "noise_seed"}

# Where a docstring speaks to who writes a script.
_CHANGED = {
    "ema_decay": Changed("tau, by which the target network follows the trained one."),
    "local_epochs": Changed("Passes over the party's own data in a round."),
    "memory_size": Changed("m, rows of the memory of projections that a party clusters."),
    "num_global_clusters": Changed("N_g, the number of clusters over all parties."),
    "num_local_clusters": Changed("N_l, the number of clusters of a party's own samples."),
    "streams": Changed(
        "Where a party's randomness comes from, such as views and the order of batches: the seed, "
        "so that all can repeat it; or a secret of the party. auto is the secret. With privacy it "
        "is always the secret."
    ),
    "users_per_round": Changed(
        "How many of the virtual users, drawn at random, take part in a round. (0: all)"
    ),
    "views": Changed(
        "Random changes of a sample that the method compares: table for tables, grey or colour for "
        "images; auto chooses by the samples.",
        [AUTO, *VIEWS],
        AUTO,
    ),
}

_CONFIGS: dict[str, type[StrategyConfig]] = {
    name: our_strategy(name).config_class for name in STRATEGIES
}


def _is_common(name: str) -> bool:
    """Whether all strategies have a parameter, of the same kind and with the same default."""
    fields = [config.model_fields.get(name) for config in _CONFIGS.values()]
    kinds = {None if f is None else (str(f.annotation), repr(f.default)) for f in fields}
    return len(kinds) == 1


COMMON: Sequence[str] = [
    name
    for name in _CONFIGS["orchestra"].model_fields
    if name not in _LEFT_OUT and _is_common(name)
]


def _own_names(config: type[StrategyConfig]) -> list[str]:
    """Return the parameters below a strategy's name; one that has a single value is none."""
    names = [n for n in config.model_fields if n not in _LEFT_OUT and n not in COMMON]
    return [n for n in names if len(get_args(config.model_fields[n].annotation)) != 1]


Common: Any = structure(
    "Common",
    attributes_of(
        StrategyConfig,
        COMMON,
        changed=_CHANGED,
    ),
)

Strategy: Any = structure(
    "Strategy",
    {
        name: (
            structure(config.__name__, attributes_of(config, _own_names(config), changed=_CHANGED)),
            Field.struct_attr(desc=STRATEGIES[name]),
        )
        for name, config in _CONFIGS.items()
    },
    bases=(UnionGroup,),
)


def parameters_from(component: Any) -> tuple[str, dict[str, Any]]:
    """Return the name of the chosen strategy, and all of its parameters.

    Args:
        component: With the attributes of :data:`Common`, and ``strategy`` of :data:`Strategy`.

    Raises:
        ParameterError: A text cannot be read; values are checked by whoever takes them.
    """
    name = component.strategy.get_selected()
    config = _CONFIGS[name]
    own = getattr(component.strategy, name)
    values = values_from(component, config, COMMON)
    return name, values | values_from(own, config, _own_names(config))
