"""FLModel's arguments, a test for each row of ``docs/flmodel.md``: files of models."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestra_strategy import OrchestraFLModel
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import (
    CheckpointError,
    ModelError,
    ParameterError,
    ReplyError,
)
from tests.federated import toy
from tests.federated.flmodel import (
    SMALL,
    ask,
    fit_plain,
    plain,
    worker,
)


def test_save_model__model_path(devices, ours, tmp_path):
    with pytest.raises(CheckpointError, match=r"a file for each party where all are on one mach"):
        ours.save_model(str(tmp_path / "model"))
    with pytest.raises(CheckpointError, match=r"a path for each party, got none for .'bob'"):
        ours.save_model({devices[0]: "a"})
    with pytest.raises(CheckpointError, match=r"the path of a file, .*got 'folder/'"):
        ours.save_model("folder/", is_test=True)
    paths = {d: tmp_path / f"{d.party}.pt" for d in devices}
    ours.save_model(paths)
    for path in paths.values():
        content = torch.load(path, weights_only=True)
        assert {"model_state_dict", "optimizer_state_dict", "epoch"} <= set(content)
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("build", [toy.build, plain])
def test_save_model__is_test(devices, tmp_path, build, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = build(devices)
    model.save_model("saved/model", is_test=True)
    assert sorted(str(p) for p in Path("saved").rglob("model")) == [
        "saved/alice/model",
        "saved/bob/model",
    ]
    if build is toy.build:  # SecretFlow's own class needs a folder
        model.save_model("model", is_test=True)
        model.load_model("model", is_test=True)


def test_save_model__saved_model(ours):
    with pytest.raises(ParameterError, match=r"`saved_model` to be False.*`orchestra-fl export`"):
        ours.save_model("a/b", is_test=True, saved_model=True)


def held(model, party="alice"):
    return ask(model, toy.state_of, party)


@pytest.mark.parametrize("build", [toy.build, plain])
def test_load_model__model_path(devices, x, tmp_path, build):
    """Target network, memory and centroids are what they were; a further fit goes on from there."""
    fit = (
        (lambda m: m.fit(x, epochs=2))
        if build is toy.build
        else (lambda m: fit_plain(m, x, epochs=2))
    )
    trained = build(devices)
    fit(trained)
    trained.save_model(str(tmp_path / "m"), is_test=True)
    again = build(devices, random_seed=8)
    again.load_model(str(tmp_path / "m"), is_test=True)
    for party in toy.PARTIES:
        want, got = held(trained, party), held(again, party)
        assert all(np.array_equal(want[name], got[name]) for name in want)
    assert ask(again, lambda w: w.rounds_done) == 2
    assert ask(again, lambda w: len(w.objective.memory)) > 0
    fit(again)
    assert ask(again, lambda w: w.rounds_done) == 4
    gap = ask(again, _target_gap)
    assert gap < 0.3, gap


def _target_gap(worker):
    online = torch.nn.Sequential(worker.model.backbone, worker.model.projector).parameters()
    pairs = zip(worker.objective.target.parameters(), online, strict=True)
    return max((t - o).abs().max().item() for t, o in pairs)


def test_load_model__is_test(ours, tmp_path):
    ours.save_model(str(tmp_path / "m"), is_test=True)
    with pytest.raises(CheckpointError, match="a file for each party"):
        ours.load_model(str(tmp_path / "m"))
    with pytest.raises(CheckpointError, match=r"Expected a model in .*got No such file"):
        ours.load_model(str(tmp_path / "other"), is_test=True)


def test_load_model__saved_model(ours):
    with pytest.raises(ParameterError, match="`saved_model` to be False"):
        ours.load_model("a/b", is_test=True, saved_model=True)


def test_load_model__force_all_participate(devices, ours, x, tmp_path):
    paths = [{d: tmp_path / f"{d.party}{n}" for d in devices} for n in (1, 2)]
    for by_party in paths:
        ours.fit(x, epochs=1)
        ours.save_model(by_party)
    mixed = {devices[0]: paths[0][devices[0]], devices[1]: paths[1][devices[1]]}
    with pytest.raises(CheckpointError, match=r"same rounds, got {'alice': 1, 'bob': 2}"):
        toy.build(devices).load_model(mixed, force_all_participate=True)
    model = toy.build(devices)
    model.load_model(mixed)
    with pytest.raises(ReplyError, match="round"):
        model.fit(x, epochs=1)


def test_load_model__custom_objects(devices, ours, tmp_path):
    ours.save_model(str(tmp_path / "m"), is_test=True)
    with pytest.raises(ParameterError, match=r"Expected no `custom_objects` .*TensorFlow"):
        ours.load_model(str(tmp_path / "m"), is_test=True, custom_objects={"a": int})
    with pytest.raises(ParameterError, match="no further arguments of `load_model`"):
        plain(devices).load_model(str(tmp_path / "m"), is_test=True, custom_objects={"a": int})


def test_weights_alone_start_the_target_from_them_and_say_so(devices, ours, x, tmp_path, caplog):
    trained = toy.build(devices)
    trained.fit(x, epochs=2)
    paths = {d: tmp_path / d.party for d in devices}
    for device, path in paths.items():
        weights = ask(trained, lambda w: w.model.state_dict(), device.party)
        content = {"model_state_dict": weights, "optimizer_state_dict": [], "epoch": 1}
        torch.save(content, path)
    ours.fit(x, epochs=1)  # with a memory and centroids of its own
    ours.load_model(paths)
    assert "has weights alone: the target network" in caplog.text
    assert ask(ours, _target_gap) == 0
    assert ask(ours, lambda w: (len(w.objective.memory), w.objective.centroids)) == (0, None)
    ours.fit(x, epochs=1)
    assert ask(ours, lambda w: len(w.objective.memory)) > 0


def test_a_file_of_another_method_gives_its_weights_alone(devices, ours, x, tmp_path, caplog):
    simclr = OrchestraFLModel(device_list=devices, model=toy.MODEL, strategy="fed_simclr", **SMALL)
    simclr.fit(x, epochs=1)
    simclr.save_model(str(tmp_path / "m"), is_test=True)
    ours.load_model(str(tmp_path / "m"), is_test=True)
    assert "has what SimCLRObjective, SelfSupervisedMethod keeps: the target" in caplog.text
    assert ask(ours, _target_gap) == 0


def test_weights_of_another_network_are_refused(devices, ours, tmp_path):
    ours.save_model(str(tmp_path / "m"), is_test=True)
    wide = toy.build(devices, model=partial(toy.MODEL, hidden_dim=32))
    with pytest.raises(ModelError, match="to be those of this model, got others"):
        wide.load_model(str(tmp_path / "m"), is_test=True)


def test_the_memory_starts_anew_with_other_samples(devices, ours, x, tmp_path, caplog):
    ours.fit(x, epochs=1)
    ours.save_model(str(tmp_path / "m"), is_test=True)
    again = toy.build(devices)
    again.load_model(str(tmp_path / "m"), is_test=True)
    kept = ask(again, lambda w: len(w.objective.memory))
    other = fed_ndarray({d: toy.images(d.party)[::-1].copy() for d in devices})
    worker(again).build_dataset(other.partitions[devices[0]])
    assert kept > 0 == ask(again, lambda w: len(w.objective.memory))
    assert "alice has other data than before" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_model_is_refused(devices, ours, tmp_path, content):
    paths = {d: tmp_path / d.party for d in devices}
    for path in paths.values():
        path.write_bytes(content) if content is not None else torch.save({"a": 1}, path)
    with pytest.raises(CheckpointError, match="to be a file of `save_model`"):
        ours.load_model(paths)


@pytest.mark.parametrize(
    "options",
    [
        {"user_type": "local_gradient"},
        {"user_type": "multiuser_aggregate", "num_virtual_users": 2},
        {"strategy": "orchestra_advanced"},
        {"strategy": "fed_byol", "model": partial(toy.MODEL, heads=("predictor",))},
    ],
)
def test_all_that_a_party_keeps_can_be_read_back(devices, x, tmp_path, options):
    base = dict(toy.PARAMETERS) if "orchestra" in options.get("strategy", "orchestra") else SMALL
    build = partial(
        OrchestraFLModel, device_list=devices, **{"model": toy.MODEL, **base, **options}
    )
    trained = build()
    trained.fit(x, epochs=1)
    trained.save_model(str(tmp_path / "m"), is_test=True)
    again = build(random_seed=3)
    again.load_model(str(tmp_path / "m"), is_test=True)
    states = [ask(m, lambda w: w.all_kept_state() | w.user_type.state()) for m in (trained, again)]
    assert_same(*states)
    again.fit(x, epochs=1)


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, torch.Tensor | np.ndarray):
        assert np.array_equal(one, other)
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other
