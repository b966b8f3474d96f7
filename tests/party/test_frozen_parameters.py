"""Frozen parameters of a pretrained backbone stay as they are, in every kind of user."""

from functools import partial

import pytest
import torch

from orchestra_strategy import OrchestraPrivateStrategy, OrchestraStrategy
from tests.federated import toy


def frozen_model(norm="batch"):
    model = toy.MODEL(norm=norm)
    model.backbone.body[0].requires_grad_(False)
    return model


PRIVATE = {"privacy": "user", "noise_multiplier": 1.0, "noise_seed": 1}


@pytest.mark.parametrize("user_type", ["local_update", "local_gradient", "multiuser_aggregate"])
@pytest.mark.parametrize("privacy", [{}, PRIVATE], ids=["open", "private"])
def test_no_decay_and_no_noise_moves_them(user_type, privacy):
    cls = OrchestraPrivateStrategy if privacy else OrchestraStrategy
    norm = "group+batch" if privacy else "batch"
    options = {**toy.PARAMETERS, "lr": 0.1, "weight_decay": 0.1, "num_virtual_users": 2}
    party = cls(
        partial(frozen_model, norm), random_seed=7, **{**options, **privacy}, user_type=user_type
    )
    party.build_dataset(toy.images("alice"))
    before = {n: p.detach().clone() for n, p in party.model.named_parameters()}
    for _ in range(4):
        wire, _ = party.train_step(None, 0, 1)
    # Nor do they travel, once all parties have the same.
    frozen = [n for n, p in party.model.named_parameters() if not p.requires_grad]
    assert frozen
    names = {name.split("/", 1)[1] for name in wire["arrays"] if "s/" in name}
    assert not names & set(frozen)
    rows = {row["name"]: row["when"] for row in party.manifest_rows()}
    assert [rows[f"weights/{name}"] for name in frozen] == ["start"] * len(frozen)
    for name, parameter in party.model.named_parameters():
        moved = not torch.equal(before[name], parameter)
        assert moved == parameter.requires_grad, name
