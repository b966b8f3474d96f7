"""The audited party: its data, its users, and a training of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch
from orchestra_strategy.audit.attacks import Plan
from orchestra_strategy.audit.objectives import SUPERVISED, Subject
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.data.batches import round_batches
from orchestra_strategy.data.loading import load_local
from orchestra_strategy.data.local_data import LocalData
from orchestra_strategy.data.view_set import to_unit_images
from orchestra_strategy.data.views import build_views
from orchestra_strategy.errors import DataError
from orchestra_strategy.privacy.local import LocalPrivacy
from orchestra_strategy.rng import numpy_generator, torch_generator
from orchestra_strategy.users import UserMultiStep, UserSingleStep, construct_user

__all__ = ["Split", "audited_user", "plan_of", "read_data", "split_of", "subject_of", "train"]

_SETUP = {"device": torch.device("cpu"), "dtype": torch.float32}
_ROUNDS = 3  # of the training; Orchestra's centroids are made anew between them
_SHARERS = 2  # steps, or users, that the attacked samples are dealt to


@dataclass(frozen=True)
class Split:
    """Members, on which the encoder is trained, and others of the same party, which it never sees.

    Attributes:
        members: Pixels in [0, 1], shape (m, C, H, W).
        others: The same number of other samples.
        member_labels: (m,) int64, or None.
        other_labels: (m,) int64, or None.
    """

    members: Tensor
    others: Tensor
    member_labels: Tensor | None
    other_labels: Tensor | None

    @property
    def classes(self) -> int:
        """The number of classes, 0 without labels."""
        both = (self.member_labels, self.other_labels)
        return max((int(labels.max()) + 1 for labels in both if labels is not None), default=0)


def read_data(path: str, **options: Any) -> LocalData:
    """Read a party's data, or scikit-learn's digits for the path ``digits``.

    Raises:
        DataError: There is nothing that can be read.
    """
    if path != "digits":
        return load_local(path, **options)
    digits = load_digits()
    return LocalData((digits.images / 16).astype(np.float32), digits.target.astype(np.int64))


def split_of(data: LocalData, config: AuditConfig) -> Split:
    """Deal the samples to members and others, by seed.

    Raises:
        DataError: They are no square images with pixels in [0, 1], or too few, or a supervised
            strategy has no labels.
    """
    if data.samples.ndim < 3:
        raise DataError(
            f"Expected images (N, H, W) or (N, C, H, W) to audit, got shape {data.samples.shape}: "
            "reconstructions of tables have no score here."
        )
    if config.strategy == SUPERVISED and data.labels is None:
        raise DataError("Expected labels for strategy 'supervised', got data without any.")
    size = min(config.members, len(data) // 2)
    least = max(config.images, config.batch_size)
    if size < least:
        raise DataError(
            f"Expected at least 2 * {least} samples (twice the larger of `images` and "
            f"`batch_size`), got {len(data)}."
        )
    order = numpy_generator(config.seed, "party", 0, "split").permutation(len(data))[: 2 * size]
    samples = to_unit_images(torch.from_numpy(np.array(data.samples[order])))
    if not ((samples >= 0) & (samples <= 1)).all():
        raise DataError("Expected pixels to be uint8 or in [0, 1], got others; scale them first.")
    labels = None if data.labels is None else torch.from_numpy(np.array(data.labels[order]))
    return Split(
        samples[:size],
        samples[size:],
        None if labels is None else labels[:size],
        None if labels is None else labels[size:],
    )


def subject_of(config: AuditConfig) -> Subject:
    """Return what the configuration audits.

    Raises:
        ParameterError: The strategy, one of its parameters or the views are unknown.
    """
    return Subject(
        config.strategy,
        build_views(config.views, **config.view_options),
        *(config.backbone, config.norm, config.hidden_dim, config.projection_dim),
        *(config.num_global_clusters, config.parameters, config.seed),
    )


def plan_of(user_type: str, lr: float) -> Plan:
    """Return the training that a kind of user is asked for."""
    if user_type == "local_gradient":
        return Plan()
    # An aggregate's users have one step each: attacked as if they were one user.
    return Plan("update", _SHARERS if user_type == "local_update" else 1, lr)


def audited_user(
    user_type: str,
    model: nn.Module,
    objective: Any,
    split: Split,
    config: AuditConfig,
    privacy: LocalPrivacy,
) -> UserSingleStep:
    """Return a user of the first ``images`` members; the server is told their number, no more."""
    users = _SHARERS if user_type == "multiuser_aggregate" else 1
    plan = plan_of(user_type, config.lr)
    per_user = config.images // users
    cfg_user = SimpleNamespace(
        user_type=user_type,
        user_idx=0,
        user_range=(0, users),
        num_data_points=per_user,
        num_local_updates=plan.steps,
        num_data_per_local_update_step=per_user // plan.steps,
        local_learning_rate=plan.lr,
        provide_num_data_points=True,
        local_diff_privacy=privacy,
        seed=config.seed,
    )
    labels = split.member_labels
    cfg_data = SimpleNamespace(
        inputs=split.members[: config.images],
        labels=None if labels is None else labels[: config.images],
        default_clients=users,
        batch_size=per_user,
        partition="mixup",
    )
    cfg = SimpleNamespace(user=cfg_user, data=cfg_data)
    return construct_user(model, objective, cfg, _SETUP, keep_true_data=True)


def train(
    subject: Subject, split: Split, config: AuditConfig, privacy: LocalPrivacy
) -> tuple[nn.Module, Any]:
    """Train on the members alone, as a party of one; return the model and its objective."""
    channels = split.members.shape[1]
    server = subject.build_model(channels, split.classes)
    stream = torch_generator(config.seed, "party", 0, "views")
    objective = subject.party_objective(server, subject.views, split.members, stream)
    rounds = min(_ROUNDS, config.passes)
    pending: list[Iterator[Batch]] = []
    user = UserMultiStep(
        server,
        objective,
        None,
        _SETUP,
        0,
        SimpleNamespace(seed=config.seed, local_diff_privacy=privacy),
        optimizer_fn=lambda p: torch.optim.SGD(p, lr=config.lr, momentum=config.momentum),
        batches=lambda: pending.pop(),
    )
    for index in range(rounds):
        passes = config.passes // rounds + (index < config.passes % rounds)
        pending.append(_batches(split, config, passes, index))
        payload = {"parameters": [p.detach().clone() for p in user.model.parameters()]}
        user.compute_local_updates(payload)
        subject.cluster(objective, stream)
    return user.model, objective


def _batches(split: Split, config: AuditConfig, passes: int, index: int) -> Iterator[Batch]:
    size = min(config.batch_size, len(split.members))
    for rows in round_batches(len(split.members), size, passes, config.seed, "party", index):
        batch = {"inputs": split.members[rows], "ids": torch.from_numpy(np.array(rows))}
        if split.member_labels is not None:
            batch["labels"] = split.member_labels[rows]
        yield batch
