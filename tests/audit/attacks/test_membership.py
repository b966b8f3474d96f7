"""Membership inference: the AUC by hand, its interval by simulation, and both signals."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchestra_strategy.audit.attacks.known_losses import RotationLoss, Supervised
from orchestra_strategy.audit.attacks.membership import (
    alignment_scores,
    auc_with_interval,
    loss_scores,
)
from orchestra_strategy.data.augmentation.views import build_views
from orchestra_strategy.errors import DataError
from orchestra_strategy.rng import numpy_generator, torch_generator
from tests.algorithms.tiny import model as tiny_model

VIEWS = build_views("grey")


def stream(purpose="t"):
    return torch_generator(0, "attacker", 0, purpose)


def test_auc_by_hand():
    # Of the 4 pairs members win 2, and 1 is a tie: 2.5 of 4.
    auc = auc_with_interval(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]))
    assert auc.value == pytest.approx(2.5 / 4)
    # Placements: members win 0.25 and 1 of the others, others lose 0.75 and 0.5 of the members.
    variance = np.var([0.25, 1.0], ddof=1) / 2 + np.var([0.75, 0.5], ddof=1) / 2
    assert auc.high == 1.0
    assert auc.low == pytest.approx(max(0.625 - 1.959964 * variance**0.5, 0))
    swapped = auc_with_interval(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    assert swapped.value == pytest.approx(1 - 2.5 / 4)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = numpy_generator(0, "test", 0, "auc")
    truth = 0.7602  # of N(1, 1) against N(0, 1): Phi(1 / sqrt 2)
    hits = 0
    for _ in range(400):
        members, others = rng.normal(1, 1, 40), rng.normal(0, 1, 40)
        auc = auc_with_interval(torch.from_numpy(members), torch.from_numpy(others))
        hits += auc.low <= truth <= auc.high
    assert 0.91 <= hits / 400 <= 0.98


def test_guessing_does_not_count_as_a_leak_and_a_clear_shift_does():
    rng = numpy_generator(1, "test", 0, "auc")
    same = torch.from_numpy(rng.normal(0, 1, (2, 300)))
    assert not auc_with_interval(same[0], same[1]).leaks
    assert auc_with_interval(same[0] + 0.5, same[1]).leaks


def noise_images(n, seed):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


class Classifier(nn.Module):
    def __init__(self, backbone, feature_dim, classes):
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(feature_dim, classes)

    def forward(self, x):
        return self.classifier(self.backbone(x))


def classifier():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
        return Classifier(body, 64, 4)


def test_an_overfitted_classifier_tells_its_members_and_an_untrained_one_does_not():
    members, others = noise_images(60, 0), noise_images(60, 1)
    labels = torch.arange(60) % 4  # of noise: only memory can tell
    trained = classifier()

    def measured():
        signals = [
            loss_scores(trained, Supervised("classifier.bias"), x, labels, VIEWS, stream())
            for x in (members, others)
        ]
        return auc_with_interval(*signals)

    assert measured().low <= 0.5 <= measured().high
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1, momentum=0.9)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(trained(members * 2 - 1), labels).backward()
        optimizer.step()
    assert measured().low > 0.7


def test_alignment_is_the_mean_cosine_of_pairs_of_views():
    encoder, x = tiny_model(), noise_images(3, 0)
    found = alignment_scores(encoder, x, VIEWS, stream())
    again = stream()
    with torch.no_grad():
        z = torch.stack([encoder.backbone(VIEWS(x, again).x1) for _ in range(4)])
    for i in range(3):
        pairs = [F.cosine_similarity(z[a, i], z[b, i], 0) for a in range(4) for b in range(a)]
        assert found[i].item() == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-5)


def test_a_samples_own_loss_is_the_mean_over_its_views():
    encoder, x = tiny_model(("degeneracy_head",)), noise_images(2, 0)
    found = loss_scores(encoder, RotationLoss(), x, None, build_views("grey", noise=0.0), stream())
    assert found.shape == (2,)
    assert (found < 0).all()
    assert found[0] != found[1]


def test_refusals():
    with pytest.raises(DataError, match="Expected at least 2 members and 2 others, got 1 and 3"):
        auc_with_interval(torch.zeros(1), torch.zeros(3))
    with pytest.raises(DataError, match="`members` and `others` to be finite, got NaN"):
        auc_with_interval(torch.tensor([0.0, float("nan")]), torch.zeros(3))
    with pytest.raises(DataError, match="Expected `classes` for a supervised loss, got None"):
        loss_scores(classifier(), Supervised(None), noise_images(2, 0), None, VIEWS, stream())
