"""The audit as a whole: what is trained and charged is the real strategy's; refusals are told."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from orchestra_strategy.audit import audit_setting, run_audit
from orchestra_strategy.audit.audited_party import (
    Row,
    exchange,
    new_party,
    rounds_of,
    train,
    user_types_of,
)
from orchestra_strategy.audit.results import plain
from orchestra_strategy.audit.utility import Utility
from orchestra_strategy.errors import ModelError, ParameterError, PrivacyError
from orchestra_strategy.evaluation import ProbeResult
from orchestra_strategy.privacy import Release, epsilon_of
from tests.audit.parties import GRADIENT, SMALL, TINY, attacked, config_of, data, split

RECORD = {"privacy": "record", "noise_multiplier": 2.0}
USER = {"privacy": "user", "noise_multiplier": 2.0}
LABELS = np.arange(40) % 2


def test_a_row_is_the_strategys_own_training_and_ledger():
    config = config_of("fed_rotpred", rounds=2)
    samples = split(config).members
    party = new_party(config, Row("local_update", RECORD), samples, 0)
    assert train(party, 2) == 2
    # 16 members in batches of 8, one pass: 2 steps a round with probability 1/2.
    assert party.privacy.ledger.spent == {Release(2.0, 0.5): 4}
    assert party.privacy_spent()["epsilon"] == epsilon_of({Release(2.0, 0.5): 4}, 1e-5)
    assert party.rounds_done == 2


def test_what_a_row_reports_is_that_ledgers_epsilon():
    result = audit_setting(data(), {**TINY, **USER}, "multiuser_aggregate", **SMALL, rounds=2)
    assert result.strategy == "orchestra_private"
    assert result.epsilon == pytest.approx(epsilon_of({Release(2.0): 2}, 1e-5))
    assert (result.delta, result.rounds) == (1e-5, 2)
    assert result.utility.probe is None
    assert result.beats_untrained is None


def test_a_target_epsilon_is_met_in_all_the_audits_rounds():
    target = {"privacy": "record", "target_epsilon": 3.0}
    plain_parameters = {"batch_size": 8, "local_epochs": 1}
    for user_type, rounds in (("local_update", 2), ("local_gradient", 4)):
        options = {**SMALL, "strategy": "fed_rotpred", "rounds": 2}
        result = audit_setting(data(), {**plain_parameters, **target}, user_type, **options)
        assert result.rounds == rounds
        assert 2.9 <= result.epsilon <= 3.0


def test_without_privacy_nothing_is_charged_and_training_moves_the_weights():
    config = config_of(rounds=1)
    party = new_party(config, GRADIENT, split(config).members, 0)
    before = [p.clone() for p in party.model.parameters()]
    train(party, 1)
    assert party.privacy_spent() == {}
    assert any(not torch.equal(a, b) for a, b in zip(before, party.model.parameters()))


def test_users_are_protected_by_the_strategys_own_protection():
    config = config_of()
    for privacy, slot in ((RECORD, "record_privacy"), (USER, "update_privacy")):
        row = Row("local_update", privacy)
        party = new_party(config, row, split(config).members, 0)
        user = SimpleNamespace(model=party.model, record_privacy=None, update_privacy=None)
        party.privacy.protect(user)
        z = party.privacy.plan().update.noise_multiplier
        # Of a user's budget for a round the moments of the clusters have their share.
        assert z == 2.0 if privacy is RECORD else z > 2.0
        protected = getattr(user, slot)
        assert protected.mechanism is party.privacy.mechanism
        used = protected.noise_multiplier if privacy is USER else protected.release[0]
        assert used == z


def test_replies_differ_and_repeat():
    config = config_of(replies=2)
    samples = split(config)
    replies = [attacked(config, GRADIENT, samples, i) for i in (0, 1, 0)]
    assert torch.equal(replies[0].truth, replies[2].truth)
    assert torch.equal(replies[0].found, replies[2].found)
    assert not torch.equal(replies[0].truth, replies[1].truth)


def test_with_several_attacks_the_nearest_outcome_counts():
    both = config_of("fed_simclr", attacks=["span", "matching"])
    alone = [config_of("fed_simclr", attacks=[name]) for name in ("span", "matching")]
    samples = split(both)
    found = attacked(both, GRADIENT, samples, 0)
    single = [attacked(c, GRADIENT, samples, 0).leakage.above_control for c in alone]
    assert found.leakage.above_control == max(single)


def test_the_same_seed_gives_the_same_numbers():
    def numbers(seed):
        config = config_of(user_types=["local_update"], privacy=[RECORD], rounds=1, seed=seed)
        before = torch.get_rng_state()
        audit = run_audit(data(labels=LABELS), config)
        assert torch.equal(before, torch.get_rng_state())
        rows = [plain(result) for result in audit.results]
        for row in rows:
            del row["seconds"]
            for reply in (*row["replies"], *row["outcomes"]):
                reply.pop("seconds", None)
        return rows

    assert numbers(0) == numbers(0) != numbers(1)


def test_what_a_strategy_refuses_is_told_and_the_rest_is_audited():
    audit = run_audit(data(), config_of("fed_simclr", user_types=["local_update"], rounds=1))
    assert [result.name for result in audit.results] == ["no privacy"]
    ((user_type, setting, reason),) = audit.refused
    assert (user_type, setting) == ("local_update", "record level, epsilon 8")
    assert "where a loss couples the samples of a batch" in reason


@pytest.mark.parametrize(
    ("strategy", "values", "error", "message"),
    [
        ("orchestra_advanced", {"privacy": [USER]}, PrivacyError, "use strategy 'orchestra_priv"),
        ("orchestra", {"privacy": [RECORD], "norm": "batch"}, ModelError, "without BatchNorm"),
        ("orchestra", {"backbone": "conv5"}, ParameterError, "`backbone` to be .* got 'conv5'"),
        ("orchestra", {"parameters": {"temprature": 1.0}}, ParameterError, "got `temprature`; did"),
        ("orchestra", {"parameters": {"views": "gray"}}, ParameterError, "`views`"),
        (
            "fed_simclr",
            {"privacy": [RECORD]},
            PrivacyError,
            "Expected an objective with `per_example` for privacy='record'",
        ),
    ],
)
def test_what_is_asked_for_and_refused_altogether_is_an_error(strategy, values, error, message):
    with pytest.raises(error, match=message):
        run_audit(data(), config_of(strategy, **values))


def test_orchestra_with_privacy_and_without_is_two_strategies():
    config = config_of("orchestra_private", user_types=["local_update"], rounds=1)
    names = [result.strategy for result in run_audit(data(), config).results]
    assert names == ["orchestra", "orchestra_private"]


def test_a_strategy_with_one_kind_of_user_is_audited_with_that():
    assert user_types_of(config_of("orchestra_aggregate")) == ("multiuser_aggregate",)
    with pytest.raises(ParameterError, match="those of `orchestra_single_step`, got 'local_upd"):
        user_types_of(config_of("orchestra_single_step", user_types=["local_update"]))


def test_one_setting_is_one_setting():
    both = [{}, USER]
    with pytest.raises(ParameterError, match="Expected `privacy` to be one setting, got 2; use"):
        audit_setting(data(), TINY, "local_update", **SMALL, privacy=both)


def test_better_than_untrained_means_more_than_chance():
    def worth(*values):
        return Utility(ProbeResult.from_values(values), 0.5, 0.0, 0.0, 1.0)

    control = worth(0.5, 0.6, 0.7)
    assert worth(0.55, 0.66, 0.74).beats(control)  # gains 0.05, 0.06, 0.04
    assert not worth(0.7, 0.4, 0.8).beats(control)  # gains 0.2, -0.2, 0.1
    assert not worth(0.4, 0.5, 0.6).beats(control)
    assert not control.beats(control)
    assert Utility(None, None, 0.0, 0.0, 1.0).beats(control) is None


def test_rounds_of_single_steps_make_up_the_same_number_of_steps():
    assert rounds_of("multiuser_aggregate", 3, 40, 8, 2) == 3
    assert rounds_of("local_gradient", 3, 40, 8, 2) == 3 * 5 * 2


def test_parties_answer_to_the_server_in_both_phases():
    config = config_of()
    party = new_party(config, GRADIENT, split(config).members, 0)
    exchange(party, party.get_weights())
    assert party.objective.centroids.shape == (4, 16)
