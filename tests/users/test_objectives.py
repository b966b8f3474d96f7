"""How users call models and losses."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.users import MultiUserAggregate, UserMultiStep, UserSingleStep
from orchestra_strategy.users.objectives import SupervisedObjective, as_objective, model_outputs
from tests.reference import users as reference
from tests.users import toy


def twice(outputs, labels):
    return 2 * F.cross_entropy(outputs, labels)


LOSSES = {
    "a torch function": (F.cross_entropy, 1),
    "a partial": (functools.partial(F.cross_entropy, reduction="mean"), 1),
    "a function": (twice, 2),
    "short names": (lambda o, y: 3 * F.cross_entropy(o, y), 3),
    "a module": (nn.CrossEntropyLoss(), 1),
    "an objective": (
        lambda model, batch: F.cross_entropy(model(batch["inputs"]), batch["labels"]),
        1,
    ),
    "an objective in short": (lambda m, b: F.cross_entropy(m(b["inputs"]), b["labels"]), 1),
}


def answer(user_class, model, loss, batch, cfg_user):
    if user_class is MultiUserAggregate:
        one = user_class(model, loss, [[batch]], toy.SETUP, cfg_user, [0])
    else:
        one = user_class(model, loss, [batch], toy.SETUP, 0, cfg_user)
    return one.compute_local_updates(toy.payload(model))[0]["gradients"]


@pytest.mark.parametrize("user_class", [UserSingleStep, UserMultiStep, MultiUserAggregate])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_every_kind(user_class, name):
    loss, factor = LOSSES[name]
    model, (x, y) = toy.plain_net(), toy.samples(rows=6)
    cfg_user = toy.cfg(num_local_updates=1, num_data_per_local_update_step=6)
    mine = toy.plain_net()
    reference.load(mine, toy.payload(model)["parameters"])
    gradient = reference.gradient(toy.reference_loss, mine, x, y)
    scale = -0.1 * factor if user_class is UserMultiStep else factor
    got = answer(user_class, model, loss, (x, y), cfg_user)
    toy.assert_close(got, [scale * g for g in gradient])


def test_what_a_callable_object_is_says_its_call():
    class Objective:
        def __call__(self, model, batch): ...

    class Loss:
        def __call__(self, logits, target): ...

    def anything(*args): ...

    objective = Objective()
    assert as_objective(objective) is objective
    assert as_objective(anything) is anything
    assert isinstance(as_objective(Loss()), SupervisedObjective)


def test_names_that_do_not_say_what_a_loss_takes():
    with pytest.raises(
        ParameterError, match=r"\(outputs, labels\) or \(model, batch\), got \(a, z\)"
    ):
        as_objective(lambda a, z: a + z)


def test_a_loss_function_without_labels():
    with pytest.raises(DataError, match="`labels` for the supervised loss twice, got a batch of"):
        answer(UserSingleStep, toy.plain_net(), twice, (toy.samples()[0],), toy.cfg())


class Masked(nn.Module):
    """Wants a mask beside its inputs, by name."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, toy.CLASSES)

    def forward(self, inputs, mask):
        return self.out(inputs * mask)


class MaskedAnyName(Masked):
    def forward(self, x, *, mask):
        return super().forward(x, mask)


class MaskFirst(Masked):
    def forward(self, mask, inputs):
        return super().forward(inputs, mask)


class Wrapped(nn.Module):
    """Takes whatever comes, as the field's containers do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs, **others):
        assert "labels" not in others
        return self.inner(inputs, others["mask"])


def masked_batch():
    x, y = toy.samples(rows=6)
    return {"inputs": x, "labels": y, "mask": (x > 0).float()}


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("make", [Masked, MaskedAnyName, MaskFirst, lambda: Wrapped(Masked())])
def test_more_tensors_of_a_batch_go_to_the_model_by_name(make, clip):
    torch.manual_seed(0)
    model, batch = make(), masked_batch()
    mine = Masked()
    reference.load(mine, toy.payload(model)["parameters"])
    masked = batch["inputs"] * batch["mask"]
    loss = lambda model, x, y: F.cross_entropy(model.out(x), y)  # noqa: E731
    cfg_user = toy.cfg(local_diff_privacy={"per_example_clipping": clip})
    got = answer(UserSingleStep, model, nn.CrossEntropyLoss(), batch, cfg_user)
    expected = (
        reference.clipped_gradient(loss, mine, masked, batch["labels"], clip)
        if clip
        else reference.gradient(loss, mine, masked, batch["labels"])
    )
    toy.assert_close(got, expected)


def test_every_local_step_has_its_rows_of_all_tensors():
    torch.manual_seed(0)
    model, batch = Masked(), masked_batch()
    mine = Masked()
    reference.load(mine, toy.payload(model)["parameters"])
    loss = lambda model, x, y: F.cross_entropy(model.out(x), y)  # noqa: E731
    masked = batch["inputs"] * batch["mask"]
    expected, _ = reference.local_sgd(loss, mine, masked, batch["labels"], steps=4, size=2, lr=0.1)
    toy.assert_close(
        answer(UserMultiStep, model, nn.CrossEntropyLoss(), batch, toy.cfg()), expected
    )


def test_a_model_that_does_not_take_a_tensor_of_the_batch():
    message = r"Linear.forward to take `mask` of the batch, got one that takes \['input'\]"
    with pytest.raises(DataError, match=message):
        model_outputs(nn.Linear(4, 2), masked_batch())


def test_labels_and_ids_go_to_models_that_name_them():
    class Conditional(nn.Module):
        def forward(self, inputs, labels, ids=None):
            return inputs.sum(1) + 10 * labels + 100 * ids

    batch = {
        "inputs": torch.tensor([[1.0, 2.0]]), "labels": torch.tensor([3]), "ids": torch.tensor([4])
    }  # fmt: skip
    assert model_outputs(Conditional(), batch).tolist() == [433.0]
    assert model_outputs(nn.Identity(), batch).tolist() == [[1.0, 2.0]]


def test_a_scripted_model():
    model = torch.jit.script(nn.Linear(4, 2))
    x, _ = toy.samples()
    torch.testing.assert_close(model_outputs(model, {"inputs": x}), model(x))
