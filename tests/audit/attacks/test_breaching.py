"""The bridge to ``breaching``: refused where it is missing, and what it is handed where it is not.

The package itself is no dependency of the tests; the test that needs it is skipped without it.
"""

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from orchestra_strategy.audit import run_audit
from orchestra_strategy.audit.answer import answer_of
from orchestra_strategy.audit.attacks.table import ATTACKS
from orchestra_strategy.audit.audited_party import Row
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.rng import torch_generator
from tests.audit.parties import CLEAR, GRADIENT, attacked, config_of, data, split


def test_without_the_package_it_is_refused_before_any_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "breaching", None)  # import then fails, as without it
    with pytest.raises(ParameterError, match=r"Expected the package `breaching` .*\[audit\]'"):
        run_audit(data(), config_of(attacks=["breaching"]))


class Attacker:
    """Stands in for breaching's: keeps what it is handed, and finds the first guess it is told."""

    def __init__(self, model, loss, settings, setup):
        self.model, self.loss, self.settings = model, loss, settings

    def reconstruct(self, payloads, shared, secrets):
        self.handed = (payloads[0], shared[0])
        n, shape = shared[0]["metadata"]["num_data_points"], payloads[0]["metadata"].shape
        return {"data": torch.full((n, *shape), 2.0)}, None


@pytest.fixture
def package(monkeypatch):
    made = []

    def prepare_attack(*args):
        made.append(Attacker(*args))
        return made[-1]

    optim = SimpleNamespace(max_iterations=1, callback=1)
    settings = SimpleNamespace(optim=optim, regularization="tv")
    fake = SimpleNamespace(
        get_attack_config=lambda name: settings,
        attacks=SimpleNamespace(prepare_attack=prepare_attack),
    )
    monkeypatch.setitem(sys.modules, "breaching", fake)
    return made


def answered(strategy, row):
    config = config_of(strategy, {"view_options": CLEAR}, attacks=["breaching"], attack_steps=7)
    answer = answer_of(config, row, split(config), 0)
    truth = answer.views.images(answer.loss.views)
    before = torch.get_rng_state()
    found = ATTACKS["breaching"].recover(
        config, answer, truth.shape, torch_generator(0, "s", 0, "b")
    )
    assert torch.equal(before, torch.get_rng_state())
    return answer, truth, found


@pytest.mark.parametrize("strategy", ["orchestra", "fed_rotpred", "fed_simclr"])
def test_the_model_it_is_handed_has_the_partys_gradient_on_the_true_views(package, strategy):
    answer, truth, found = answered(strategy, GRADIENT)
    attacker = package[-1]
    payload, shared = attacker.handed
    assert attacker.settings.optim.max_iterations == 7
    assert payload["metadata"].shape == (truth.shape[1], 8, 8)
    assert shared["metadata"]["local_hyperparams"] is None
    # Classes as they really are; the attack reads them off the gradient, perhaps wrongly.
    turned = torch.cat([drawn.pretext_target for drawn in answer.views.drawn])
    attacker.model.classes = turned
    value = attacker.loss(attacker.model(truth.flatten(1, 2)), shared["metadata"]["labels"])
    ours = torch.autograd.grad(value, list(attacker.model.parameters()), allow_unused=True)
    scale = max(g.abs().max() for g in shared["gradients"]).item()
    for own, theirs in zip(ours, shared["gradients"]):
        own = torch.zeros_like(theirs) if own is None else own
        torch.testing.assert_close(own, theirs, rtol=1e-3, atol=1e-4 * scale)
    assert found.shape == truth.shape
    assert found.max() == 1.0


def test_of_several_steps_it_is_told_the_plan(package):
    answered("fed_simclr", Row("local_update", {}))
    told = package[-1].handed[1]["metadata"]["local_hyperparams"]
    assert (told["steps"], told["data_per_step"], len(told["labels"])) == (2, 2, 2)
    assert told["lr"] == 0.03


@pytest.mark.skipif(find_spec("breaching") is None, reason="the extra `audit` is not installed")
def test_the_package_itself_attacks_a_reply():
    config = config_of("fed_rotpred", attacks=["breaching"], attack_steps=5)
    found = attacked(config, GRADIENT, split(config))
    assert found.attack == "breaching"
    assert found.found.isfinite().all()
