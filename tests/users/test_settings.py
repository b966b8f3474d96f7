from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.users import UserMultiStep, UserSingleStep
from tests.users import toy


@dataclass(frozen=True)
class Defence:
    gradient_noise: float = 0.0
    per_example_clipping: float = 0.5


@dataclass(frozen=True)
class Case:
    num_data_points: int = 6
    num_local_updates: int = 4
    num_data_per_local_update_step: int = 2
    local_learning_rate: float = 0.1
    provide_labels: bool = True
    local_diff_privacy: Defence = Defence()


class Node:
    """Like an OmegaConf node: what is not there is None."""

    def __init__(self, entries):
        self._entries = {k: Node(v) if isinstance(v, dict) else v for k, v in entries.items()}

    def __getattr__(self, name):
        return self._entries.get(name)


ENTRIES = {
    "num_data_points": 6,
    "num_local_updates": 4,
    "num_data_per_local_update_step": 2,
    "local_learning_rate": 0.1,
    "provide_labels": True,
    "local_diff_privacy": {"gradient_noise": 0.0, "per_example_clipping": 0.5},
}


def update(cfg_user):
    model = toy.plain_net()
    one = UserMultiStep(model, torch.nn.CrossEntropyLoss(), toy.loader(), toy.SETUP, 0, cfg_user)
    shared, _ = one.compute_local_updates(toy.payload(model))
    assert shared["metadata"]["labels"] is not None
    return shared["gradients"]


@pytest.mark.parametrize(
    "cfg_user",
    [
        SimpleNamespace(
            **{**ENTRIES, "local_diff_privacy": SimpleNamespace(per_example_clipping=0.5)}
        ),
        Node(ENTRIES),
        ENTRIES,
        SimpleNamespace(**ENTRIES),
    ],
    ids=["namespace", "node", "dict", "dict in namespace"],
)
def test_any_object_with_attributes(cfg_user):
    toy.assert_close(update(cfg_user), update(Case()), 0)


def make(user_class, **changes):
    return user_class(
        toy.plain_net(), torch.nn.CrossEntropyLoss(), toy.loader(), toy.SETUP, 0, toy.cfg(**changes)
    )


NEEDED = ["num_local_updates", "num_data_per_local_update_step", "local_learning_rate"]


@pytest.mark.parametrize("name", ["num_data_points", *NEEDED])
@pytest.mark.parametrize("how", ["absent", "None"])
def test_what_is_missing_is_named(name, how):
    cfg_user = toy.cfg(**{name: None})
    if how == "absent":
        delattr(cfg_user, name)
    with pytest.raises(ParameterError, match=rf"Expected `cfg_user` to have `{name}` \("):
        UserMultiStep(toy.plain_net(), toy.variance_objective, [], toy.SETUP, 0, cfg_user)


def test_a_single_step_user_needs_no_steps():
    cfg_user = SimpleNamespace(num_data_points=6)
    UserSingleStep(toy.plain_net(), toy.variance_objective, toy.loader(), toy.SETUP, 0, cfg_user)


@pytest.mark.parametrize("name", ["num_data_points", *NEEDED[:2]])
@pytest.mark.parametrize("value", [0, -1, 2.5, "many", True])
def test_counts(name, value):
    with pytest.raises(ParameterError, match=rf"Expected `{name}` to be an integer >= 1, got"):
        make(UserMultiStep, **{name: value})


@pytest.mark.parametrize("value", [0.0, -0.1, float("nan"), "0.1"])
def test_learning_rate(value):
    with pytest.raises(ParameterError, match="Expected `local_learning_rate` to be a number > 0"):
        make(UserMultiStep, local_learning_rate=value)


@pytest.mark.parametrize("name", ["num_data_points", "labels", "local_hyperparams", "buffers"])
def test_flags_are_booleans(name):
    with pytest.raises(ParameterError, match=f"Expected `provide_{name}` to be True or False, got"):
        make(UserSingleStep, **{f"provide_{name}": "no"})


def test_negative_seed():
    with pytest.raises(ParameterError, match="Expected `seed` to be an integer >= 0, got -1"):
        make(UserSingleStep, seed=-1)


@pytest.mark.parametrize("user_class", [UserSingleStep, UserMultiStep])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distribution": "uniform"}, r"Expected `distribution` to be one of 'gaussian', 'lapl"),
        ({"gradient_noise": -0.1}, r"Expected `gradient_noise` .* at least 0, got -0.1"),
        ({"input_noise": -1}, r"Expected `input_noise` .* at least 0, got -1"),
        ({"per_example_clipping": -1}, r"Expected `per_example_clipping` .* at least 0, got -1"),
        ({"gradient_nois": 1.0}, r"got `gradient_nois`; did you mean `gradient_noise`"),
    ],
)
@pytest.mark.parametrize("form", [dict, SimpleNamespace])
def test_defences(user_class, settings, message, form):
    with pytest.raises(ParameterError, match=message):
        make(user_class, local_diff_privacy=form(**settings))
