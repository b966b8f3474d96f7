import math

import pytest

from orchestra_strategy.errors import DataError
from orchestra_strategy.runtime.tuning import Trial, Tuning


def test_the_score_is_alignment_plus_uniformity():
    assert Trial({}, 0.5, -2.0, 9.0).score == -1.5


def test_a_collapsed_trial_is_never_the_best():
    # A collapsed encoder is perfectly aligned; here it would even win by the numbers.
    collapsed = Trial({"lr": 9.0}, 0.0, -9.0, 1.0, collapsed="It collapsed.")
    sound = Trial({"lr": 0.1}, 1.0, -1.0, 30.0)
    assert collapsed.score == math.inf
    assert Tuning((sound, collapsed)).best == {"lr": 0.1}
    with pytest.raises(DataError, match=r"none of 1; It collapsed\. Try a grid with lower `lr`"):
        _ = Tuning((collapsed,)).best
