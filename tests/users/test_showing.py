"""A look at user data: printed text and plotted images; and the settings to be read."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.users import MultiUserAggregate, UserMultiStep, UserSingleStep
from tests.users import toy


class Tokenizer:
    WORDS = ("a", "b", "c", "d")

    def batch_decode(self, rows):
        return [" ".join(self.WORDS[i] for i in row) for row in rows.tolist()]


def dataset(data, labels=None, **attributes):
    made = TensorDataset(data, torch.arange(len(data)) if labels is None else labels)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def user(data, model=None, kind=UserSingleStep):
    loader = DataLoader(Subset(data, range(len(data))), batch_size=2)
    loss, cfg_user = nn.CrossEntropyLoss(), toy.cfg(num_data_points="all")
    if kind is MultiUserAggregate:
        return kind(model or toy.plain_net(), loss, [loader], toy.SETUP, cfg_user, [7])
    return kind(model or toy.plain_net(), loss, loader, toy.SETUP, 0, cfg_user)


KINDS = [UserSingleStep, UserMultiStep, MultiUserAggregate]


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    pyplot.close("all")


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_decoded(kind, capsys):
    one = user(dataset(torch.zeros(2, 3).long(), tokenizer=Tokenizer()), kind=kind)
    one.print({"data": torch.tensor([[0, 1], [3, 2]])})
    assert capsys.readouterr().out == "a b\nd c\n"


def test_text_without_a_tokenizer():
    with pytest.raises(ParameterError, match="to have a `tokenizer` to print its data, got Subset"):
        user(dataset(torch.zeros(2, 3))).print({"data": torch.zeros(2, 2).long()})


def drawn():
    return [
        (axis.images[0].get_array(), axis.get_title()) for axis in pyplot.gcf().axes if axis.images
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_those_before_the_normalisation(kind):
    pixels = torch.rand(3, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    shift, spread = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    normalised = (pixels - shift) / spread
    one = user(dataset(normalised, mean=mean, std=std, classes=["x", "y", "z"]), kind=kind)
    before = normalised.clone()
    one.plot({"data": normalised, "labels": torch.tensor([2, 0, 1])}, print_labels=True)
    assert torch.equal(normalised, before)
    assert len(pyplot.gcf().axes) == 4
    assert [title for _, title in drawn()] == ["z", "x", "y"]
    for (image, _), expected in zip(drawn(), pixels, strict=True):
        np.testing.assert_allclose(image, expected.permute(1, 2, 0).numpy(), atol=1e-6)


def test_what_is_out_of_range_is_cut_or_stretched():
    image = torch.tensor([[[-1.0, 0.5], [0.0, 3.0]]])  # grey, without a channel
    one = user(dataset(image))
    one.plot({"data": image, "labels": None}, print_labels=True)
    assert drawn()[0][0].tolist() == [[0.0, 0.5], [0.0, 1.0]]
    assert drawn()[0][1] == ""
    one.plot({"data": image, "labels": torch.tensor([5])}, scale=True, print_labels=True)
    assert drawn()[0][0].tolist() == [[0.0, 0.375], [0.25, 1.0]]
    assert drawn()[0][1] == "5"
    one.plot({"data": (image.clamp(0, 1) * 255).byte()})
    assert drawn()[0][0].tolist() == [[0.0, pytest.approx(127 / 255)], [0.0, 1.0]]


def test_what_cannot_be_shown():
    one = user(dataset(torch.zeros(2, 4)))
    with pytest.raises(DataError, match=r"Expected images .* to plot, got shape \(2, 4\)"):
        one.plot({"data": torch.zeros(2, 4), "labels": None})
    with pytest.raises(DataError, match="got NoneType; make the user with keep_true_data=True"):
        one.plot({"data": None, "labels": None})


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_there_to_be_read(kind):
    told = {"provide_labels": True, "provide_buffers": True}
    cfg_user = toy.cfg(**told, local_diff_privacy={"per_example_clipping": 0.5})
    where = ([toy.loader()] * 2, toy.SETUP, cfg_user, range(2))
    if kind is not MultiUserAggregate:
        where = (toy.loader(), toy.SETUP, 0, cfg_user)
    one = kind(toy.plain_net(), nn.CrossEntropyLoss(), *where)
    assert (one.num_data_points, one.clip_value) == (6, 0.5)
    assert (one.provide_labels, one.provide_buffers) == (True, True)
    assert (one.provide_num_data_points, one.provide_local_hyperparams) == (False, False)
    if kind is not UserSingleStep:
        assert (one.num_local_updates, one.num_data_per_local_update_step) == (4, 2)
        assert one.local_learning_rate == 0.1
    if kind is MultiUserAggregate:
        assert one.num_users == 2
    with pytest.raises(AttributeError):
        one.provide_labels = False
