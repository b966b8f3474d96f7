"""The audit: every privacy setting is trained under, asked for replies, and attacked.

In the attacked round the model is untrained: the first round of a federated training, when
gradients tell most.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from orchestra_strategy.audit.accounting import epsilon_of
from orchestra_strategy.audit.attacks import attack
from orchestra_strategy.audit.membership import (
    Auc,
    alignment_scores,
    auc_with_interval,
    loss_scores,
)
from orchestra_strategy.audit.objectives import Subject, rowwise
from orchestra_strategy.audit.parts import RecordedViews, pixels
from orchestra_strategy.audit.party import (
    Split,
    audited_user,
    plan_of,
    split_of,
    subject_of,
    train,
)
from orchestra_strategy.audit.results import Audit, Reply, SettingResult, Utility
from orchestra_strategy.audit.scores import leakage
from orchestra_strategy.audit.settings import AuditConfig, PrivacySetting
from orchestra_strategy.audit.span import span_attack
from orchestra_strategy.data.local_data import LocalData
from orchestra_strategy.evaluation import extract_features, health_of, knn_accuracy
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.threads import torch_threads

__all__ = ["run_audit"]


def run_audit(
    data: LocalData,
    config: AuditConfig,
    name: str = "data",
    tell: Callable[[str], None] | None = None,
) -> Audit:
    """Audit a strategy on a party's own data; nothing leaves this process.

    Args:
        data: Images, perhaps with labels.
        config: What is audited.
        name: What the data are called in the report.
        tell: Called with a line of progress now and then.

    Raises:
        ParameterError: The configuration contradicts itself.
        DataError: The data cannot be audited.
    """
    begun = time.perf_counter()
    settings = config.privacy_settings()
    subject = subject_of(config)
    split = split_of(data, config)
    results = []
    with torch_threads(config.threads):
        untrained = _utility(
            subject.build_model(split.members.shape[1], split.classes), split, config
        )
        for setting in settings:
            if tell is not None:
                tell(f"{setting.name}: training, membership, {len(config.user_types)} replies")
            results.append(_audit_setting(subject, split, config, setting))
    return Audit(
        config=config,
        data=name,
        sample_shape=tuple(split.members.shape[1:]),
        members=len(split.members),
        untrained=untrained,
        results=tuple(results),
        seconds=time.perf_counter() - begun,
    )


def _audit_setting(
    subject: Subject, split: Split, config: AuditConfig, setting: PrivacySetting
) -> SettingResult:
    model, objective = train(subject, split, config, setting.privacy)
    # Steps, and users, of an attacked reply share its samples, so a gradient is of fewer.
    behind = {"local_gradient": config.images}
    smallest = min(behind.get(user_type, config.images // 2) for user_type in config.user_types)
    smallest_batch = min(config.batch_size, len(split.members)) // 2 + 1
    return SettingResult(
        setting=setting,
        # The last two batches of a pass share what is left: at least half a batch each.
        epsilon_training=epsilon_of(setting.privacy, smallest_batch, config.passes, config.delta),
        epsilon_reply=epsilon_of(setting.privacy, smallest, 1, config.delta),
        utility=_utility(model, split, config),
        membership=_membership(subject, model, objective, split, config),
        replies=tuple(_attacked(subject, split, config, setting, u) for u in config.user_types),
    )


def _attacked(
    subject: Subject, split: Split, config: AuditConfig, setting: PrivacySetting, user_type: str
) -> Reply:
    """Let a user answer one query, attack the answer, and score what was found."""
    model = subject.build_model(split.members.shape[1], split.classes)
    views = RecordedViews(subject.views)
    stream = torch_generator(config.seed, "party", 0, "views of the reply")
    objective = subject.party_objective(model, views, split.members, stream)
    views.drawn.clear()  # those of round 0
    user = audited_user(user_type, model, objective, split, config, setting.privacy)
    payload = {"parameters": [p.detach().clone() for p in model.parameters()], "buffers": None}
    shared, true_data = user.compute_local_updates(payload)
    known, plan = subject.known_loss(model, objective), plan_of(user_type, config.lr)
    samples = true_data["data"]
    assert samples is not None
    others_drawn = subject.views(split.others, torch_generator(config.seed, "auditor", 0, "views"))

    begun = time.perf_counter()
    outcomes = []
    for name in config.attacks:
        seen = known.online if name == "span" else known.views
        truth = views.images(seen) if seen else samples.unsqueeze(1)
        others = pixels(others_drawn, seen) if seen else split.others.unsqueeze(1)
        generator = torch_generator(config.seed, "server", 0, f"{name} {user_type}")
        steps, shape = config.attack_steps, truth.shape[2:]
        if name == "span":
            gradient = plan.as_gradient(shared["gradients"])
            count = truth.shape[0] * truth.shape[1]
            found = span_attack(model, payload, gradient, count, shape, steps, generator)
        else:
            wanted = truth.shape[1:] if seen else shape
            found = attack(model, known, payload, shared, plan, wanted, steps, generator)[1]
        guesses = torch_generator(config.seed, "auditor", 0, "guesses")
        scores, ordered = leakage(found.reshape(-1, *shape), truth, others, guesses)
        outcomes.append((name, scores, truth, ordered))
    name, scores, truth, ordered = max(outcomes, key=lambda outcome: outcome[1].above_control)
    return Reply(user_type, name, scores, time.perf_counter() - begun, truth, ordered)


def _membership(
    subject: Subject, model: nn.Module, objective: Any, split: Split, config: AuditConfig
) -> tuple[Auc, ...]:
    """Threshold the loss, where it is a sample's own, and the likeness of two views."""
    model.eval()
    known = subject.known_loss(model, objective)
    found = []
    for signal in ("loss", "alignment") if rowwise(config.strategy) else ("alignment",):
        scores = []
        for who, samples, labels in (
            ("members", split.members, split.member_labels),
            ("others", split.others, split.other_labels),
        ):
            stream = torch_generator(config.seed, "attacker", 0, f"{signal} {who}")
            if signal == "loss":
                scores.append(loss_scores(model, known, samples, labels, subject.views, stream))
            else:
                scores.append(alignment_scores(model, samples, subject.views, stream))
        found.append(auc_with_interval(scores[0], scores[1], signal))
    return tuple(found)


def _utility(model: nn.Module, split: Split, config: AuditConfig) -> Utility:
    """Measure the backbone on the others; members are the bank of the nearest neighbours."""
    backbone = model.backbone
    assert isinstance(backbone, nn.Module)
    bank, queries = (
        torch.from_numpy(extract_features(backbone, x)) for x in (split.members, split.others)
    )
    accuracy = None
    if split.member_labels is not None and split.other_labels is not None:
        accuracy = knn_accuracy(bank, split.member_labels, queries, split.other_labels, k=20)
    stream = torch_generator(config.seed, "auditor", 0, "health")
    drawn = subject_of(config).views(split.others, stream)
    model.eval()
    with torch.no_grad():
        health = health_of(backbone(drawn.x1), backbone(drawn.x2))
    return Utility(accuracy, health.alignment, health.uniformity, health.effective_rank)
