"""The server's losses are the party's: on the true views both have the same gradient."""

from types import SimpleNamespace

import pytest
import torch

from orchestra_strategy.audit.attacks import Plan, simulated_gradient
from orchestra_strategy.audit.objectives import OBJECTIVES, SUPERVISED, Subject, rowwise
from orchestra_strategy.audit.parts import RecordedViews
from orchestra_strategy.data.views import build_views
from orchestra_strategy.errors import DataError, OrchestraError, ParameterError
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.strategies.registry import lookup_strategy
from orchestra_strategy.users import UserMultiStep, UserSingleStep
from tests.algorithms.tiny import images

SETUP = {"device": torch.device("cpu"), "dtype": torch.float32}
# Views that stay within [0, 1], so that pixels tell all that the network saw.
VIEWS = build_views("grey", gain=0.0, offset=0.0, noise=0.0)


def subject(strategy, **parameters):
    return Subject(
        strategy,
        VIEWS,
        hidden_dim=16,
        projection_dim=16,
        num_global_clusters=4,
        parameters=parameters,
    )


def asked(audited, user_class=UserSingleStep, samples=4, **cfg):
    model, views = audited.build_model(1, 3), RecordedViews(VIEWS)
    own = images(16).unsqueeze(1)
    objective = audited.party_objective(model, views, own, torch_generator(0, "p", 0, "views"))
    views.drawn.clear()
    labels = torch.tensor([2, 0, 1, 2])
    cfg_user = SimpleNamespace(num_data_points=samples, **cfg)
    user = user_class(model, objective, [(own[:samples], labels)], SETUP, 0, cfg_user)
    payload = {"parameters": [p.detach().clone() for p in model.parameters()]}
    shared, _ = user.compute_local_updates(payload)
    known = audited.known_loss(model, objective)
    if audited.strategy == SUPERVISED:
        return model, known, shared["gradients"], own[:samples], labels
    turned = torch.cat([drawn.pretext_target for drawn in views.drawn])
    return model, known, shared["gradients"], views.images(known.views), turned


@pytest.mark.parametrize("strategy", [*OBJECTIVES, SUPERVISED])
def test_on_the_true_views_the_gradient_is_the_partys(strategy):
    model, known, theirs, seen, classes = asked(subject(strategy))
    ours = simulated_gradient(model, known, seen, classes, Plan())
    scale = max(g.abs().max() for g in theirs)
    assert scale > 1e-3
    for own, received in zip(ours, theirs):
        torch.testing.assert_close(own, received, rtol=1e-3, atol=1e-4 * scale.item())


@pytest.mark.parametrize("strategy", ["fed_rotpred", "fed_simclr"])
def test_two_steps_are_simulated_as_the_party_takes_them(strategy):
    steps = {
        "num_local_updates": 2,
        "num_data_per_local_update_step": 2,
        "local_learning_rate": 0.01,
    }
    model, known, update, seen, classes = asked(subject(strategy), UserMultiStep, **steps)
    plan = Plan("update", 2, 0.01)
    ours = simulated_gradient(model, known, seen, classes, plan)
    received = plan.as_gradient(update)
    scale = max(g.abs().max() for g in received).item()
    for own, theirs in zip(ours, received):
        torch.testing.assert_close(own, theirs, rtol=1e-2, atol=1e-3 * scale)


def test_the_search_reaches_the_targets_pixels():
    # In the party's loss no gradient flows into the target's view; in the server's it must.
    model, known, _, seen, classes = asked(subject("orchestra"))
    seen = seen.clone().requires_grad_()
    gradient = simulated_gradient(model, known, seen, classes, Plan())
    (flow,) = torch.autograd.grad(sum(g.square().sum() for g in gradient), [seen])
    assert flow[:, 0].abs().max() > 0


def test_a_rotation_loss_of_weight_0_tells_no_classes():
    _, known, *_ = asked(subject("orchestra", deg_weight=0.0))
    assert known.class_bias is None


@pytest.mark.parametrize("strategy", OBJECTIVES)
def test_the_objectives_are_those_of_the_strategies(strategy):
    registered = lookup_strategy(strategy)
    assert registered.objective_class is OBJECTIVES[strategy]
    assert registered.heads == OBJECTIVES[strategy].heads


def test_which_losses_can_be_clipped_by_example():
    assert [name for name in OBJECTIVES if not rowwise(name)] == ["fed_simclr", "fed_specloss"]
    assert rowwise(SUPERVISED)


def test_the_model_is_the_seeds_and_no_global_stream_is_drawn_from():
    before = torch.get_rng_state()
    first, second = (subject("orchestra").build_model(1, 0) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first.parameters(), second.parameters()):
        assert torch.equal(a, b)


def test_refusals():
    with pytest.raises(ParameterError, match="audited, got 'orchestr'; did you mean `orchestra`"):
        subject("orchestr")
    with pytest.raises(
        ParameterError, match="`parameters` to be those of .* `temprature`; did you"
    ):
        subject("orchestra", temprature=1.0)
    audited = subject("orchestra")
    model = audited.build_model(1, 0)
    stream = torch.Generator()
    with pytest.raises(
        DataError, match="Expected at least 4 samples for Orchestra's clusters, got"
    ):
        audited.party_objective(model, VIEWS, images(3).unsqueeze(1), stream)
    objective = OBJECTIVES["orchestra"](model, VIEWS, audited.settings(), stream)
    with pytest.raises(OrchestraError, match="Expected `centroids` of the objective, got None"):
        audited.known_loss(model, objective)
