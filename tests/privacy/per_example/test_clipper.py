import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from orchestra_strategy.algorithms.objective import LossParts
from orchestra_strategy.errors import DataError, ModelError, ParameterError
from orchestra_strategy.privacy import PerExampleClipper, per_example_clipped_mean
from orchestra_strategy.privacy.per_example.factored import gram_is_cheaper, gram_squared_norms
from orchestra_strategy.privacy.per_example.loop import clip_factors, clipped_mean_by_loop
from tests.reference import users as reference

LOGGER = "orchestra_strategy.privacy.per_example.clipper"


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch["inputs"]), batch["labels"])


def reference_loss(model, x, y):
    return F.cross_entropy(model(x), y)


def image_batch(rows=6, channels=2, size=8, classes=3, spread=3.0):
    torch.manual_seed(rows + size)
    # Inputs of very different size: some gradients are above the clip norm, some below.
    scale = torch.logspace(-1, 1, rows).view(-1, 1, 1, 1) * spread
    images = torch.randn(rows, channels, size, size) * scale
    return {"inputs": images, "labels": torch.arange(rows) % classes}


class Residual(nn.Module):
    """Uses one convolution twice, on inputs of two sizes, and a bare parameter."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        x = x + self.scale * self.conv(x)
        x = torch.relu(self.conv(x[..., ::2]))
        return self.head(x.mean((2, 3)))


class Tied(nn.Module):
    """The embedding's weight is also that of the output layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        x = self.norm(self.embed(ids))
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return self.out(x).mean(1)


class WeightOutsideItsLayer(nn.Module):
    """The layer's weight also enters the output directly, in one of two ways."""

    def __init__(self, how):
        super().__init__()
        self.linear, self.how = nn.Linear(4, 3), how

    def forward(self, x):
        out = self.linear(x)
        return out + (
            self.linear.weight.sum() if self.how == "method" else x @ self.linear.weight.T
        )


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 5), nn.Tanh(), nn.Linear(5, 3, bias=False))


def convolutions(**kwargs):
    conv = nn.Conv2d(2, 4, 3, **kwargs)
    return nn.Sequential(
        conv, nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip


MODELS = {
    "mlp": mlp,
    "conv": lambda: convolutions(padding=1),
    "conv without norm's affine": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 5, bias=False), nn.GroupNorm(1, 4, affine=False), nn.Flatten(),
        nn.Linear(64, 3),
    ),
    "stride, dilation": lambda: convolutions(stride=(2, 1), dilation=(1, 2), padding=(0, 1)),
    "grouped": lambda: convolutions(groups=2),
    "same padding": lambda: convolutions(padding="same"),
    "circular padding": lambda: convolutions(padding=1, padding_mode="circular"),
    "narrow layer, many positions": lambda: nn.Sequential(
        nn.Conv2d(2, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(128, 3)
    ),
    "used twice": Residual,
    "batch norm in eval mode": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, 3)
    ).eval(),
    "linear over positions": lambda: nn.Sequential(
        nn.Linear(8, 8), nn.Flatten(), nn.Linear(128, 3)
    ),
}  # fmt: skip


def assert_same(got, expected, tolerance=1e-6):
    assert len(got) == len(expected)
    for g, e in zip(got, expected):
        assert g.shape == e.shape
        torch.testing.assert_close(g, e, atol=tolerance, rtol=1e-5)


def assert_vectorised(caplog):
    assert not [r for r in caplog.records if r.name == LOGGER]


def reference_norms(model, batch):
    """Norm of each example's gradient."""
    rows = zip(batch["inputs"].split(1), batch["labels"].split(1))
    model = copy.deepcopy(model)
    return [reference.norm(reference.gradient(reference_loss, model, x, y)) for x, y in rows]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("clip", ["half of them", "none"])
