import json

import pytest
import torch

from orchestra_strategy.users import MultiUserAggregate, UserMultiStep, UserSingleStep
from tests.users import toy

FLAGS = ("num_data_points", "labels", "local_hyperparams", "buffers")
DEFENCE = {
    "gradient_noise": 0.25,
    "input_noise": 0.125,
    "distribution": "laplacian",
    "per_example_clipping": 1.5,
}


def make(user_class, cfg_user):
    model, loss = toy.plain_net(), torch.nn.CrossEntropyLoss()
    if user_class is MultiUserAggregate:
        return user_class(model, loss, lambda idx: toy.loader(), toy.SETUP, cfg_user, range(2, 9))
    return user_class(model, loss, toy.loader(), toy.SETUP, 3, cfg_user)


CLASSES = [UserSingleStep, UserMultiStep, MultiUserAggregate]


@pytest.mark.parametrize("user_class", CLASSES)
@pytest.mark.parametrize("told", FLAGS)
def test_each_flag_shows_in_its_line(user_class, told):
    one = make(user_class, toy.cfg(**{f"provide_{told}": True}))
    learns = one.summary()["server_learns"]
    assert set(learns) == {"gradients", *FLAGS}
    assert learns[told].startswith("told: ")
    assert all(learns[name] == "not told" for name in FLAGS if name != told)
    assert f"    {told}: told: " in repr(one)


@pytest.mark.parametrize("user_class", CLASSES)
def test_defences(user_class):
    assert make(user_class, toy.cfg()).summary()["defences"] == {}
    assert repr(make(user_class, toy.cfg())).endswith("Active defences:\n    none")
    one = make(user_class, toy.cfg(local_diff_privacy=toy.privacy(**DEFENCE)))
    text = repr(one)
    for words in (
        "L2 norm of at most 1.5, in every step",
        "gradient_noise: laplacian noise of scale 0.25 on every gradient",
        "input_noise: laplacian noise of scale 0.125 on the inputs",
    ):
        assert words in text
    assert set(one.summary()["defences"]) == {
        "gradient_noise",
        "input_noise",
        "per_example_clipping",
    }


@pytest.mark.parametrize(
    ("user_class", "words"),
    [
        (UserSingleStep, ["UserSingleStep 3", "user_type: local_gradient", "the gradient of the"]),
        (
            UserMultiStep,
            ["UserMultiStep 3", "num_local_updates: 4", "lr: 0.1", "local minus server parameters"],
        ),
        (
            MultiUserAggregate,
            ["MultiUserAggregate of 7 users", "user_indices: 2..8", "min_users: 7", "mean over us"],
        ),
    ],
)
def test_settings_and_update(user_class, words):
    text = repr(make(user_class, toy.cfg()))
    for word in [*words, "num_data_points: 6", "The server learns (threat model):"]:
        assert word in text


@pytest.mark.parametrize("user_class", CLASSES)
def test_summary_is_of_plain_types(user_class):
    one = make(user_class, toy.cfg(local_diff_privacy=toy.privacy(**DEFENCE)))
    assert json.loads(json.dumps(one.summary())) == one.summary()


def test_summary_counts_queries():
    one = make(UserSingleStep, toy.cfg())
    one.compute_local_updates(toy.payload(one.model))
    assert one.summary()["settings"]["counted_queries"] == 1


def test_a_streaming_user_says_so():
    one = UserMultiStep(
        toy.plain_net(), toy.variance_objective, None, toy.SETUP, 0, toy.cfg(), batches=list
    )
    assert "num_local_updates: one per streamed batch" in repr(one)
