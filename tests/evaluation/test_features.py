import re

import numpy as np
import pytest
import torch
from torch import nn

from orchestra_strategy.errors import DataError, ModelError, ParameterError
from orchestra_strategy.evaluation import extract_features


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (10, 4, 4)).astype(np.uint8)


@pytest.fixture
def net():
    """A network whose output depends on its mode: BatchNorm and dropout."""
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(1, 3, 3)
    for parameter in conv.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return nn.Sequential(conv, nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten())


class Spy(nn.Module):
    """Keeps what it saw; doubles its input."""

    def __init__(self):
        super().__init__()
        self.inner = nn.BatchNorm1d(2)
        self.seen = []

    def forward(self, x):
        self.seen.append((self.training, self.inner.training, torch.is_grad_enabled(), x))
        return 2 * x


def table(rows):
    return np.arange(2.0 * rows).reshape(rows, 2)


def test_all_rows_in_order_with_a_last_batch_that_is_not_full():
    spy = Spy()
    out = extract_features(spy, table(10), batch_size=4)
    assert out.dtype == np.float32
    assert out.tolist() == (2 * table(10)).tolist()
    assert [len(x) for *_, x in spy.seen] == [4, 4, 2]


def test_images_are_normalised_as_in_training(images):
    # uint8 v becomes (v / 255 - 0.5) / 0.5, with a channel axis that Flatten removes again.
    out = extract_features(nn.Flatten(), images, batch_size=3)
    np.testing.assert_allclose(out, images.reshape(10, 16) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 512])
def test_batch_size_changes_nothing(net, images, batch_size):
    np.testing.assert_allclose(
        extract_features(net, images, batch_size), extract_features(net, images, 5), atol=1e-6
    )


def test_numpy_and_torch_give_the_same(net, images):
    same = extract_features(net, torch.from_numpy(images)) == extract_features(net, images)
    assert same.all()


def test_runs_in_evaluation_mode_without_gradient():
    spy = Spy().train()
    extract_features(spy, table(3))
    assert [seen[:3] for seen in spy.seen] == [(False, False, False)]


def test_what_the_model_caches_is_usable_in_training():
    spy = Spy()
    extract_features(spy, table(3))
    assert not spy.seen[0][3].is_inference()


@pytest.mark.parametrize("fails", [False, True])
def test_training_mode_comes_back_per_submodule(fails):
    spy = Spy().train()
    spy.inner.eval()  # a part that the caller froze
    if fails:
        with pytest.raises(DataError):
            extract_features(spy, np.full((2, 2), np.nan))
    else:
        extract_features(spy, table(3))
    assert (spy.training, spy.inner.training) == (True, False)


def test_weights_and_batchnorm_statistics_are_untouched(net, images):
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    extract_features(net, images)
    after = net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_read_only_input_is_copied_not_shared():
    torch.set_warn_always(True)  # torch gives this warning once per process otherwise
    try:
        x = table(3)
        x.flags.writeable = False
        extract_features(nn.Identity(), x)  # pytest would turn the warning into an error
    finally:
        torch.set_warn_always(False)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((0, 2)), "`x` to be non-empty images (n, H, W), (n, C, H, W) or a table (n, F), "
         "got shape (0, 2)"),
        (np.ones(3), "got shape (3,)"),
        (np.where(np.arange(12).reshape(6, 2) == 9, np.nan, 1.0), "NaN or infinite values in row "
         "4. Impute"),
        (torch.tensor([[1.0, 2.0], [torch.inf, 0.0]]), "NaN or infinite values in row 1."),
        (np.array([["a", "b"]]), "`x` to be numeric, got dtype <U1"),
    ],
)  # fmt: skip
def test_refuses_data(x, message):
    with pytest.raises(DataError, match=re.escape(message)):
        extract_features(Spy(), x, batch_size=3)


class Gives(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: (x, x), "features (B, d) with B = 3, got tuple. Give the backbone"),
        (lambda x: x[:, :, None], "features (B, d) with B = 3, got (3, 2, 1)"),
        (lambda x: x[:1], "features (B, d) with B = 3, got (1, 2)"),
        (
            lambda x: x.where(x < 9, torch.nan),
            "`model(x)` to be finite, got NaN or infinite features for row 4. The training has",
        ),
    ],
)
def test_refuses_output(function, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        extract_features(Gives(function), table(6), batch_size=3)


def test_refuses_a_model_on_two_devices():
    model = nn.Linear(2, 2)
    model.register_buffer("elsewhere", torch.empty(1, device="meta"))
    with pytest.raises(ModelError, match="`model` to have all its weights on one device, got cpu,"):
        extract_features(model, table(3))


def test_refuses_a_batch_size_below_1():
    with pytest.raises(ParameterError, match="`batch_size` to be at least 1, got 0"):
        extract_features(nn.Identity(), table(3), batch_size=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_model_comes_back_from_the_gpu(net, images):
    on_gpu = extract_features(net, images, device="cuda")
    assert {p.device.type for p in net.parameters()} == {"cpu"}
    np.testing.assert_allclose(on_gpu, extract_features(net, images), atol=1e-4)
