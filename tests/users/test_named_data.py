"""Cases as the field's configuration files write them, handed in as they are."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import normalize, to_tensor

from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.users import construct_user
from tests.data.readers.files import write_cifar_batch
from tests.reference import users as reference
from tests.users import toy

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
NO_DEFENCE = {
    "gradient_noise": 0.0, "input_noise": 0.0, "distribution": "laplacian",
    "per_example_clipping": 0.0,
}  # fmt: skip


class Node(dict):
    """Like a node of a configuration file's tree: entries by name and by attribute."""

    def __getattr__(self, name):
        if name not in self:
            raise AttributeError(name)
        return self[name]


def case(folder, user=None, **data):
    """The files' entries, those that no user reads among them."""
    base = {
        "name": "CIFAR10", "modality": "vision", "task": "classification", "path": str(folder),
        "size": 50_000, "classes": 10, "shape": [3, 32, 32],
        "normalize": True, "mean": MEAN, "std": STD,
        "augmentations_train": {"RandomCrop": [32, 4], "RandomHorizontalFlip": 0.5},
        "augmentations_val": None,
        "default_clients": 2, "partition": "balanced", "examples_from_split": "validation",
        "batch_size": 128, "caching": False, "db": {"name": None},
    }  # fmt: skip
    impl = {
        "shuffle": False, "sample_with_replacement": False, "dtype": "float", "non_blocking": True,
        "sharing_strategy": "file_descriptor", "benchmark": True, "deterministic": False,
        "pin_memory": False, "threads": 0, "persistent_workers": False, "mixed_precision": False,
        "grad_scaling": True, "JIT": None, "validate_every_nth_step": 10,
        "checkpoint": {"name": None, "save_every_nth_step": 10},
        "enable_huggingface_offline_mode": False,
    }  # fmt: skip
    single = {
        "user_type": "local_gradient", "user_idx": 1, "num_data_points": 3,
        "provide_buffers": False, "provide_labels": False, "provide_num_data_points": True,
        "local_diff_privacy": Node(NO_DEFENCE),
    }  # fmt: skip
    return Node(
        name="custom",
        data=Node({**base, **data}),
        impl=Node(impl),
        server=Node(name="honest_but_curious"),
        user=Node({**single, **(user or {})}),
        model="ResNet18",
        num_queries=1,
    )


STEPS = {
    "num_local_updates": 4, "num_data_per_local_update_step": 1, "local_learning_rate": 0.01,
    "provide_local_hyperparams": True,
}  # fmt: skip
AGGREGATE = {**STEPS, "user_type": "multiuser_aggregate", "user_range": [0, 2]}


