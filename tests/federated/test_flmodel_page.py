"""Every argument of FLModel's methods works or is refused; ``docs/flmodel.md`` has a row for each.

A test is named after its row: ``test_METHOD__ARGUMENT``, with ``init`` for the constructor.
"""

import inspect
import re
from pathlib import Path

import pytest

from orchestra_strategy import host
from orchestra_strategy.errors import ParameterError
from tests.federated import (
    test_flmodel_constructor,
    test_flmodel_encoder,
    test_flmodel_files,
    test_flmodel_fit,
)

PAGE = Path(__file__).parents[2] / "docs" / "flmodel.md"
METHODS = ("fit", "evaluate", "predict", "save_model", "load_model")
MODULES = (
    test_flmodel_constructor,
    test_flmodel_encoder,
    test_flmodel_files,
    test_flmodel_fit,
)


def rows():
    """``METHOD__ARGUMENT`` of each row of the page."""
    found = []
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        method = re.match(r"`(\w+)\(", section)[1]
        method = "init" if method == "FLModel" else method
        found += [f"{method}__{name}" for name in re.findall(r"^\| `(\w+)` \|", section, re.M)]
    return found


def test_the_page_has_every_argument_and_each_row_a_test():
    known = {
        f"{'init' if method == '__init__' else method}__{name}"
        for method in ("__init__", *METHODS)
        for name in inspect.signature(getattr(host.FLModel, method)).parameters
        if name not in ("self", "kwargs")
    }
    more = {"num_gpus", "server_agg_method", "strategy_config", "dp_strategy", "simulation"}
    known |= {f"init__{name}" for name in more} | {"load_model__custom_objects"}
    names = [name for module in MODULES for name in vars(module)]
    tests = {n.removeprefix("test_") for n in names if n.startswith("test_") and "__" in n}
    assert sorted(rows()) == sorted(known) == sorted(tests)


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_argument_is_refused_with_the_nearest(ours, x, method):
    first = (x,) if method in ("fit", "evaluate", "predict") else ("folder/model",)
    with pytest.raises((ParameterError, TypeError), match=r"batch_sise|unexpected keyword"):
        getattr(ours, method)(*first, batch_sise=3)
    if method == "fit":
        with pytest.raises(ParameterError, match="did you mean `batch_size`"):
            ours.fit(x, batch_sise=3)
