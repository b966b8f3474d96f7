"""What is audited: the split into members and others, and the settings; each refusal."""

import numpy as np
import pytest

from orchestra_strategy.audit.samples import read_data, split_of
from orchestra_strategy.audit.settings import parse_audit
from orchestra_strategy.data.readers.local_data import LocalData
from orchestra_strategy.errors import DataError, ParameterError
from tests.audit.parties import config_of


def test_members_and_others_are_disjoint_and_seeded():
    x = np.arange(40, dtype=np.float32).repeat(16).reshape(40, 4, 4) / 40
    splits = [
        split_of(LocalData(x, np.arange(40)), config_of(seed=seed, members=16))
        for seed in (0, 0, 1)
    ]
    first, again, other = ([*s.member_labels.tolist(), *s.other_labels.tolist()] for s in splits)
    assert len(set(first)) == 32
    assert first == again != other
    assert splits[0].members.shape == (16, 1, 4, 4)
    assert (
        splits[0].members[:, 0, 0, 0].mul(40).round().tolist() == splits[0].member_labels.tolist()
    )


def test_digits_are_at_hand():
    digits = read_data("digits")
    assert digits.samples.shape == (1797, 8, 8)
    assert digits.samples.max() == 1.0


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((15, 8, 8), np.float32), r"Expected at least 2 \* 8 samples .*, got 15; lower"),
        (np.full((40, 8, 8), 2, np.float32), r"Expected pixels to be uint8 or in \[0, 1\], got"),
    ],
)
def test_data_that_cannot_be_audited_are_refused(samples, message):
    with pytest.raises(DataError, match=message):
        split_of(LocalData(samples), config_of())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strateggy": "orchestra"}, "got `strateggy`; did you mean `strategy`"),
        ({"images": 3}, "Expected `images` to be"),
        ({"user_types": []}, "^Expected `user_types` to name at least one, got none\\.$"),
        ({"attacks": []}, "`attacks` to name at least one"),
        ({"privacy": []}, "`privacy` to name at least one"),
        (
            {"user_types": ["local_updat"]},
            "^Expected `user_types.0` to be .*, got 'local_updat'; did you mean 'local_update'",
        ),
        ({"privacy": [{"clip": 1.0}]}, "`privacy` to hold privacy parameters, got `clip`; others"),
        ({"privacy": [{}, {}]}, r"`privacy` to hold different settings, got \['no privacy', 'no"),
        (
            {"privacy": [{}], "parameters": {"privacy": "user"}},
            "privacy in `parameters` or in `privacy`, got `privacy` in `parameters`, and",
        ),
        ({"parameters": {"user_type": "local_update"}}, "`user_type` not to be among .*: it is"),
        (
            {"privacy": [{"privacy": "users"}]},
            "`privacy` to be 'none', 'user' or 'record', got",
        ),
        ({"privacy": [{"noise_seed": 1}]}, "`noise_seed` not to be among the strategy's"),
    ],
)
def test_settings_that_cannot_be_audited_are_refused(values, message):
    with pytest.raises(ParameterError, match=message):
        parse_audit(values)
