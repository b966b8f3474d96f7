"""The construction of a user from a case's configuration."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.errors import ParameterError, did_you_mean
from orchestra_strategy.users.aggregate import MultiUserAggregate
from orchestra_strategy.users.dataloader import construct_dataloader, dataloaders_of
from orchestra_strategy.users.multi_step import UserMultiStep
from orchestra_strategy.users.settings import required, setting
from orchestra_strategy.users.single_step import UserSingleStep

__all__ = ["USER_TYPES", "construct_user"]

Factory = Callable[..., UserSingleStep]


def _single(user_class: Factory) -> Factory:
    def build(
        model: nn.Module, loss_fn: Any, cfg_case: Any, setup: Mapping[str, Any], **options: Any
    ) -> UserSingleStep:
        dataset = options.pop("dataset")
        idx = as_count("user_idx", required(cfg_case.user, "cfg_user", "user_idx", "an integer"), 0)
        dataloader = construct_dataloader(
            cfg_case.data, setting(cfg_case, "impl"), idx, dataset=dataset
        )
        return user_class(model, loss_fn, dataloader, setup, idx, cfg_case.user, **options)

    return build


def _aggregate(
    model: nn.Module, loss_fn: Any, cfg_case: Any, setup: Mapping[str, Any], **options: Any
) -> MultiUserAggregate:
    bounds = tuple(required(cfg_case.user, "cfg_user", "user_range", "(first, last + 1)"))
    if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1]:
        raise ParameterError(
            "Expected `user_range` to be (first, last + 1) with at least one user, got "
            f"{list(bounds)}."
        )
    loader_of = dataloaders_of(cfg_case.data, setting(cfg_case, "impl"), options.pop("dataset"))
    loader_of(bounds[1] - 1)  # refuses a range beyond the users now, not in the first round
    indices = range(*bounds)
    return MultiUserAggregate(model, loss_fn, loader_of, setup, cfg_case.user, indices, **options)


USER_TYPES: dict[str, Factory] = {
    "local_gradient": _single(UserSingleStep),
    "local_update": _single(UserMultiStep),
    "multiuser_aggregate": _aggregate,
}


def construct_user(
    model: nn.Module,
    loss_fn: Any,
    cfg_case: Any,
    setup: Mapping[str, Any],
    *,
    dataset: Any = None,
    **options: Any,
) -> UserSingleStep:
    """Build the user that ``cfg_case.user.user_type`` names.

    Args:
        model: The common model; the user takes a deep copy.
        loss_fn: A loss module, a function ``loss(outputs, labels)``, or an objective ``f(model,
            batch)``.
        cfg_case: By attribute: ``user`` (``user_type``; ``user_idx``, or ``user_range`` for
            ``multiuser_aggregate``; and the user's own settings), ``data`` and ``impl``, see
            :func:`~orchestra_strategy.users.dataloader.construct_dataloader`.
        setup: ``device`` and ``dtype``.
        dataset: The data that are dealt to the users, in place of what ``cfg_case.data`` says of
            them: a map-style torch data set, with ``targets`` if the partition needs labels.
        **options: Keyword-only arguments of the user's class.

    Returns:
        :class:`UserSingleStep` for ``local_gradient``, :class:`UserMultiStep` for
        ``local_update``, :class:`MultiUserAggregate` for ``multiuser_aggregate``.

    Raises:
        ParameterError: An unknown user type, an empty range, an index beyond the users, or a bad
            configuration.
    """
    user_type = required(cfg_case.user, "cfg_user", "user_type", "the kind of user")
    if user_type not in USER_TYPES:
        raise ParameterError(
            f"Expected `user_type` to be one of {', '.join(map(repr, USER_TYPES))}, got "
            f"{user_type!r}; {did_you_mean(str(user_type), USER_TYPES)}."
        )
    return USER_TYPES[user_type](model, loss_fn, cfg_case, setup, dataset=dataset, **options)
