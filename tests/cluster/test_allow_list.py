"""A peer's pickle can bring arrays, and run nothing."""

import os
import pickle

import numpy as np
import pytest

from orchestra_strategy import host
from orchestra_strategy.cluster.allow_list import loads
from orchestra_strategy.errors import ReplyError


class Runs:
    """What an attacker sends: it names a function, and pickle calls it."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "value",
    [
        {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": 3, "name": "alice", "x": [None]},
        np.arange(12).reshape(3, 4).T,  # not contiguous
        np.array(["a", "bc"]),
        (np.float64(2.5), True, b"bytes", {1, 2}),
    ],
    ids=["dict", "transposed", "texts", "scalars"],
)
@pytest.mark.parametrize("protocol", [4, 5])
def test_arrays_come_back(value, protocol):
    np.testing.assert_equal(loads(pickle.dumps(value, protocol), "bob"), value)


def test_metrics_of_the_host_need_their_name():
    data = pickle.dumps(host.Mean("loss", 1.0, 2.0))
    assert loads(data, "bob", [f"{host.host_root}.ml.nn.metrics.Mean"]).result() == 0.5
    with pytest.raises(ReplyError, match=r"`bob` to send arrays.*metrics\.Mean"):
        loads(data, "bob")


@pytest.mark.parametrize(
    ("function", "argument"),
    [(os.system, "true"), (np.savetxt, "{}"), (exec, "open({!r}, 'w')"), (eval, "1")],
    ids=["system", "savetxt", "exec", "eval"],
)
def test_nothing_is_run(tmp_path, function, argument):
    target = tmp_path / "written"
    more = (np.zeros(2),) if function is np.savetxt else ()
    data = pickle.dumps(Runs(function, argument.format(str(target)), *more))
    with pytest.raises(ReplyError, match="which was not run"):
        loads(data, "bob")
    assert not target.exists()


def test_a_dotted_name_does_not_reach_through_an_allowed_one():
    data = b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93."
    with pytest.raises(ReplyError, match=r"names `numpy\.ndarray\.dumps`"):
        loads(data, "bob")


@pytest.mark.parametrize("data", [b"", b"no pickle", pickle.dumps(np.ones(9))[:-20]])
def test_rubbish_is_named(data):
    with pytest.raises(ReplyError, match=f"got {len(data)} bytes that cannot be read"):
        loads(data, "bob")
