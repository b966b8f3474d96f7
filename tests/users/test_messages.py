import pytest
import torch

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.users import MultiUserAggregate, UserMultiStep, UserSingleStep
from orchestra_strategy.users.messages import load_payload
from tests.users import toy


def broken(change):
    sent = toy.payload(toy.norm_net(), buffers=True)
    change(sent)
    return sent


FAULTS = {
    "one parameter too few": (
        lambda s: s["parameters"].pop(),
        r"`server_payload\['parameters'\]` to be a list of 6 tensors, as many as.*got 5",
    ),
    "one buffer too many": (
        lambda s: s["buffers"].append(torch.zeros(1)),
        r"`server_payload\['buffers'\]` to be a list of 3 tensors.*got 4",
    ),
    "a shape that would broadcast": (
        lambda s: s["parameters"].__setitem__(1, torch.zeros(1)),
        r"`server_payload\['parameters'\]\[1\]` \(`0.bias`\).*shape \(5,\), got shape \(1,\)",
    ),
    "transposed": (
        lambda s: s["parameters"].__setitem__(0, s["parameters"][0].T),
        r"\(`0.weight`\) to be a tensor of shape \(5, 4\), got shape \(4, 5\)",
    ),
    "a buffer's shape": (
        lambda s: s["buffers"].__setitem__(0, torch.zeros(4)),
        r"`server_payload\['buffers'\]\[0\]` \(`1.running_mean`\).*\(5,\), got shape \(4,\)",
    ),
    "no tensor": (
        lambda s: s["parameters"].__setitem__(1, [0.0] * 5),
        r"\(`0.bias`\) to be a tensor of shape \(5,\), got <class 'list'>",
    ),
    "a generator, which one reading would use up": (
        lambda s: s.update(parameters=iter(s["parameters"])),
        r"`server_payload\['parameters'\]` to be a list of 6 tensors.*got list_iterator",
    ),
    "no parameters": (
        lambda s: s.pop("parameters"),
        r"`server_payload` to be dict\(parameters=.*got \['buffers'\]",
    ),
}  # fmt: skip

CLASSES = (UserSingleStep, UserMultiStep, MultiUserAggregate)


def make_user(user_class):
    model, loss = toy.norm_net(), torch.nn.CrossEntropyLoss()
    if user_class is MultiUserAggregate:
        loaders = [toy.loader(), toy.loader()]
        return user_class(model, loss, loaders, toy.SETUP, toy.cfg(), range(2))
    return user_class(model, loss, toy.loader(), toy.SETUP, 0, toy.cfg())


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named_and_nothing_is_copied(name):
    change, message = FAULTS[name]
    model = toy.norm_net()
    before = toy.copies(model.state_dict().values())
    with pytest.raises(ReplyError, match=message):
        load_payload(model, broken(change))
    toy.assert_close(list(model.state_dict().values()), before, 0)


@pytest.mark.parametrize("user_class", CLASSES)
def test_every_user_refuses_and_works_on(user_class):
    one = make_user(user_class)
    with pytest.raises(ReplyError, match="list of 6 tensors"):
        one.compute_local_updates(broken(FAULTS["one parameter too few"][0]))
    shared, _ = one.compute_local_updates(toy.payload(one.model, buffers=True))
    assert len(shared["gradients"]) == 6


def test_no_mapping():
    with pytest.raises(ReplyError, match=r"`server_payload` to be dict.*got \[1, 2\]"):
        load_payload(toy.plain_net(), [1, 2])


def test_other_dtypes_are_converted_and_further_entries_ignored():
    model = toy.norm_net()
    sent = toy.payload(model, buffers=True)
    doubled = {name: [t.double() for t in tensors] for name, tensors in sent.items()}
    load_payload(model, {**doubled, "metadata": "the server's own"})
    toy.assert_close([p.detach() for p in model.parameters()], sent["parameters"])
    toy.assert_close(list(model.buffers()), sent["buffers"])


def test_no_entry_for_buffers_is_none():
    model = toy.norm_net().eval()
    load_payload(model, {"parameters": toy.payload(model)["parameters"]})
    assert model.training
