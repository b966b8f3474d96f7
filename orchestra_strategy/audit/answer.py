"""One reply of a user to a curious server: how it comes about.

The model is untrained, as in the first round of a federated training, when gradients tell most. The
user's steps are plain SGD: momentum and weight decay, which the server knows, hide nothing.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from orchestra_strategy.audit.attacks.domains import Columns, Domain, Pixels
from orchestra_strategy.audit.attacks.known_losses import KnownLoss
from orchestra_strategy.audit.attacks.losses_by_objective import known_loss
from orchestra_strategy.audit.attacks.search import Plan
from orchestra_strategy.audit.audited_party import Row, exchange, new_party
from orchestra_strategy.audit.recorded_views import RecordedViews
from orchestra_strategy.audit.samples import Split
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.audit.user_kinds import KINDS
from orchestra_strategy.rng import derive_seed
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy
from orchestra_strategy.users import MultiUserAggregate, UserSingleStep

__all__ = ["Answer", "answer_of", "plan_of"]

_SETUP = {"device": torch.device("cpu"), "dtype": torch.float32}


@dataclass(frozen=True)
class Answer:
    """What the server has, and for the auditor the views that the network saw.

    Attributes:
        model: The public model.
        loss: As the server knows it.
        plan: The training that it asked for.
        payload: What it sent.
        shared: What came back.
        views: The views, with those that were drawn.
        samples: What they were drawn of, (n, ...), for the auditor.
        domain: What is known of any sample.
        seed: The public root seed.
        party: The party's name, as public.
        round_index: The round of the reply.
        users: How many users the samples were dealt to.
    """

    model: torch.nn.Module
    loss: KnownLoss
    plan: Plan
    payload: dict[str, Any]
    shared: Any
    views: RecordedViews
    samples: torch.Tensor
    domain: Domain
    seed: int
    party: str
    round_index: int
    users: int


def plan_of(user_type: str, lr: float) -> Plan:
    """Return the training that a kind of user is asked for."""
    kind = KINDS[user_type]
    return Plan() if kind.shares == "gradient" else Plan("update", kind.steps, lr)


def answer_of(config: AuditConfig, row: Row, split: Split, index: int) -> Answer:
    """Let a user answer one query.

    Args:
        config: What is audited.
        row: Kind of user and privacy.
        split: The party's samples.
        index: Number of the reply: each has other samples, weights and views.

    Raises:
        OrchestraError: The strategy refuses the combination.
    """
    seed = derive_seed(config.seed, "auditor", index, "reply") % 2**31
    strategy = new_party(config, row, split.members, seed)
    exchange(strategy, strategy.get_weights())  # round 0, by which Orchestra has its centroids
    strategy.round_index = 1
    strategy.open_round()
    strategy.method.start_user(None)  # the views' own stream, secret or of the seed
    objective = strategy.objective
    views = RecordedViews(objective.views)  # type: ignore[arg-type]
    objective.views = views
    loss = known_loss(strategy.model, objective)
    samples = split.members[config.images * index :][: config.images]
    user = _user(config, row, strategy, samples)
    strategy.privacy.protect(user)
    payload = {
        "parameters": [p.detach().clone() for p in strategy.model.parameters()],
        "buffers": None,
    }
    shared, _ = user.compute_local_updates(payload)
    return Answer(
        model=strategy.model,
        loss=loss,
        plan=plan_of(row.user_type, strategy.config.lr),
        payload=payload,
        shared=shared,
        views=views,
        samples=samples,
        domain=Columns.of(split.others) if samples.ndim == 2 else Pixels(),
        seed=seed,
        party=strategy.config.party,
        round_index=strategy.round_index,
        users=KINDS[row.user_type].users,
    )


def _user(
    config: AuditConfig, row: Row, strategy: SelfSupervisedStrategy, samples: torch.Tensor
) -> UserSingleStep:
    """Return a user of the samples; the server is told their number, no more."""
    kind = KINDS[row.user_type]
    plan = plan_of(row.user_type, strategy.config.lr)
    per_user = config.images // kind.users
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
        [{"inputs": part, "ids": torch.arange(len(part))}] for part in samples.chunk(kind.users)
    ]
    args = (strategy.model, strategy.objective)
    if issubclass(kind.user, MultiUserAggregate):
        return kind.user(*args, loaders, _SETUP, cfg_user, range(kind.users), shares="update")
    # As the strategies' users do, here too.
    options: dict[str, Any] = {"exact_statistics": False} if kind.shares == "gradient" else {}
    return kind.user(*args, loaders[0], _SETUP, 0, cfg_user, **options)
