import re
from typing import get_args

import numpy as np
import pytest
import torch

from orchestra_strategy.aggregation.table import AGGREGATIONS, AggregationName
from orchestra_strategy.config import StrategyConfig, parse_config
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.party.worker import strategy_parameters
from orchestra_strategy.rng import derive_seed, numpy_generator, torch_generator
from orchestra_strategy.strategies.orchestra_config import OrchestraConfig


def test_defaults_are_the_published_ones():
    c = OrchestraConfig()
    assert (c.lr, c.momentum, c.weight_decay, c.batch_size, c.local_epochs) == (
        *(0.003, 0.9, 1e-4, 16, 10),
    )
    assert (c.temperature, c.ema_decay, c.memory_size) == (0.1, 0.996, 128)
    assert (c.num_global_clusters, c.num_local_clusters) == (128, 16)


def test_all_problems_come_in_one_message():
    with pytest.raises(ParameterError) as caught:
        parse_config(OrchestraConfig, {"temperature": -1, "lrr": 0.1, "batch_size": 2.5})
    message = str(caught.value)
    assert "`temperature` to be greater than 0, got -1" in message
    assert "got `lrr`; did you mean `lr`?" in message
    assert "`batch_size` to be a valid integer, got 2.5" in message


FLOATS = [
    n for n, f in OrchestraConfig.model_fields.items() if re.search(r"\bfloat\b", str(f.annotation))
]


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
@pytest.mark.parametrize("name", FLOATS)
def test_every_number_has_to_be_finite(name, value):
    assert len(FLOATS) > 10
    with pytest.raises(ParameterError, match=f"`{name}` to be a finite number, got"):
        parse_config(OrchestraConfig, {name: value})


def test_a_configuration_made_by_its_class_is_refused_in_the_same_words():
    with pytest.raises(ParameterError, match=r"parameter of `OrchestraConfig`, got `lrr`; did you"):
        OrchestraConfig(lrr=0.1)
    with pytest.raises(ParameterError, match="`lr` to be greater than 0, got -1"):
        StrategyConfig(lr=-1)


@pytest.mark.parametrize("value", [True, "8", None])
def test_types_are_not_guessed(value):
    with pytest.raises(ParameterError, match="`batch_size` to be a valid integer"):
        parse_config(StrategyConfig, {"batch_size": value})


def test_a_misspelt_choice_gets_the_nearest_one():
    with pytest.raises(ParameterError, match=r"got 'medain'; did you mean 'median'\?$"):
        parse_config(StrategyConfig, {"aggregation": "medain"})
    with pytest.raises(ParameterError, match=r"'quality', got 3\.$"):
        parse_config(StrategyConfig, {"aggregation": 3})


def test_numpy_scalars_count_as_numbers():
    config = parse_config(StrategyConfig, {"batch_size": np.int64(8), "lr": np.float32(0.5)})
    assert (config.batch_size, config.lr) == (8, 0.5)


def test_a_config_is_immutable():
    with pytest.raises(ValueError, match="frozen"):
        OrchestraConfig().lr = 1.0


def test_sizes_scale_down():
    assert tuple(OrchestraConfig().sizes_for(30)) == (30, 7)
    assert tuple(OrchestraConfig().sizes_for(500)) == (128, 16)


def test_fewer_samples_than_k_min_are_refused():
    with pytest.raises(DataError, match=r"at least `k_min` = 4 samples.*got 3"):
        OrchestraConfig().sizes_for(3)


def test_a_parameter_given_twice_alike_is_fine():
    assert strategy_parameters({"lr": 0.1}, {"lr": 0.1, "use_gpu": False}) == {"lr": 0.1}


@pytest.mark.parametrize("other", [(2, "a", 0, "p"), (1, "b", 0, "p"), (1, "a", 1, "p")])
def test_each_coordinate_makes_another_stream(other):
    assert derive_seed(1, "a", 0, "p") != derive_seed(*other)
    assert derive_seed(1, "a", 0, "p") != derive_seed(1, "a", 0, "q")


def test_coordinates_cannot_run_into_each_other():
    assert derive_seed(1, "a", 11, "p") != derive_seed(1, "a1", 1, "p")


def test_generators_repeat_and_ignore_the_global_state():
    torch.manual_seed(0)
    first = torch.rand(3, generator=torch_generator(1, "a", 0, "p"))
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(first, torch.rand(3, generator=torch_generator(1, "a", 0, "p")))
    draws = [numpy_generator(1, "a", 0, "p").random(3) for _ in range(2)]
    assert np.array_equal(*draws)
    assert not np.array_equal(draws[0], numpy_generator(1, "b", 0, "p").random(3))


def test_the_seed_is_the_same_on_every_machine():
    assert derive_seed(42, "alice", 3, "views") == 5107574290401533557


def test_every_aggregation_has_its_name():
    assert get_args(AggregationName) == tuple(AGGREGATIONS)
