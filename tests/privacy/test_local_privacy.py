import math

import pytest

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy import LocalPrivacy

NUMBERS = ["gradient_noise", "input_noise", "per_example_clipping"]


def test_off_by_default():
    assert not LocalPrivacy().active
    assert LocalPrivacy().distribution == "gaussian"


@pytest.mark.parametrize("name", NUMBERS)
def test_each_number_turns_something_on(name):
    assert LocalPrivacy(**{name: 0.5}).active


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "1", True])
def test_numbers_out_of_range(name, value):
    with pytest.raises(ParameterError, match=f"Expected `{name}` to be a finite number of at le"):
        LocalPrivacy(**{name: value})


def test_unknown_distribution():
    with pytest.raises(ParameterError, match="got 'gausian'; did you mean `gaussian`"):
        LocalPrivacy(distribution="gausian")
