import math

import pytest
import torch

from orchestra_strategy.algorithms.rotpred import RotPredObjective, rotation_loss
from orchestra_strategy.errors import ModelError
from orchestra_strategy.privacy import per_example_clipped_mean
from tests.algorithms import tiny
from tests.reference import baselines as slow

HEADS = ("degeneracy_head",)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_loss_equals_the_slow_version(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(6, 4, generator=generator)
    rotation = torch.randint(4, (6,), generator=generator)
    want = slow.rotation_loss(logits.tolist(), rotation.tolist())
    assert rotation_loss(logits, rotation).item() == pytest.approx(want, abs=1e-5)


def test_loss_by_hand():
    logits = torch.tensor([[math.log(5.0), 0.0, 0.0, 0.0]] * 2)  # chances 5/8, 1/8, 1/8, 1/8
    want = -(math.log(5 / 8) + math.log(1 / 8)) / 2
    assert rotation_loss(logits, torch.tensor([0, 2])).item() == pytest.approx(want, abs=1e-6)


def test_the_network_sees_the_turned_view_alone_and_the_answer_fits_it():
    model, seen = tiny.model(HEADS), []
    model.backbone.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    objective = tiny.objective(RotPredObjective, model)
    _, _, x3, rotation = tiny.VIEWS(tiny.images(8), torch.Generator().manual_seed(1))
    loss, prepared = objective.per_example(model, tiny.batch(8))
    loss(model, prepared)
    assert len(seen) == 1
    assert torch.equal(seen[0], x3)
    assert torch.equal(prepared["rotation"], rotation)


def test_gradient_reaches_encoder_and_head():
    model = tiny.model(HEADS)
    tiny.objective(RotPredObjective, model)(model, tiny.batch(16)).total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_it_learns_from_chance_and_keeps_projections_apart():
    model = tiny.model(HEADS)
    losses = tiny.train(model, tiny.objective(RotPredObjective, model))
    assert losses[0] == pytest.approx(math.log(4), abs=0.3)
    assert sum(losses[-5:]) / 5 < 1.0
    assert tiny.effective_rank(tiny.projections(model)) > 8


def test_with_wrong_answers_it_does_not_learn():
    """What the bound on the loss above can tell apart."""
    model = tiny.model(HEADS)
    objective = tiny.objective(RotPredObjective, model)

    def shuffled(model, batch):
        loss, prepared = objective.per_example(model, batch)
        return loss(model, {**prepared, "rotation": prepared["rotation"].roll(1)})

    assert sum(tiny.train(model, shuffled)[-5:]) / 5 > 1.2


def test_per_example_gradients_are_the_batch_gradient_where_nothing_is_clipped():
    model = tiny.model(HEADS, norm="group")
    plain, clipped = (tiny.objective(RotPredObjective, model) for _ in range(2))
    plain(model, tiny.batch(8)).total.backward()
    got = per_example_clipped_mean(clipped, model, tiny.batch(8), clip_norm=1e6)
    for p, gradient in zip(model.parameters(), got.gradients):
        assert torch.allclose(p.grad, gradient, atol=1e-5)


def test_a_model_without_the_head_is_refused():
    with pytest.raises(ModelError, match=r"without `degeneracy_head`.*\('degeneracy_head',\)"):
        tiny.objective(RotPredObjective, tiny.model(("predictor",)))