def test_vectorised_equals_the_loop(name, clip, caplog):
    torch.manual_seed(0)
    model, batch = MODELS[name](), image_batch()
    norms = sorted(reference_norms(model, batch))
    clip_norm = (norms[2] + norms[3]) / 2 if clip == "half of them" else 2 * norms[-1]
    assert norms[0] < clip_norm
    got = per_example_clipped_mean(cross_entropy, model, batch, clip_norm)
    assert_vectorised(caplog)
    loop = clipped_mean_by_loop(cross_entropy, model, batch, clip_norm)
    assert_same(got.gradients, loop.gradients)
    torch.testing.assert_close(got.loss.total, loop.loss.total, atol=1e-6, rtol=1e-6)
    args = (batch["inputs"], batch["labels"])
    expected = reference.clipped_gradient(reference_loss, copy.deepcopy(model), *args, clip_norm)
    assert_same(got.gradients, expected)
    plain = reference.gradient(reference_loss, copy.deepcopy(model), *args)
    difference = reference.norm([a - b for a, b in zip(got.gradients, plain)])
    assert (difference > 1e-3) == (clip == "half of them")
    assert got.loss.total.item() == pytest.approx(reference_loss(model, *args).item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap's, on attention
def test_text_with_tied_weights_and_attention(caplog):
    torch.manual_seed(1)
    model = Tied()
    batch = {"inputs": torch.randint(0, 7, (5, 4)), "labels": torch.arange(5)}
    got = per_example_clipped_mean(cross_entropy, model, batch, 0.8)
    assert_vectorised(caplog)
    assert_same(got.gradients, clipped_mean_by_loop(cross_entropy, model, batch, 0.8).gradients)


@pytest.mark.parametrize("how", ["method", "operator"])
def test_a_weight_used_outside_its_layer(how):
    torch.manual_seed(0)
    model = WeightOutsideItsLayer(how)
    batch = {"inputs": torch.randn(4, 4), "labels": torch.tensor([0, 1, 2, 0])}
    got = per_example_clipped_mean(cross_entropy, model, batch, 0.3)
    assert_same(got.gradients, clipped_mean_by_loop(cross_entropy, model, batch, 0.3).gradients)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    channels=st.integers(1, 3),
    out=st.integers(1, 4),
    height=st.integers(5, 7),
    width=st.integers(5, 8),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    clip_norm=st.sampled_from([0.05, 1.0, 100.0]),
    chunk_size=st.sampled_from([None, 1, 2]),
)
def test_any_convolution(
    rows, channels, out, height, width, kernel, stride, padding, dilation, clip_norm, chunk_size
):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, out, kernel, stride, padding, dilation)
    model = nn.Sequential(conv, nn.Tanh())
    batch = {"inputs": torch.randn(rows, channels, height, width)}

    def objective(model, batch):
        return model(batch["inputs"]).square().mean()

    got = per_example_clipped_mean(objective, model, batch, clip_norm, chunk_size=chunk_size)
    assert_same(got.gradients, clipped_mean_by_loop(objective, model, batch, clip_norm).gradients)


@settings(max_examples=30, deadline=None)
@given(clip_norm=st.floats(1e-3, 1e2), spread=st.floats(0.1, 100.0))
def test_every_examples_norm_is_bounded(clip_norm, spread):
    torch.manual_seed(0)
    model, batch = mlp(), image_batch(spread=spread)
    for i in range(6):
        one = {name: tensor[i : i + 1] for name, tensor in batch.items()}
        got = per_example_clipped_mean(cross_entropy, model, one, clip_norm).gradients
        assert reference.norm(got) <= clip_norm * (1 + 1e-5)


