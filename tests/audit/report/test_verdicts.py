"""Verdicts: leaks, found nothing, bounded by epsilon; and what they ask for."""

import re
from dataclasses import replace

import pytest

from orchestra_strategy.audit import run_audit
from orchestra_strategy.audit.attacks.canary import CanaryBound
from orchestra_strategy.audit.attacks.crafted_weights import Trap
from orchestra_strategy.audit.report.glossary import glossary, limits, subject
from orchestra_strategy.audit.report.tables import verdicts_table
from orchestra_strategy.audit.report.verdicts import advice, setting_in_words, verdict
from orchestra_strategy.audit.user_kinds import KINDS
from orchestra_strategy.party.user_types import USER_TYPES
from tests.audit.parties import config_of, data

SPRUNG = Trap(8, 0, 8, 1e-4)
QUIET = Trap(0, 0, 8, 1.0)
KEPT = CanaryBound(2.0, 0.5, 2.5, 1e-5, 4, 100)
BROKEN = replace(KEPT, measured=2.4)


@pytest.fixture(scope="module")
def audit():
    return run_audit(data(), config_of("fed_rotpred", user_types=["local_update"], rounds=1))


def with_outcomes(result, *outcomes, epsilon=None):
    return replace(result, outcomes=outcomes, epsilon=epsilon, delta=1e-5)


def test_each_kind_of_verdict(audit):
    result = audit.results[0]
    assert verdict(with_outcomes(result, SPRUNG)).startswith("Leaks: weights made for one record")
    nothing = verdict(with_outcomes(result, QUIET))
    assert nothing.startswith("Found nothing with these attacks; that is no proof")
    bounded = verdict(with_outcomes(result, QUIET, KEPT, epsilon=2.0))
    assert bounded.startswith("Bounded by epsilon = 2 (delta 1e-05); found nothing")
    assert "at least 0.50 (confidence 95 %), which keeps the promise: at most 2.00" in bounded
    broken = verdict(with_outcomes(result, QUIET, BROKEN, epsilon=2.0))
    assert broken.startswith("Leaks all the same: A planted record shows")


def test_advice_follows_from_the_verdicts(audit):
    def told(*outcomes, epsilon=None, beats=True):
        result = replace(with_outcomes(audit.results[0], *outcomes, epsilon=epsilon))
        result = replace(result, beats_untrained=beats)
        return " ".join(advice(replace(audit, results=(result,))))

    assert "Do not use a setting that leaks" in told(SPRUNG)
    assert "only epsilon is a promise" in told(QUIET)
    assert "a fault of the software" in told(BROKEN, epsilon=2.0)
    assert "above 10 promises little" in told(QUIET, epsilon=20.0)
    assert "not better than an untrained one" in told(QUIET, beats=False)
    assert told(QUIET, epsilon=2.0).startswith("Nothing:")


def test_the_words_need_no_knowledge_of_the_field(audit):
    rows = {row[0]: row[1] for row in glossary().rows}
    assert rows["`local_gradient`"].startswith("the party sends one averaged gradient of one batch")
    assert {"epsilon, delta", "membership", "canary", "attack `crafted_weights`"} <= rows.keys()
    assert KINDS.keys() == USER_TYPES.keys()
    assert "trains on its own samples" in setting_in_words(audit.results[0])
    told = [*advice(audit), *limits(audit), subject(audit), *rows.values()]
    told += [cell for row in verdicts_table(audit).rows for cell in row]
    for text in told:  # no capitals for emphasis; names of methods alone have some
        shouted = set(re.findall(r"\b[A-Z]{3,}\b", str(text)))
        assert shouted <= {"AUC"}, text


def test_limits_are_those_of_the_attacks(audit):
    told = " ".join(limits(audit))
    assert "span: It reads one layer" in told
    assert "BatchNorm the features" not in told
    batch = replace(audit, config=audit.config.model_copy(update={"norm": "batch"}))
    assert "BatchNorm the features" in " ".join(limits(batch))
