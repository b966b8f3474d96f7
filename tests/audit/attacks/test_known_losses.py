"""The server's losses are the party's: on the true views both have the same gradient."""

import pytest
import torch

from orchestra_strategy.algorithms.orchestra_objective import OrchestraObjective
from orchestra_strategy.audit.answer import answer_of
from orchestra_strategy.audit.attacks.losses_by_objective import known_loss
from orchestra_strategy.audit.attacks.search import simulated_gradient
from orchestra_strategy.audit.audited_party import Row, new_party, strategy_class, user_types_of
from orchestra_strategy.errors import OrchestraError, ParameterError
from orchestra_strategy.strategies.registry import lookup_strategy, registered_strategies
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy
from tests.audit.parties import CLEAR, GRADIENT, config_of, split

OWN = sorted(
    name.removesuffix("_torch")
    for name in registered_strategies()
    if issubclass(cls := lookup_strategy(name.removesuffix("_torch")), SelfSupervisedStrategy)
    and not cls.needs_labels
)
# Not the server's to know: the pull to local centroids of `orchestra_simple`. Not simulated, since
# it hides nothing: the L2 term of `orchestra_advanced`. Guessed: what `fed_masked` hides.
EXACT = ["orchestra", *(n for n in OWN if n.startswith("fed_") and n != "fed_masked")]


def answered(strategy, row=GRADIENT, **parameters):
    config = config_of(strategy, {"view_options": CLEAR, **parameters})
    answer = answer_of(config, row, split(config), 0)
    seen = answer.views.images(answer.loss.views)
    turned = torch.cat([drawn.pretext_target for drawn in answer.views.drawn])
    return answer, seen, turned


@pytest.mark.parametrize("strategy", EXACT)
def test_on_the_true_views_the_gradient_is_the_partys(strategy):
    answer, seen, classes = answered(strategy)
    theirs = answer.shared["gradients"]
    ours = simulated_gradient(answer.model, answer.loss, seen, classes, answer.plan)
    scale = max(g.abs().max() for g in theirs).item()
    assert scale > 1e-3
    for own, received in zip(ours, theirs):
        torch.testing.assert_close(own, received, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("network", ["target", "online"])
def test_the_server_knows_balanced_targets_and_the_instance_term(network):
    options = {"balance": "clusters", "target_temperature": 0.05, "contrast_weight": 1.0}
    answer, seen, classes = answered("orchestra", **options, contrast_with=network)
    assert len(answer.loss.online) == (3 if network == "online" else 2)
    theirs = answer.shared["gradients"]
    ours = simulated_gradient(answer.model, answer.loss, seen, classes, answer.plan)
    scale = max(g.abs().max() for g in theirs).item()
    for own, received in zip(ours, theirs):
        torch.testing.assert_close(own, received, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("strategy", ["fed_rotpred", "fed_simclr"])
def test_two_steps_are_simulated_as_the_party_takes_them(strategy):
    answer, seen, classes = answered(strategy, Row("local_update", {}))
    ours = simulated_gradient(answer.model, answer.loss, seen, classes, answer.plan)
    received = answer.plan.as_gradient(answer.shared["gradients"])
    scale = max(g.abs().max() for g in received).item()
    for own, theirs in zip(ours, received):
        torch.testing.assert_close(own, theirs, rtol=1e-2, atol=1e-3 * scale)


def test_what_is_hidden_is_guessed_the_same_way_in_every_step():
    answer, seen, classes = answered("fed_masked")
    seen = seen.clone().requires_grad_()
    losses = [answer.loss(answer.model, seen, classes) for _ in range(2)]
    assert losses[0].item() == losses[1].item() > 0
    (flow,) = torch.autograd.grad(losses[0], [seen])
    assert flow.shape[1] == 1
    assert flow.abs().max() > 0


def test_the_search_reaches_the_targets_pixels():
    # In the party's loss no gradient flows into the target's view; in the server's it must.
    answer, seen, classes = answered("orchestra")
    seen = seen.clone().requires_grad_()
    gradient = simulated_gradient(answer.model, answer.loss, seen, classes, answer.plan)
    (flow,) = torch.autograd.grad(sum(g.square().sum() for g in gradient), [seen])
    assert flow[:, 0].abs().max() > 0


def test_a_rotation_loss_of_weight_0_tells_no_classes():
    answer, *_ = answered("orchestra", deg_weight=0.0)
    assert answer.loss.class_bias is None


@pytest.mark.parametrize("strategy", OWN)
def test_every_strategy_of_the_package_can_be_attacked(strategy):
    config = config_of(strategy) if strategy != "orchestra_private" else config_of("orchestra")
    row = Row(user_types_of(config)[0], {})
    answer = answer_of(config, row, split(config), 0)
    assert answer.views.images(answer.loss.online).shape[0] == config.images


def test_refusals():
    with pytest.raises(ParameterError, match="audited, got 'orchestr'; did you mean `orchestra`"):
        strategy_class("orchestr")
    with pytest.raises(ParameterError, match="can be audited, got 'fed_avg_w'"):
        strategy_class("fed_avg_w")
    unknown = known_loss(None, lambda model, batch: None)
    with pytest.raises(ParameterError, match="whose loss the audit knows, got function; use atta"):
        unknown(None, torch.zeros(2, 1, 8, 8), torch.zeros(2))
    config = config_of()
    party = new_party(config, GRADIENT, split(config).members, 0)
    assert isinstance(party.objective, OrchestraObjective)
    with pytest.raises(OrchestraError, match="Expected `centroids` of the objective, got None"):
        known_loss(party.model, party.objective)
