"""A model, data and a training loop small enough to train in a second."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from orchestra_strategy.algorithms.clustering import random_unit_rows
from orchestra_strategy.algorithms.model import OrchestraModel
from orchestra_strategy.data.augmentation.views import build_views

VIEWS = build_views("grey")


def unit(n, d, seed):
    return random_unit_rows(n, d, torch.Generator().manual_seed(seed))


def model(heads=(), norm="batch", seed=0):
    """Two convolutions, projector and heads of width 16; about 5,000 weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, second = nn.Conv2d(1, 8, 3, 2, padding=1), nn.Conv2d(8, 16, 3, 2, padding=1)
        body = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten())
        sizes = {"hidden_dim": 16, "projection_dim": 16, "num_classes": 3, "decoded_values": 64}
        return OrchestraModel(body, 64, norm, heads=heads, **sizes)


def images(n=64):
    """Blobs (n, 8, 8) in [0, 1]: bright around a place that depends on the sample."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(1, 7, (n, 2, 1, 1))
    rows, columns = np.mgrid[:8, :8]
    distance = (rows - centre[:, 0]) ** 2 + 4 * (columns - centre[:, 1]) ** 2
    return torch.from_numpy(np.exp(-distance / 6).astype(np.float32))


def batch(n=64):
    return {"inputs": images(n), "ids": torch.arange(n)}


def objective(objective_class, trained, **settings):
    settings = objective_class.settings_class(**settings)
    return objective_class(trained, VIEWS, settings, torch.Generator().manual_seed(1))


def train(trained, loss_of, steps=60, lr=0.05):
    """Take SGD steps on all the images at once, and return the losses."""
    optimizer = torch.optim.SGD(trained.parameters(), lr=lr, momentum=0.9)
    losses = []
    trained.train()
    for _ in range(steps):
        loss = loss_of(trained, batch()).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def projections(trained):
    """Unit-norm projections of the images, normalised by their own statistics."""
    trained.train()
    return F.normalize(trained.projector(trained.backbone(VIEWS(images(), _fixed()).x1)), dim=1)


def _fixed():
    return torch.Generator().manual_seed(5)


def spread(z):
    """Mean over dimensions of the standard deviation, times sqrt(D): 1 where z fill the sphere."""
    return z.std(dim=0).mean().item() * math.sqrt(z.shape[1])


def effective_rank(z):
    """exp of the entropy of the normalised singular values, of the centred rows."""
    s = torch.linalg.svdvals(z - z.mean(dim=0))
    p = s / s.sum()
    return torch.exp(-(p * p.clamp_min(1e-12).log()).sum()).item()
