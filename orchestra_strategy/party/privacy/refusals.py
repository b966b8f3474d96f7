"""Refusals under differential privacy: whatever no noise would cover."""

from collections.abc import Collection, Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestra_strategy.errors import ModelError, ParameterError, PrivacyError
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.weights import buffer_names
from orchestra_strategy.party.user_types import USER_TYPES

__all__ = [
    "refuse_batch_norm",
    "refuse_coupled",
    "refuse_running_statistics",
    "refuse_telling",
    "refuse_undeclared",
    "refuse_unprotected",
    "refuse_virtual_users",
]


def refuse_unprotected(config: Any, sends: tuple[str, ...]) -> None:
    """Refuse to send anything that no noise covers.

    How the server combines what parties send is no matter here: each has added its noise before.

    Args:
        config: The strategy's parameters.
        sends: What leaves the party as it is beside the weights, by name.

    Raises:
        PrivacyError: There is something, or ``aggregation`` needs something.
    """
    by_quality = config.combining.needs_quality
    if sends:
        names = (*sends, "quality") if by_quality else sends
        raise PrivacyError(
            f"Expected a strategy that sends weights alone with privacy={config.privacy!r}, got "
            f"one that sends {', '.join(f'`{name}`' for name in names)} without noise; use "
            "strategy 'orchestra_private'."
        )
    if by_quality:
        raise PrivacyError(
            "Expected `aggregation` to be 'mean', 'median' or 'trimmed_mean' with "
            f"privacy={config.privacy!r}, got 'quality': how compact a party's clusters are is "
            "measured on its samples, and would leave it without noise."
        )


def refuse_running_statistics(unit: str, model: nn.Module, norm: str) -> None:
    """Refuse a model whose running statistics would leave the party.

    Raises:
        ModelError: It has some; ``norm`` is the remedy.
    """
    if buffer_names(model):
        raise ModelError(
            f"Expected a model without BatchNorm for privacy={unit!r}, got one with "
            f"{len(buffer_names(model))} running statistics, which mix a batch's samples and leave "
            f"the party unclipped; use GroupNorm: `orchestra_model(..., norm={norm!r})`."
        )


def refuse_batch_norm(model: nn.Module) -> None:
    """Refuse a model in which the samples of a batch act on each other.

    Raises:
        ModelError: It normalises by the batch.
    """
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ModelError(
            "Expected a model without BatchNorm for privacy='record', got one that normalises by "
            "the batch: each sample's gradient depends on the others, which clipping cannot bound; "
            "use GroupNorm: `orchestra_model(..., norm='group')`."
        )


def refuse_virtual_users(config: Any) -> None:
    """Refuse records as the unit where a party hosts users, who are to be protected as a whole.

    Raises:
        ParameterError: ``user_type`` is of that kind.
    """
    if not USER_TYPES[config.user_type].protects_records:
        raise ParameterError(
            f"Expected `privacy` to be 'user' with `user_type={config.user_type!r}`, got 'record'; "
            "use user_type='local_update' for records."
        )


def refuse_undeclared(unit: str, entries: Iterable[Entry], protected: Collection[str]) -> None:
    """Refuse what a strategy sends of its own, unless it says that it carries noise.

    Args:
        unit: What is protected.
        entries: What travels beside the weights.
        protected: Names of those that carry noise.

    Raises:
        PrivacyError: There is another one.
    """
    others = [entry.name for entry in entries if entry.name not in protected]
    if others:
        raise PrivacyError(
            f"Expected all of `extra_entries` to carry noise with privacy={unit!r}, got "
            f"{', '.join(f'`{name}`' for name in others)}; add the noise with "
            "`self.privacy.mechanism` and name it in `protected_entries`, or do not send it."
        )


def refuse_telling(config: Any) -> None:
    """Refuse to measure a protected party's samples for the driver.

    Raises:
        PrivacyError: ``log_unprotected`` is not on.
    """
    if not config.log_unprotected:
        raise PrivacyError(
            f"Expected `log_unprotected=True` for `evaluate` with privacy={config.privacy!r}, got "
            "False: health and cluster scores are measured on the parties' samples, and no noise "
            "protects them. Set it in the constructor, or measure the encoder on samples of your "
            "own, by `FederatedOrchestraTrainer.evaluate`."
        )


def refuse_coupled(objective: Any, own_loss: bool) -> None:
    """Refuse record level where one example's gradient is not defined.

    Raises:
        PrivacyError: The objective has no ``per_example``, or views that are not row-wise, or
            ``loss_terms`` goes around it.
    """
    if not hasattr(objective, "per_example"):
        name = getattr(objective, "__name__", type(objective).__name__)
        raise PrivacyError(
            "Expected an objective with `per_example` for privacy='record', got "
            f"{name}: where a loss couples the samples of a batch, as contrastive ones do, there "
            "is no gradient of one sample to clip. Use privacy='user', or another strategy."
        )
    views = getattr(objective, "views", None)
    if views is not None and not getattr(views, "row_wise", False):
        name = getattr(views, "__name__", type(views).__name__)
        raise PrivacyError(
            f"Expected `views` of an objective to be row-wise for privacy='record', got {name}, "
            "which does not say so: where a sample acts on the views of others in its batch, it "
            "moves their gradients, too, which clipping cannot bound. Declare `row_wise = True` if "
            "a row's views depend on that row and its own draws alone."
        )
    if own_loss:
        raise PrivacyError(
            "Expected `loss_terms` not to be overridden for privacy='record', got a strategy that "
            "does: the per-example loss would miss its terms. Put them into `per_example`."
        )
