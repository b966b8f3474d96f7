"""Arguments of FLModel's methods that have no meaning here: refused by name, with the remedy.

FLModel ignores some of what it is given, for some strategies. Here each of its arguments works or
is refused; ``docs/flmodel.md`` has the list.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from orchestra_strategy.errors import ParameterError, did_you_mean

__all__ = ["REFUSED", "refuse_arguments"]


class Refused(NamedTuple):
    """An argument that has no meaning here.

    Attributes:
        remedy: Why, and what to do instead.
        harmless: Values that ask for nothing.
    """

    remedy: str
    harmless: tuple[Any, ...] = (None,)


_WEIGHTS = Refused(
    "the losses here weigh all samples alike; leave samples out, or put weights into an objective "
    "of your own"
)
_DECODER = Refused(
    "it decodes the label column of SecretFlow's CSV reader; files are read here by options, "
    "`label_column` and `class_names` of `fed_labelled_from_paths`"
)
_SAMPLER = Refused(
    "batches are drawn here, by `batch_size`; `privacy='record'` draws Poisson samples",
    (None, "batch"),
)

REFUSED: dict[str, dict[str, Refused]] = {
    "fit": {
        "batch_sampling_rate": Refused(
            "batches have the same size at every party, whatever the size of its data; give "
            "`batch_size`"
        ),
        "shuffle": Refused(
            "each pass over the data is in a new order, which follows from `random_seed`; leave "
            "it out",
            (None, True),
        ),
        "class_weight": Refused(
            "the losses here know no classes; put weights into an objective of your own"
        ),
        "sample_weight": _WEIGHTS,
        "aggregate_freq": Refused(
            "an epoch is one round: `local_epochs` is the work between two aggregations, and "
            "`user_type='local_gradient'` aggregates after each batch"
        ),
        "label_decoder": _DECODER,
        "max_batch_size": Refused(
            "`batch_size` is what it says here, and is not scaled up for large parties",
            (None, 20000),
        ),
        "prefetch_buffer_size": Refused(
            "it is for SecretFlow's CSV reader; files are read as a whole here"
        ),
        "sampler_method": _SAMPLER,
        "random_seed": Refused("give `random_seed` to the constructor: it decides on weights, too"),
        "dp_spent_step_freq": Refused(
            "with `privacy` epsilon is in the history after every round (`privacy_epsilon`)"
        ),
    },
    "evaluate": {
        "sample_weight": _WEIGHTS,
        "label_decoder": _DECODER,
        "sampler_method": _SAMPLER,
    },
    "predict": {"label_decoder": _DECODER, "sampler_method": _SAMPLER},
    "load_model": {
        "custom_objects": Refused("it is for TensorFlow's models"),
    },
}
"""By method and name, the arguments of FLModel that are refused."""


def refuse_arguments(
    method: str, given: Mapping[str, Any], known: Mapping[str, Any], **harmless: Any
) -> None:
    """Refuse what a method of FLModel takes, or nobody does.

    Args:
        method: Its name.
        given: Arguments that our method has no place for.
        known: Those that it has, by name, for the hint.
        **harmless: One more value that asks for nothing, by argument.

    Raises:
        ParameterError: One has no meaning here, or is unknown.
    """
    for name, value in given.items():
        if name not in REFUSED[method]:
            names = {*known, *REFUSED[method]} - {"self"}
            raise ParameterError(
                f"Expected an argument of `{method}`, got `{name}`; {did_you_mean(name, names)}."
            )
        refused = REFUSED[method][name]
        fine = (*refused.harmless, *(v for n, v in harmless.items() if n == name))
        if not any(value is one or (type(value) is type(one) and value == one) for one in fine):
            shown = value if isinstance(value, bool | int | float | str) else type(value).__name__
            raise ParameterError(
                f"Expected no `{name}` in `{method}`, got {shown!r}: {refused.remedy}."
            )
