"""Small models, data and configurations for the users' tests."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

SETUP = {"device": torch.device("cpu"), "dtype": torch.float32}
CLASSES = 3


class TextNet(nn.Module):
    """Bag of words; takes input_ids and an optional mask by name."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(11, 6), nn.Linear(6, CLASSES)

    def forward(self, input_ids, attention_mask=None):
        x = self.embed(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        return self.out(x.mean(1))


def plain_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, CLASSES))


def norm_net():
    """Has float buffers and an int64 counter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, CLASSES))


def text_net():
    torch.manual_seed(0)
    return TextNet()


def samples(rows=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator) * torch.logspace(-1, 1, rows).view(-1, 1)
    return x, torch.randint(0, CLASSES, (rows,), generator=generator)


def loader(rows=9, seed=0, batch=4):
    """(x, y) batches of uneven size, as a data loader gives them."""
    x, y = samples(rows, seed)
    return list(zip(x.split(batch), y.split(batch)))


def unlabelled(rows=9, seed=0):
    return [(x,) for x in samples(rows, seed)[0].split(4)]


def payload(model, buffers=False, scale=0.9):
    """What a server sends: other parameters than the user's model has."""
    parameters = [p.detach() * scale for p in model.parameters()]
    sent = [b.clone() + (1 if b.dtype == torch.int64 else 0.5) for b in model.buffers()]
    return {"parameters": parameters, "buffers": sent if buffers else None}


def cfg(**changes):
    defaults = {
        "num_data_points": 6,
        "num_local_updates": 4,
        "num_data_per_local_update_step": 2,
        "local_learning_rate": 0.1,
    }
    return SimpleNamespace(**{**defaults, **changes})


def all_told(**changes):
    names = ("num_data_points", "labels", "local_hyperparams", "buffers")
    return cfg(**{f"provide_{name}": True for name in names}, **changes)


def privacy(**settings):
    return SimpleNamespace(**settings)


def reference_loss(model, x, y):
    return F.cross_entropy(model(x), y)


def variance_objective(model, batch):
    """Self-supervised: wants no labels."""
    return (model(batch["inputs"]) - 1).square().mean()


def variance_loss(model, x, y):
    return (model(x) - 1).square().mean()


def assert_close(got, expected, tolerance=1e-6):
    assert len(got) == len(expected)
    for g, e in zip(got, expected):
        assert g.dtype == e.dtype
        torch.testing.assert_close(g, e, atol=tolerance, rtol=1e-6)


def assert_far(got, expected):
    assert max((g.double() - e.double()).abs().max().item() for g, e in zip(got, expected)) > 1e-4


def copies(tensors):
    return None if tensors is None else [t.clone() for t in tensors]
