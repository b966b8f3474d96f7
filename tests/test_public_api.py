"""The public lists name what exists, and the registry does what it says."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Tuple

import numpy as np
import packaging
import pytest

import orchestra_strategy
from orchestra_strategy import host, register_strategy, registered_strategies
from orchestra_strategy.errors import HostError, ParameterError, RegistrationError
from orchestra_strategy.public_names import WITH_HOST, WITHOUT_HOST
from orchestra_strategy.strategies.registry import lookup_strategy

ROOT = Path(__file__).parents[1]


def test_every_public_name_exists():
    modules = [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(orchestra_strategy.__path__, "orchestra_strategy.")
    ]
    for module in [orchestra_strategy, *modules]:
        names = getattr(module, "__all__", [])
        missing = [name for name in names if not hasattr(module, name)]
        assert not missing, f"{module.__name__}: {missing}"


def test_type_checkers_see_the_names_that_are_looked_up():
    tree = ast.parse(Path(orchestra_strategy.__file__).read_text(encoding="utf-8"))
    checked = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.asname: node.module.removeprefix("orchestra_strategy.")
        for node in checked.body
        for alias in node.names
    }
    assert seen == {**WITHOUT_HOST, **WITH_HOST}


def test_the_package_alone_imports_nothing_heavy():
    program = (
        "import sys, orchestra_strategy\n"
        "heavy = {'numpy', 'pydantic', 'secretflow', 'secretflow_fl', 'torch'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


FIRST = "import orchestra_strategy"
SECOND = "from secretflow_fl.ml.nn import FLModel"
ROOM = "import orchestra_strategy.strategies.variants"


@pytest.mark.parametrize(
    "lines",
    [(FIRST, SECOND), (SECOND, FIRST), pytest.param((ROOM, SECOND), marks=pytest.mark.slow)],
)
def test_secretflow_finds_ours_whichever_is_imported_first(lines):
    program = "\n".join(
        [
            *lines,
            "import secretflow as sf, torch",
            "from secretflow_fl.ml.nn.core.torch import TorchModel",
            "sf.init(parties=['alice', 'bob'], debug_mode=True)",
            "alice, bob = sf.PYU('alice'), sf.PYU('bob')",
            "from functools import partial",
            "from orchestra_strategy import orchestra_model, server_aggregation",
            "build = partial(orchestra_model, backbone='conv4', in_channels=1)",
            "model = TorchModel(model_fn=build, loss_fn=None, optim_fn=None)",
            "fl = FLModel(server=alice, device_list=[alice, bob], model=model,",
            "             strategy='fed_simclr', backend='torch',",
            "             server_agg_method=server_aggregation())",
            "print(next(iter(fl._workers.values())).actor_class)",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "SimCLR" in done.stdout


def test_a_name_that_is_not_there_is_told_as_such():
    with pytest.raises(AttributeError, match="has no attribute 'OrchestraFlModel'"):
        getattr(orchestra_strategy, "OrchestraFlModel")  # noqa: B009
    assert {"audit", "session"} <= set(dir(orchestra_strategy))


FORMER_NAMES = [
    ("PYUOrchestraStrategy", "`OrchestraStrategy`, one class"),
    ("PYUAdvancedOrchestraStrategy", "`OrchestraAdvancedStrategy`"),
    ("AdvancedOrchestraStrategy", "`OrchestraAdvancedStrategy`"),
    ("PrivateOrchestraStrategy", "`OrchestraPrivateStrategy`"),
    ("OptimizedOrchestraStrategy", "`OrchestraStrategy`, which needs none of what it added"),
]


@pytest.mark.parametrize(("name", "present"), FORMER_NAMES)
def test_a_name_of_the_published_guide_is_told_as_what_it_is_now(name, present):
    with pytest.raises(ImportError, match=f"got `{name}`: it is {present}"):
        exec(f"from orchestra_strategy import {name}")
    told = present.split("`")[1]
    assert isinstance(getattr(orchestra_strategy, told), type)
    assert name not in orchestra_strategy.__all__


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
        ("1.14.0", False, False, "got secretflow 1.14.0 alone, .* has moved to `sfl`: install"),
        ("1.14.0b0", False, False, "got secretflow 1.14.0b0 alone, .* `pip install secretflow==1"),
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


def fake_install(folder, distribution, version, packages):
    """Put packages on a path, as a wheel leaves them."""
    for package in packages:
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text("raise ImportError('not while looking')")
    about = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\n")
    (about / "METADATA").open("a").write(f"Version: {version}\n")


@pytest.mark.parametrize(
    ("distribution", "version", "packages", "answer"),
    [
        # A genuine sfl brings a secretflow_fl without `ml`, on top of secretflow-lite.
        ("secretflow-lite", "1.14.0b0", ("secretflow", "secretflow_fl", "sfl", "sfl/ml"), "sfl"),
        ("secretflow-lite", "1.13.0b0", ("secretflow", "secretflow_fl/ml"), "secretflow_fl"),
        ("secretflow", "1.12.0b0", ("secretflow", "secretflow_fl/ml"), "secretflow_fl"),
        ("secretflow", "1.14.0b0", ("secretflow", "secretflow_fl"), "moved to `sfl`"),
        ("secretflow", "1.13.0b0", ("secretflow_fl/ml",), "Expected SecretFlow to be installed"),
        ("secretflow", "1.13.0b0", ("secretflow", "secretflow_fl/ml", "sfl/ml"), "got both"),
    ],
)
def test_what_is_installed_is_found_without_importing_it(
    distribution, version, packages, answer, tmp_path
):
    fake_install(tmp_path, distribution, version, packages)
    program = (
        "import sys\n"
        "sys.path = [p for p in sys.path if 'site-packages' not in p]\n"
        f"sys.path[:0] = {[str(tmp_path), str(ROOT)]!r}\n"
        f"sys.path.append({str(Path(packaging.__path__[0]).parent)!r})\n"
        "import packaging.version\n"
        "sys.path.pop()\n"
        "from orchestra_strategy import host_find, errors\n"
        "try:\n    print(host_find.find_root())\n"
        "except errors.HostError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert answer in done.stdout
