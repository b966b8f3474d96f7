"""A peer's clock that is far from ours is told in a sentence, once."""

import time
from contextlib import closing

import pytest

from orchestra_strategy.cluster import Members
from orchestra_strategy.cluster.clocks import Clocks
from orchestra_strategy.cluster.settings import ClusterSettings
from orchestra_strategy.config import parse_config
from tests.cluster.ports import settings


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        (1002.0 + 59, None),
        (1002.0 + 61, "bob is 61 s ahead of this machine's"),
        (1000.0 - 61, "bob is 61 s behind this machine's"),
        (1000.0 - 59, None),
        (1001.0, None),
        (float("nan"), None),
        ("1970", None),
        (None, None),
    ],
)
def test_the_way_of_question_and_answer_is_allowed_for(theirs, told):
    said = Clocks().compare("bob", theirs, asked=1000.0, answered=1002.0)
    assert (said is None) == (told is None)
    assert told is None or told in said


class HourAhead:
    """A transport to a peer that agrees to everything, an hour from now."""

    def ask(self, peer, message, seconds):
        says = {"state": "running", "boot": "b", "failure": None}
        return {"says": says, "value": {}, "clock": time.time() + 3600}

    def stop(self):
        pass


def test_it_is_told_once_in_many_beats():
    lines = []
    values = parse_config(ClusterSettings, settings()["alice"])
    with closing(Members(values, lines.append, lambda *_: HourAhead())) as alice:
        alice.agree("start", {})
        time.sleep(0.5)
    assert len(lines) == 1
    assert "The clock of bob is 3600 s ahead of this machine's" in lines[0]
