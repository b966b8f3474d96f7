"""What a strategy refuses with differential privacy on: whatever no noise would cover."""

from collections.abc import Collection, Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestra_strategy.errors import ModelError, PrivacyError
from orchestra_strategy.exchange.manifest import Entry
from orchestra_strategy.exchange.weights import buffer_names

__all__ = ["refuse_coupled", "refuse_telling", "refuse_undeclared", "refuse_unprotected"]

# By user, all samples of a batch belong to the one who is protected, so that they may meet.
_NORM_FOR = {"user": "group+batch", "record": "group"}


def refuse_unprotected(config: Any, model: nn.Module, sends: tuple[str, ...]) -> None:
    """Refuse to send anything that no noise covers.

    Args:
        config: The strategy's parameters.
        model: Whose weights leave the party.
        sends: What else leaves it as it is, by name.

    How the server combines what parties send is no matter here: each has added its noise before.

    Raises:
        PrivacyError: ``sends`` is not empty, or ``aggregation`` needs more than it.
        ModelError: The model has running statistics; or, by record, any of a batch.
    """
    unit = config.privacy
    if unit == "none":
        return
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
    if buffer_names(model):
        raise ModelError(
            f"Expected a model without BatchNorm for privacy={config.privacy!r}, got one with "
            f"{len(buffer_names(model))} running statistics, which mix a batch's samples and leave "
            f"the party unclipped; use GroupNorm: `orchestra_model(..., norm={_NORM_FOR[unit]!r})`."
        )
    if unit == "record" and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ModelError(
            "Expected a model without BatchNorm for privacy='record', got one that normalises by "
            "the batch: each sample's gradient depends on the others, which clipping cannot bound; "
            "use GroupNorm: `orchestra_model(..., norm='group')`."
        )


def refuse_undeclared(config: Any, entries: Iterable[Entry], protected: Collection[str]) -> None:
    """Refuse what a strategy sends of its own, unless it says that it carries noise.

    Args:
        config: The strategy's parameters.
        entries: What travels beside the weights.
        protected: Names of those that carry noise.

    Raises:
        PrivacyError: There is another one.
    """
    others = [entry.name for entry in entries if entry.name not in protected]
    if config.privacy != "none" and others:
        raise PrivacyError(
            f"Expected all of `extra_entries` to carry noise with privacy={config.privacy!r}, got "
            f"{', '.join(f'`{name}`' for name in others)}; add the noise with "
            "`self.privacy.mechanism` and name it in `protected_entries`, or do not send it."
        )


def refuse_telling(config: Any) -> None:
    """Refuse to measure a protected party's samples for the driver.

    Raises:
        PrivacyError: ``privacy`` is on, and ``log_unprotected`` is not.
    """
    if config.privacy != "none" and not config.log_unprotected:
        raise PrivacyError(
            f"Expected `log_unprotected=True` for `evaluate` with privacy={config.privacy!r}, got "
            "False: health and cluster scores are measured on the parties' samples, and no noise "
            "protects them. Set it in the constructor, or measure the encoder on samples of your "
            "own, by `FederatedOrchestraTrainer.evaluate`."
        )


def refuse_coupled(config: Any, objective: Any, own_loss: bool) -> None:
    """Refuse record level where one example's gradient is not defined.

    Raises:
        PrivacyError: The objective has no ``per_example``, or views that are not row-wise, or
            ``loss_terms`` goes around it.
    """
    if config.privacy != "record":
        return
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
