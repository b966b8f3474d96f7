"""The public lists name what exists, and the registry does what it says."""

import importlib
import pkgutil
from typing import Tuple

import numpy as np
import pytest

import orchestra_strategy
from orchestra_strategy import host, register_strategy, registered_strategies
from orchestra_strategy.errors import HostError, ParameterError, RegistrationError
from orchestra_strategy.strategies.registry import lookup_strategy


def test_every_public_name_exists():
    modules = [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(orchestra_strategy.__path__, "orchestra_strategy.")
    ]
    for module in [orchestra_strategy, *modules]:
        names = getattr(module, "__all__", [])
        missing = [name for name in names if not hasattr(module, name)]
        assert not missing, f"{module.__name__}: {missing}"


def test_ours_and_the_hosts_are_listed():
    names = registered_strategies()
    assert "orchestra_torch" in names
    assert "fed_avg_w_torch" in names


def test_reload_registers_again():
    module = importlib.import_module("orchestra_strategy.strategies.orchestra")
    before = host.dispatcher_table()["orchestra_torch"]
    importlib.reload(module)
    try:
        assert host.dispatcher_table()["orchestra_torch"] is module.OrchestraStrategy is not before
    finally:
        host.dispatcher_table()["orchestra_torch"] = before


def strategy(annotation):
    def train_step(self, weights, cur_steps, train_steps, **kwargs):
        return weights, 1

    if annotation is not None:
        train_step.__annotations__["return"] = annotation
    return type("Mine", (), {"train_step": train_step})


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (None, "no annotation"),
        (tuple[np.ndarray, int], r"`tuple\[numpy.ndarray, int\]`"),
        ("Tuple[np.ndarray, int]", r"the string 'Tuple\[np.ndarray, int\]'"),
        (int, "`<class 'int'>`"),
        (Tuple[np.ndarray, int, int], r"`typing.Tuple\[numpy.ndarray, int, int\]`"),
    ],
)
def test_a_train_step_that_would_break_the_host_is_refused(annotation, found):
    with pytest.raises(RegistrationError, match=f"got {found}.*cannot unpack"):
        register_strategy(strategy_name="mine")(strategy(annotation))
    assert "mine_torch" not in host.dispatcher_table()


def test_no_train_step_is_refused():
    with pytest.raises(RegistrationError, match="to define `train_step`, got none"):
        register_strategy(strategy_name="mine")(type("Mine", (), {}))


def test_a_taken_name_is_refused():
    with pytest.raises(RegistrationError, match=r"got 'fed_avg_w', which belongs to `.*FedAvgW`"):
        register_strategy(strategy_name="fed_avg_w")(strategy(Tuple[np.ndarray, int]))


def test_another_backend_is_refused():
    with pytest.raises(RegistrationError, match="`backend` to be 'torch', got 'tensorflow'"):
        register_strategy(strategy_name="mine", backend="tensorflow")


def test_the_class_comes_back_from_the_decorator():
    cls = strategy(Tuple[np.ndarray, int])
    try:
        assert register_strategy(strategy_name="mine")(cls) is cls
        assert lookup_strategy("mine") is cls
    finally:
        del host.dispatcher_table()["mine_torch"]


def test_an_unknown_strategy_is_refused_with_the_nearest_name():
    with pytest.raises(ParameterError, match="did you mean `orchestra`"):
        lookup_strategy("orchestre")


@pytest.mark.parametrize(
    ("version", "fl", "sfl", "message"),
    [
        ("1.10.0b1", True, False, "got 1.10.0b1: install a supported release"),
        ("1.14.0", False, False, "got 1.14.0: install a supported release"),
        ("1.13.0b0", True, True, "got both"),
        ("1.13.0b0", False, False, "to carry `secretflow_fl`"),
        ("unknown", True, False, "can be read, got 'unknown'"),
    ],
)
def test_unsupported_hosts_are_refused_with_a_sentence(version, fl, sfl, message):
    with pytest.raises(HostError, match=message):
        host.check_versions(version, has_secretflow_fl=fl, has_sfl=sfl)


@pytest.mark.parametrize("version", ["1.11.0b0", "1.12.0b0", "1.13.0b0"])
def test_supported_hosts(version):
    assert host.check_versions(version, True, False) == "secretflow_fl"
    assert host.check_versions("0.1", False, True) == "sfl"