def test_an_example_moves_the_mean_by_at_most_c_over_b():
    torch.manual_seed(0)
    model, batch = mlp(), image_batch(rows=5)
    other = {**batch, "inputs": batch["inputs"].clone()}
    other["inputs"][2] *= 1e3
    a = per_example_clipped_mean(cross_entropy, model, batch, 0.7).gradients
    b = per_example_clipped_mean(cross_entropy, model, other, 0.7).gradients
    moved = reference.norm([x - y for x, y in zip(a, b)])
    assert 0.7 / 5 * 0.5 < moved <= 2 * 0.7 / 5 * (1 + 1e-5)  # replacing: once out, once in


def test_gradients_that_cancel_are_clipped_by_their_true_norm():
    # Two positions with opposite terms, 1000 times their sum, so 10^6 times in squares: float32
    # would get that sum wrong by a tenth, and clip too little or too much.
    model = nn.Linear(64, 64, bias=False)
    x = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)) * 1e3
    x = torch.stack([x, -x + 1], dim=1)

    def objective(model, batch):
        return model(batch["inputs"]).sum()

    got = per_example_clipped_mean(objective, model, {"inputs": x}, 1.0)
    assert reference.norm(got.gradients) == pytest.approx(1.0, rel=1e-3)


def test_frozen_and_unused_parameters_get_zeros():
    torch.manual_seed(0)
    model, batch = Residual(), image_batch()
    model.head.weight.requires_grad_(False)
    got = per_example_clipped_mean(cross_entropy, model, batch, 1.0)
    named = dict(zip((n for n, _ in model.named_parameters()), got.gradients))
    assert not named["head.weight"].any()
    assert not named["unused.weight"].any()
    assert named["conv.weight"].any()
    assert_same(got.gradients, clipped_mean_by_loop(cross_entropy, model, batch, 1.0).gradients)


def test_parts_are_averaged():
    def objective(model, batch):
        out = model(batch["inputs"])
        return LossParts(out.square().mean(), {"mean": out.mean(), "data": batch["inputs"].mean()})

    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    batch = {"inputs": torch.tensor([[1.0], [3.0]])}
    for result in (
        per_example_clipped_mean(objective, model, batch, 1.0),
        clipped_mean_by_loop(objective, model, batch, 1.0),
    ):
        assert result.loss.total.item() == (2.0**2 + 6.0**2) / 2
        assert result.loss.parts["mean"].item() == (2.0 + 6.0) / 2
        assert result.loss.parts["data"].item() == (1.0 + 3.0) / 2
        assert not result.loss.total.requires_grad


def test_chunks_change_nothing():
    torch.manual_seed(0)
    model, batch = convolutions(), image_batch(rows=7)
    whole = per_example_clipped_mean(cross_entropy, model, batch, 0.5)
    chunked = per_example_clipped_mean(cross_entropy, model, batch, 0.5, chunk_size=3)
    assert_same(chunked.gradients, whole.gradients)


def test_the_model_is_left_as_it_was():
    model, batch = convolutions(), image_batch()
    before = copy.deepcopy(model.state_dict())
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    per_example_clipped_mean(cross_entropy, model, batch, 0.5)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


class ValueDependent(nn.Module):
    def forward(self, x):
        return x * 2 if x.mean().item() > 0 else x


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.tensor(0.0))

    def forward(self, x):
        self.seen += x.mean()
        return x


@pytest.mark.parametrize(
    ("layer", "culprit"),
    [
        (ValueDependent, "ValueDependent at `1.inner`"),
        (Counting, "Counting at `1.inner`"),
        (lambda: nn.InstanceNorm2d(2, track_running_stats=True), "InstanceNorm2d at `1.inner`"),
    ],
    ids=["control flow", "buffer", "running statistics"],
)
def test_fallback_names_the_module_and_gives_the_same(layer, culprit, caplog):
    torch.manual_seed(0)
    inner = nn.Sequential()
    inner.add_module("inner", layer())
    model = nn.Sequential(nn.Conv2d(2, 2, 3), inner, nn.Flatten(), nn.Linear(72, 3))
    batch = image_batch()
    fresh = copy.deepcopy(model)
    clipper = PerExampleClipper(model, 0.5)
    got = clipper(cross_entropy, batch)
    args = (batch["inputs"], batch["labels"])
    assert_same(got.gradients, reference.clipped_gradient(reference_loss, fresh, *args, 0.5))
    rows = []

    def counted(model, batch):
        rows.append(len(batch["inputs"]))
        return cross_entropy(model, batch)

    clipper(counted, batch)
    assert rows == [1] * 6  # decided: no second attempt
    model.eval()
    clipper(cross_entropy, batch)
    (record,) = [r for r in caplog.records if r.name == LOGGER]  # once, whatever the mode
    assert record.levelno == logging.WARNING
    assert f"one example at a time: {culprit} cannot be vectorised (" in record.getMessage()


