"""The audited party in a strategy that it takes part in.

The strategy is the real one, stepped by hand, with SecretFlow's class below it but without its
network: so parameters, refusals, noise and accounting are those of a federated training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, get_args

from torch import Tensor

from orchestra_strategy.aggregation.server import ServerAggregation
from orchestra_strategy.algorithms.model import orchestra_model
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.audit.user_kinds import KINDS
from orchestra_strategy.errors import ParameterError, did_you_mean
from orchestra_strategy.party.local_update import LocalUpdate
from orchestra_strategy.party.user_types import USER_TYPES
from orchestra_strategy.rng import SecretStreams, derive_seed
from orchestra_strategy.strategies.registry import lookup_strategy, registered_strategies
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy

__all__ = [
    "TRAINING",
    "Row",
    "backbone_of",
    "exchange",
    "new_party",
    "rounds_of",
    "server_of",
    "strategy_class",
    "strategy_of",
    "train",
    "user_types_of",
]

TRAINING: dict[str, Any] = {"batch_size": 128, "local_epochs": 6, "lr": 0.03, "health_samples": 0}
"""Parameters of the audited training in place of the strategies' own, which are for large data."""

_ORCHESTRA = {"temperature": 0.2, "deg_weight": 0.1, "num_global_clusters": 32}


@dataclass(frozen=True)
class Row:
    """A row of the table: a kind of user under a privacy setting.

    Attributes:
        user_type: The kind of user.
        privacy: Privacy parameters; empty for none.
    """

    user_type: str
    privacy: Mapping[str, Any]

    @property
    def private(self) -> bool:
        """Whether there is any privacy."""
        return bool(self.privacy.get("privacy", "none") != "none")


def strategy_class(name: str) -> type[SelfSupervisedStrategy]:
    """Return the strategy of a name.

    Raises:
        ParameterError: There is none, or it is not one of this package's self-supervised ones.
    """
    known = [n.removesuffix("_torch") for n in registered_strategies()]
    ours = [n for n in known if issubclass(lookup_strategy(n), SelfSupervisedStrategy)]
    own = [n for n in ours if not lookup_strategy(n).needs_labels]
    if name not in own:
        raise ParameterError(
            f"Expected `strategy` to be one that can be audited, got {name!r}; "
            f"{did_you_mean(name, own)}."
        )
    return lookup_strategy(name)


def user_types_of(config: AuditConfig) -> tuple[str, ...]:
    """Return the kinds of user to audit; strategies like ``orchestra_aggregate`` have but one.

    Raises:
        ParameterError: The strategy is unknown, or does not have a kind that is asked for.
    """
    fields = strategy_class(config.strategy).config_class.model_fields
    possible: tuple[str, ...] = get_args(fields["user_type"].annotation)
    chosen = config.user_types or possible
    for user_type in chosen:
        if user_type not in possible:
            raise ParameterError(
                f"Expected `user_types` to be among those of `{config.strategy}`, got "
                f"'{user_type}'; it has {', '.join(map(repr, possible))}."
            )
    return chosen


def strategy_of(config: AuditConfig, row: Row) -> str:
    """Return the strategy's name under a setting: Orchestra's with privacy has its own, and back.

    Without noise ``orchestra_private`` does not run; with privacy the plain ones refuse, since
    their centroids carry no noise.
    """
    if config.strategy == "orchestra_private":
        return "orchestra_private" if row.private else "orchestra"
    plain = ("orchestra", "orchestra_aggregate", "orchestra_single_step")
    return "orchestra_private" if row.private and config.strategy in plain else config.strategy


