import math

import numpy as np
import pytest
import torch

from orchestra_strategy.algorithms.model import orchestra_model
from orchestra_strategy.algorithms.supervised import ClassObjective, class_loss
from orchestra_strategy.errors import DataError, ModelError, ParameterError
from orchestra_strategy.privacy import per_example_clipped_mean
from tests.algorithms import tiny

HEADS = ("classifier",)


def batch(n=64):
    """Blobs, by the third of the picture that they are brightest in."""
    images = tiny.images(n)
    place = (images.sum(1) * torch.arange(8)).sum(1) / images.sum((1, 2))
    labels = torch.from_numpy(np.digitize(place.numpy(), (3.0, 5.0)))
    return {"inputs": images, "ids": torch.arange(n), "labels": labels}


def test_loss_by_hand():
    logits = torch.tensor([[math.log(6.0), 0.0, 0.0], [math.log(6.0), 0.0, 0.0]])  # 6/8, 1/8, 1/8
    loss = class_loss(logits, torch.tensor([0, 2]))
    want = -(math.log(6 / 8) + math.log(1 / 8)) / 2
    assert loss.total.item() == pytest.approx(want, abs=1e-6)
    assert loss.parts["accuracy"].item() == 0.5


def test_the_network_sees_one_view_and_its_labels():
    model, seen = tiny.model(HEADS), []
    model.backbone.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    loss, prepared = tiny.objective(ClassObjective, model).per_example(model, batch(8))
    loss(model, prepared)
    x1 = tiny.VIEWS(tiny.images(8), torch.Generator().manual_seed(1)).x1
    assert [torch.equal(x, x1) for x in seen] == [True]
    assert torch.equal(prepared["labels"], batch(8)["labels"])


def test_it_learns_its_labels_and_gradient_reaches_every_part():
    model = tiny.model(HEADS)
    objective = tiny.objective(ClassObjective, model)
    losses = tiny.train(model, lambda m, _: objective(m, batch()))
    assert losses[0] == pytest.approx(math.log(3), abs=0.4)
    assert sum(losses[-5:]) / 5 < 0.5
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_per_example_gradients_are_the_batch_gradient_where_nothing_is_clipped():
    model = tiny.model(HEADS, norm="group")
    plain, clipped = (tiny.objective(ClassObjective, model) for _ in range(2))
    plain(model, batch(8)).total.backward()
    got = per_example_clipped_mean(clipped, model, batch(8), clip_norm=1e6)
    for p, gradient in zip(model.parameters(), got.gradients):
        assert torch.allclose(p.grad, gradient, atol=1e-5)


def test_a_batch_without_labels_and_a_model_without_classifier_are_refused():
    model = tiny.model(HEADS)
    with pytest.raises(DataError, match=r"`labels` for a supervised .*\['ids', 'inputs'\]"):
        tiny.objective(ClassObjective, model)(model, tiny.batch(8))
    with pytest.raises(ModelError, match=r"without `classifier`.*\('classifier',\)"):
        tiny.objective(ClassObjective, tiny.model(("predictor",)))


@pytest.mark.parametrize("num_classes", [None, 1])
def test_a_classifier_needs_the_number_of_classes(num_classes):
    with pytest.raises(
        ParameterError, match="`num_classes` of the model to be a whole number of at least 2 for"
    ):
        orchestra_model("conv4", in_channels=1, heads=HEADS, num_classes=num_classes)
    model = orchestra_model("conv4", in_channels=1, heads=HEADS, num_classes=5)
    assert model.classifier.out_features == 5