def test_the_models_own_error_is_not_hidden():
    model = nn.Linear(3, 2)
    batch = {"inputs": torch.zeros(2, 4), "labels": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        per_example_clipped_mean(cross_entropy, model, batch, 1.0)


def test_another_path_through_the_model_is_planned_anew(caplog):
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 3)})
    batch = {"inputs": torch.randn(4, 2), "labels": torch.tensor([0, 1, 2, 0])}
    clipper = PerExampleClipper(model, 0.4)
    for path in ("a", "b", "ab"):

        def objective(model, batch, path=path):
            return F.cross_entropy(sum(model[p](batch["inputs"]) for p in path), batch["labels"])

        expected = clipped_mean_by_loop(objective, model, batch, 0.4)
        assert_same(clipper(objective, batch).gradients, expected.gradients)
    assert_vectorised(caplog)


class Stateful:
    """Counts its calls; the loop must call it once per example."""

    stateful = True

    def __init__(self):
        self.rows = []

    def __call__(self, model, batch):
        self.rows.append(len(batch["inputs"]))
        return cross_entropy(model, batch)


def test_a_stateful_objective_is_called_example_by_example(caplog):
    objective = Stateful()
    per_example_clipped_mean(objective, mlp(), image_batch(), 1.0)
    assert objective.rows == [1] * 6
    assert "the objective `Stateful` cannot be vectorised (it keeps state" in caplog.text


class Preparing:
    """Moves its state on once for the batch, and hands out what is pure."""

    def __init__(self):
        self.calls = 0

    def per_example(self, model, batch):
        self.calls += 1
        target = torch.full((len(batch["inputs"]),), float(self.calls))

        def pure(model, batch):
            return (model(batch["inputs"]).squeeze(1) - batch["target"]).square().mean()

        return pure, {"inputs": batch["inputs"], "target": target}

    def __call__(self, model, batch):
        raise AssertionError("not called where `per_example` is")


def test_an_objective_may_prepare_the_whole_batch(caplog):
    objective, model = Preparing(), nn.Linear(2, 1)
    batch = {"inputs": torch.randn(3, 2)}
    clipper = PerExampleClipper(model, 0.5)
    clipper(objective, batch)
    got = clipper(objective, batch)
    assert objective.calls == 2

    def loss(model, x, y):
        return (model(x).squeeze(1) - 2.0).square().mean()

    expected = reference.clipped_gradient(loss, copy.deepcopy(model), batch["inputs"], None, 0.5)
    assert_same(got.gradients, expected)
    assert_vectorised(caplog)