@pytest.fixture
def cifar(tmp_path):
    """Both splits, 12 and 20 images; returns folder, test images (N, 3, 32, 32) and labels."""
    folder = tmp_path / "cifar-10-batches-py"
    write_cifar_batch(folder / "data_batch_1", 20, seed=1)
    pixels, _ = write_cifar_batch(folder / "test_batch", 12, seed=2)
    labels = [3, 7] * 6
    batch = {b"data": pixels.reshape(12, -1), b"labels": labels}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    names = {"label_names": [f"class {i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    return tmp_path, pixels, np.array(labels)


def seen(pixels):
    """What the network sees of (N, 3, 32, 32) uint8, as torchvision makes it."""
    images = [Image.fromarray(image.transpose(1, 2, 0)) for image in pixels]
    return torch.stack([normalize(to_tensor(image), MEAN, STD) for image in images])


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Tanh(), nn.Flatten(), nn.Linear(256, 10))


def build(cfg_case, **options):
    return construct_user(model(), nn.CrossEntropyLoss(), cfg_case, toy.SETUP, **options)


FIRST = ([0, 2, 4], [6, 8, 10])
"""Of either user the first samples: blocks of 12 // 2 // 2 = 3, of class 3 before class 7."""


def test_one_gradient_of_named_data(cifar):
    path, pixels, labels = cifar
    sent = toy.payload(model())
    shared, true = build(case(path)).compute_local_updates(sent)
    mine = FIRST[1]
    assert torch.equal(true["data"], seen(pixels[mine]))
    assert true["labels"].tolist() == labels[mine].tolist()
    net = model()
    reference.load(net, sent["parameters"])
    x, y = seen(pixels[mine]), torch.tensor(labels[mine])
    toy.assert_close(shared["gradients"], reference.gradient(toy.reference_loss, net, x, y))
    assert shared["metadata"]["num_data_points"] == 3


def test_local_steps_and_many_users_of_named_data(cifar):
    path, pixels, labels = cifar
    sent = toy.payload(model())
    net = model()
    reference.load(net, sent["parameters"])
    mine = FIRST[1]
    x, y = seen(pixels[mine]), torch.tensor(labels[mine])
    expected, _ = reference.local_sgd(toy.reference_loss, net, x, y, steps=4, size=1, lr=0.01)
    one = build(case(path, {**STEPS, "user_type": "local_update"}))
    toy.assert_close(one.compute_local_updates(sent)[0]["gradients"], expected)

    gradients = []
    for user in range(2):
        net = model()
        reference.load(net, sent["parameters"])
        mine = FIRST[user]
        x, y = seen(pixels[mine]), torch.tensor(labels[mine])
        gradients.append(reference.gradient(toy.reference_loss, net, x, y))
    many = build(case(path, {**AGGREGATE, "num_local_updates": 1}))
    toy.assert_close(
        many.compute_local_updates(sent)[0]["gradients"],
        reference.weighted_mean(gradients, [1, 1]),
    )


@pytest.mark.parametrize(
    ("changes", "count"), [({}, 12), ({"examples_from_split": "training"}, 20), ({"size": 5}, 5)]
)
def test_split_and_size(cifar, changes, count):
    alone = {"default_clients": 1, "partition": "none", **changes}
    one = build(case(cifar[0], {"user_idx": 0, "num_data_points": "all"}, **alone))
    _, true = one.compute_local_updates(toy.payload(model()))
    assert len(true["data"]) == count


def test_pixels_as_they_are(cifar):
    path, pixels, _ = cifar
    _, true = build(case(path, normalize=False)).compute_local_updates(toy.payload(model()))
    expected = torch.from_numpy(pixels[FIRST[1]]) / 255
    assert torch.equal(true["data"], expected)


def test_named_data_can_be_plotted(cifar):
    from matplotlib import pyplot

    path, pixels, labels = cifar
    one = build(case(path))
    _, true = one.compute_local_updates(toy.payload(model()))
    one.plot(true, print_labels=True)
    axes = [axis for axis in pyplot.gcf().axes if axis.images]
    mine = FIRST[1]
    assert [axis.get_title() for axis in axes] == [f"class {i}" for i in labels[mine]]
    for axis, expected in zip(axes, pixels[mine], strict=True):
        shown = np.asarray(axis.images[0].get_array()) * 255
        np.testing.assert_allclose(shown, expected.transpose(1, 2, 0), atol=1e-3)
    pyplot.close("all")


@pytest.mark.parametrize("user", [{}, {**AGGREGATE, "num_local_updates": 1}])
def test_other_data_come_as_a_data_set(user):
    x, y = torch.rand(8, 3, 32, 32), torch.arange(8) % 2
    mine = TensorDataset(x, y)
    mine.targets = y.tolist()
    cfg_case = case("nowhere", user, name="ImageNet")
    one = build(cfg_case, dataset=mine, keep_true_data=True)
    _, true = one.compute_local_updates(toy.payload(model()))
    # Two classes, 8 // 2 // 2 = 2 of each to each user: its first three.
    rows = [[0, 2, 1], [4, 6, 5]]
    expected = rows[0] + rows[1] if user else rows[1]
    assert torch.equal(true["data"], x[expected])


@pytest.mark.parametrize(
    ("error", "changes", "message"),
    [
        (
            ParameterError,
            {"name": "ImageNet"},
            r"'CIFAR10', 'CIFAR100'.*got 'ImageNet'; give .*data",
        ),
        (
            ParameterError,
            {"augmentations_val": {"Resize": 9}},
            "`cfg_data.augmentations_val` to be",
        ),
        (ParameterError, {"mean": None}, r"Expected `cfg_data` to have `mean` \(a number per chan"),
        (DataError, {"name": "CIFAR100"}, "no such folder of batches. Nothing is downloaded: put"),
        (DataError, {"path": "nowhere"}, "Expected CIFAR10 in `nowhere/cifar-10-batches-py`, got"),
    ],
)
def test_errors(cifar, error, changes, message):
    with pytest.raises(error, match=message):
        build(case(cifar[0], **changes))


def test_a_namespace_works_too(cifar):
    cfg_case = case(cifar[0])
    plain = SimpleNamespace(**{k: SimpleNamespace(**cfg_case[k]) for k in ("data", "impl", "user")})
    sent = toy.payload(model())
    got, _ = build(plain).compute_local_updates(sent)
    expected, _ = build(cfg_case).compute_local_updates(sent)
    toy.assert_close(got["gradients"], expected["gradients"], 0)
