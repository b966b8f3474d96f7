"""One reply of a user to a curious server: how it comes about, and how it is attacked.

The model is untrained, as in the first round of a federated training, when gradients tell most. The
user's steps are plain SGD: momentum and weight decay, which the server knows, hide nothing.
"""

import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from orchestra_strategy.audit.attacks import attack
from orchestra_strategy.audit.known_losses import KnownLoss
from orchestra_strategy.audit.losses_by_objective import known_loss
from orchestra_strategy.audit.matching import Plan
from orchestra_strategy.audit.parts import RecordedViews, pixels
from orchestra_strategy.audit.party import Row, exchange, new_party
from orchestra_strategy.audit.results import Reply
from orchestra_strategy.audit.samples import Split
from orchestra_strategy.audit.scores import leakage
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.audit.span import span_attack
from orchestra_strategy.audit.with_breaching import breaching_attack
from orchestra_strategy.privacy.accounting import PrivacyLedger
from orchestra_strategy.privacy.mechanism import GaussianMechanism
from orchestra_strategy.privacy.noise_source import NoiseSource
from orchestra_strategy.privacy.record_level import RecordLevelPrivacy
from orchestra_strategy.privacy.user_level import UserLevelPrivacy
from orchestra_strategy.rng import derive_seed, torch_generator
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy
from orchestra_strategy.users import MultiUserAggregate, UserMultiStep, UserSingleStep

__all__ = ["attacked_reply", "plan_of"]

_SETUP = {"device": torch.device("cpu"), "dtype": torch.float32}
_SHARERS = 2  # steps, or users, that the attacked samples are dealt to


@dataclass(frozen=True)
class _Answer:
    """What the server has, and for the auditor the views that the network saw."""

    model: torch.nn.Module
    loss: KnownLoss
    plan: Plan
    payload: dict[str, Any]
    shared: Any
    views: RecordedViews


def plan_of(user_type: str, lr: float) -> Plan:
    """Return the training that a kind of user is asked for."""
    if user_type == "local_gradient":
        return Plan()
    # An aggregate's users have one step each: attacked as if they were one user.
    return Plan("update", _SHARERS if user_type == "local_update" else 1, lr)


def attacked_reply(config: AuditConfig, row: Row, split: Split, index: int) -> Reply:
    """Let a user answer one query, attack the answer, and score what was found.

    Args:
        config: What is audited.
        row: Kind of user and privacy.
        split: The party's samples.
        index: Number of the reply: each has other samples, weights and views.

    Raises:
        OrchestraError: The strategy refuses the combination, or the attack cannot be used with it.
    """
    answer = _answer(config, row, split, index)
    others_drawn = answer.views.views(split.others, _stream(config, "auditor", index, "views"))
    begun = time.perf_counter()
    outcomes = []
    for name in config.attacks:
        seen = answer.loss.online if name == "span" else answer.loss.views
        truth, others = answer.views.images(seen), pixels(others_drawn, seen)
        found = _found(name, config, answer, truth, _stream(config, "server", index, name))
        guesses = _stream(config, "auditor", index, "guesses")
        scores, ordered = leakage(found.reshape(-1, *truth.shape[2:]), truth, others, guesses)
        outcomes.append((name, scores, truth, ordered))
    name, scores, truth, ordered = max(outcomes, key=lambda outcome: outcome[1].above_control)
    return Reply(name, scores, time.perf_counter() - begun, truth, ordered)


def _answer(config: AuditConfig, row: Row, split: Split, index: int) -> _Answer:
    seed = derive_seed(config.seed, "auditor", index, "reply") % 2**31
    strategy = new_party(config, row, split.members, seed)
    exchange(strategy, strategy.get_weights())  # round 0, by which Orchestra has its centroids
    strategy.start_round()
    strategy.before_local_training(None)
    objective = strategy.objective
    views = RecordedViews(objective.views)  # type: ignore[arg-type]
    objective.views = views
    objective.generator = _stream(config, "party", index, "views of the reply")
    loss = known_loss(strategy.model, objective)
    user = _user(config, row, strategy, split.members[config.images * index :])
    _protect(user, strategy, config, row, seed)
    payload = {
        "parameters": [p.detach().clone() for p in strategy.model.parameters()],
        "buffers": None,
    }
    shared, _ = user.compute_local_updates(payload)
    return _Answer(
        strategy.model, loss, plan_of(row.user_type, strategy.config.lr), payload, shared, views
    )


def _user(
    config: AuditConfig, row: Row, strategy: SelfSupervisedStrategy, samples: Tensor
) -> UserSingleStep:
    """Return a user of the first ``images`` samples; the server is told their number, no more."""
    users = _SHARERS if row.user_type == "multiuser_aggregate" else 1
    plan = plan_of(row.user_type, strategy.config.lr)
    per_user = config.images // users
    cfg_user = SimpleNamespace(
        num_data_points=per_user,
        num_local_updates=plan.steps,
        num_data_per_local_update_step=per_user // plan.steps,
        local_learning_rate=plan.lr,
        provide_num_data_points=True,
        provide_buffers=True,  # as the strategies' users do
        aggregate_weights="uniform",
        seed=config.seed,
    )
    loaders = [
        [{"inputs": part, "ids": torch.arange(len(part))}]
        for part in samples[: config.images].chunk(users)
    ]
    args = (strategy.model, strategy.objective)
    if users > 1:
        return MultiUserAggregate(*args, loaders, _SETUP, cfg_user, range(users))
    single = UserSingleStep if row.user_type == "local_gradient" else UserMultiStep
    return single(*args, loaders[0], _SETUP, 0, cfg_user)


def _protect(
    user: UserSingleStep, strategy: SelfSupervisedStrategy, config: AuditConfig, row: Row, seed: int
) -> None:
    """Hand the user the protection that the strategy's plan of a round gives it.

    A step's batch is then all that the party has to draw from, so that it is no secret; beside one
    sample's clipped gradient the noise is as strong as in any batch.
    """
    if not strategy.privacy.protected:
        return
    own, z = strategy.config, strategy.privacy.plan().update.noise_multiplier
    mechanism = GaussianMechanism(PrivacyLedger(), NoiseSource(seed, "reply"))
    if own.privacy == "user":
        user.update_privacy = UserLevelPrivacy(own.clip_norm, z, mechanism)
        return
    rows = config.images // plan_of(row.user_type, own.lr).steps
    user.record_privacy = RecordLevelPrivacy(user.model, own.clip_norm, z, rows, rows, mechanism)


def _found(
    name: str, config: AuditConfig, answer: _Answer, truth: Tensor, generator: torch.Generator
) -> Tensor:
    """Run one attack; it sees of the truth no more than its shape."""
    if name == "span":
        gradient = answer.plan.as_gradient(answer.shared["gradients"])
        count, shape = truth.shape[0] * truth.shape[1], truth.shape[2:]
        args = (answer.model, answer.payload, gradient, count, shape, config.attack_steps)
        return span_attack(*args, generator, buffers=answer.shared["buffers"])
    known = (answer.model, answer.loss, answer.payload, answer.shared, answer.plan)
    search = (truth.shape[1:], config.attack_steps, generator)
    if name == "breaching":
        return breaching_attack(*known, *search)
    return attack(*known, *search)[1]


def _stream(config: AuditConfig, who: str, index: int, purpose: str) -> torch.Generator:
    return torch_generator(config.seed, who, index, purpose)