def test_dropout_is_drawn_for_each_example():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(1, 1, bias=False))
    batch = {"inputs": torch.ones(400, 1)}
    got = per_example_clipped_mean(lambda m, b: m(b["inputs"]).mean(), model, batch, 1.0)
    # Each gradient is 0 or 2, clipped to 1; one draw for all would give exactly 0 or 1.
    assert 0.3 < got.gradients[0].item() < 0.7


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False).eval()]
)
def test_batch_statistics_are_refused(norm):
    model = nn.Sequential()
    model.add_module("norm1", norm)
    with pytest.raises(ModelError, match=r"got BatchNorm2d at `norm1`.*Use GroupNorm, or let the"):
        per_example_clipped_mean(cross_entropy, model, image_batch(), 1.0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("make", [mlp, convolutions])
def test_an_example_that_is_not_finite_counts_as_zero(make, value):
    torch.manual_seed(0)
    model, batch = make(), image_batch()
    others = {name: torch.cat([t[:4], t[5:]]) for name, t in batch.items()}
    rows = len(batch["labels"])
    want = clipped_mean_by_loop(cross_entropy, model, others, 1.0).gradients
    batch["inputs"][4] = value
    for got in (
        clipped_mean_by_loop(cross_entropy, model, batch, 1.0),
        per_example_clipped_mean(cross_entropy, model, batch, 1.0),
        per_example_clipped_mean(cross_entropy, model, batch, 1.0, chunk_size=2),
    ):
        assert_same([g * rows for g in got.gradients], [g * (rows - 1) for g in want])


def test_a_gradient_of_a_loss_that_is_not_finite_counts_as_zero():
    """The gradient of inf + w x is x: finite, and of a step that means nothing."""

    def objective(model, batch):
        return model(batch["inputs"]).sum() + batch["more"].sum()

    model = nn.Linear(1, 1, bias=False)
    batch = {"inputs": torch.tensor([[0.5], [0.25]]), "more": torch.tensor([[torch.inf], [0.0]])}
    for got in (
        per_example_clipped_mean(objective, model, batch, 1.0),
        clipped_mean_by_loop(objective, model, batch, 1.0),
    ):
        assert got.gradients[0].item() == 0.25 / 2


@pytest.mark.parametrize("rows", [(0, 0), (3, 2)])
def test_batches_without_one_number_of_rows(rows):
    batch = {"inputs": torch.zeros(rows[0], 2), "labels": torch.zeros(rows[1], dtype=torch.int64)}
    with pytest.raises(DataError, match="Expected all tensors of a batch to have the same B >= 1"):
        per_example_clipped_mean(cross_entropy, nn.Linear(2, 2), batch, 1.0)


def test_a_loss_that_is_no_scalar():
    with pytest.raises(ParameterError, match=r"the loss to be a scalar, got shape \(1, 2\)"):
        per_example_clipped_mean(
            lambda m, b: m(b["inputs"]), nn.Linear(2, 2), {"inputs": torch.zeros(3, 2)}, 1.0
        )


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, float("nan")])
def test_clip_norm_must_be_positive(clip_norm):
    with pytest.raises(ParameterError, match="Expected `clip_norm` to be positive, got"):
        PerExampleClipper(nn.Linear(1, 1), clip_norm)


def test_chunk_size_must_be_positive():
    with pytest.raises(ParameterError, match="Expected `chunk_size` to be at least 1, got 0"):
        PerExampleClipper(nn.Linear(1, 1), 1.0, chunk_size=0)


def test_clip_factors_at_the_limits():
    norms = torch.tensor([0.0, 1.0, 2.0, 8.0])
    assert clip_factors(norms, 2.0).tolist() == [1.0, 1.0, 1.0, 2.0 / 8.0]


def test_the_cheaper_way_to_a_norm():
    assert gram_is_cheaper(1, 1, 1)  # |a|^2 |b|^2
    assert gram_is_cheaper(16, 288, 64)  # 16 * (288 + 64) < 288 * 64
    assert not gram_is_cheaper(196, 288, 64)  # 196 * (288 + 64) > 288 * 64


def test_a_squared_norm_is_never_negative():
    torch.manual_seed(0)
    a = torch.randn(200, 2, 5)
    a = torch.cat([a, -a.sum(1, keepdim=True)], dim=1)  # the sum over the positions is rounding
    squares = gram_squared_norms(a, torch.ones(200, 3, 4))
    assert (squares >= 0).all()
    assert (squares < 1e-9).all()