def new_party(
    config: AuditConfig, row: Row, samples: Tensor, seed: int, **overrides: Any
) -> SelfSupervisedStrategy:
    """Return a party that has its data, and has not trained.

    Args:
        config: What is audited.
        row: Kind of user and privacy.
        samples: Pixels (n, C, H, W), or rows of a table (n, F).
        seed: Of weights, and of order, views and noise unless they are secret.
        **overrides: Parameters in place of the configuration's.

    Raises:
        OrchestraError: The strategy refuses parameters, privacy, model or data.
    """
    cls = strategy_class(strategy_of(config, row))
    fields = cls.config_class.model_fields
    values = dict(TRAINING)
    if "num_global_clusters" in fields:
        values |= {**_ORCHESTRA, "clustering_steps": KINDS[row.user_type].clustering_steps}
    values |= KINDS[row.user_type].training
    if samples.ndim == 2:
        values["views"] = "table"
    values |= {**config.parameters, **overrides}
    if row.private:
        # It is the auditor's own noise, drawn and thrown away here; a report should repeat.
        values |= {**row.privacy, "noise_seed": derive_seed(seed, "party", 0, "noise")}
    if row.privacy.get("target_epsilon") and "planned_rounds" not in row.privacy:
        sizes = {name: values[name] for name in ("batch_size", "local_epochs")}
        values["planned_rounds"] = rounds_of(row.user_type, config.rounds, len(samples), **sizes)
    if not row.private:
        values["streams"] = config.streams
    model = partial(
        orchestra_model,
        backbone_of(config, samples),
        samples.shape[1],
        config.norm,
        hidden_dim=config.hidden_dim,
        projection_dim=config.projection_dim,
        heads=cls.heads,
    )
    fixed = {"user_type": row.user_type, "party": "audited", "torch_threads": config.threads}
    strategy = cls(model, random_seed=seed, **values, **fixed)
    if isinstance(strategy.streams, SecretStreams):
        # Secret from the attacks, which are not told; a report should repeat.
        numbers = (derive_seed(config.seed, "party", seed, f"secret {i}") for i in range(4))
        strategy.streams.load_state("".join(f"{number:016x}" for number in numbers))
    strategy.build_dataset(samples.numpy())
    return strategy


def backbone_of(config: AuditConfig, samples: Tensor) -> str:
    """Return the backbone's name: the configured one, or the usual one for such samples."""
    return config.backbone or ("mlp" if samples.ndim == 2 else "conv4")


def server_of(strategy: SelfSupervisedStrategy) -> ServerAggregation:
    """Return the server that a party expects."""
    names = (
        "num_global_clusters",
        "temperature",
        "clustering_steps",
        "torch_threads",
        "aggregation",
    )
    known = {n: getattr(strategy.config, n) for n in names if hasattr(strategy.config, n)}
    return ServerAggregation(seed=strategy.seed, **known)


def exchange(strategy: SelfSupervisedStrategy, wire: Any) -> None:
    """Let a server answer the party: the mean of one, and global clusters where there are some."""
    strategy.apply_weights(server_of(strategy)([wire])[0])


def rounds_of(user_type: str, rounds: int, samples: int, batch_size: int, local_epochs: int) -> int:
    """Return how many federated rounds stand for ``rounds`` of ``local_update``.

    A round of ``local_gradient`` is a single step, so it takes as many as there are steps.

    >>> rounds_of("local_update", 10, 100, 50, 3), rounds_of("local_gradient", 10, 100, 50, 3)
    (10, 60)
    """
    sizes = SimpleNamespace(batch_size=batch_size, local_epochs=local_epochs)
    usual = LocalUpdate.steps_per_round(sizes, samples)
    return rounds * usual // USER_TYPES[user_type].steps_per_round(sizes, samples)


def train(
    strategy: SelfSupervisedStrategy, rounds: int, watch: Callable[[Any], None] = lambda wire: None
) -> int:
    """Train a party for :func:`rounds_of` rounds, or as many as its budget allows.

    Args:
        strategy: The party.
        rounds: See :func:`rounds_of`.
        watch: Called with each payload that leaves, before the server answers it.

    Returns:
        Their number.
    """

    def answered(wire: Any) -> None:
        watch(wire)
        exchange(strategy, wire)

    answered(strategy.get_weights())
    config, n = strategy.config, strategy.num_samples()
    rounds = rounds_of(config.user_type, rounds, n, config.batch_size, config.local_epochs)
    left = strategy.privacy_rounds_left(n)
    rounds = rounds if left is None else min(rounds, left)
    for index in range(rounds):
        answered(strategy.train_step(None, index, 1)[0])
    return rounds
