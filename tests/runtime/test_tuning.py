import math
from types import SimpleNamespace

import pytest

from orchestra_strategy.config import StrategyConfig
from orchestra_strategy.errors import DataError, PrivacyError
from orchestra_strategy.runtime.tuning import Trial, Tuning, tune


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


class Model:
    """Stands in for an OrchestraFLModel that has stopped early."""

    stop_reason = "Training stopped early."
    collapse_reason = None

    def __init__(self, **parameters):
        self.strategy_config = StrategyConfig(**parameters)
        self.epochs = 0

    def fit(self, x, epochs):
        self.epochs += epochs

    def evaluate(self, x, return_dict):
        names = ("alignment", "uniformity", "effective_rank")
        return {name: SimpleNamespace(result=lambda: 0.5) for name in names}, []


def test_only_a_collapse_makes_a_trial_collapsed():
    found = tune(lambda point: Model(), None, {"lr": [0.1]}, rounds=1)
    assert found.trials[0].collapsed is None
    assert found.best == {"lr": 0.1}


def test_a_search_with_privacy_is_refused():
    model = Model(privacy="user", noise_multiplier=1.0)
    with pytest.raises(PrivacyError, match=r"`privacy` to be 'none' for a search, got 'user'.*pub"):
        tune(lambda point: model, None, {"lr": [0.1]}, rounds=1)
    assert model.epochs == 0


@pytest.mark.parametrize("content", [b"{", b"[" * 60_000, b'{"parameters": {}}', b"[1]"])
def test_a_file_that_is_no_finished_trial_is_named(tmp_path, content):
    options = {"x": None, "grid": {"lr": [0.1]}, "rounds": 1, "out_dir": tmp_path}
    tune(lambda point: Model(), **options)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"`{file}` to be a finished trial, got .*; remove it"):
        tune(lambda point: Model(), **options)
