"""FLModel's arguments, one test for each row of ``docs/flmodel.md``: ``fit``."""

from functools import partial

import numpy as np
import pytest
import torch

from orchestra_strategy import OrchestraFLModel, host, orchestra_model
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import (
    DataError,
    ParameterError,
    PrivacyError,
)
from tests.federated import toy
from tests.federated.flmodel import (
    SMALL,
    array_files,
    ask,
    fit_plain,
    image_builder,
    labels,
    plain,
)


def test_fit__x(devices, ours, x, tmp_path):
    for device in devices:
        np.save(tmp_path / f"{device.party}.npy", toy.images(device.party))
    by_array = ours.fit({d: toy.images(d.party) for d in devices}, epochs=1)
    by_path = toy.build(devices).fit({d: tmp_path / f"{d.party}.npy" for d in devices}, epochs=1)
    want = toy.build(devices).fit(x, epochs=1)["global_history"]
    assert by_array["global_history"] == by_path["global_history"] == want
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(DataError, match=r"or \{PYU: path\} with `dataset_builder`, got paths"):
        plain(devices).fit({d: str(table) for d in devices}, None, epochs=1, verbose=0)


TABLE = {"strategy": "fed_simclr", "views": "table", **SMALL}
MLP = {"model": partial(orchestra_model, "mlp", in_channels=4, hidden_dim=16, projection_dim=16)}


def tables(devices, folder):
    """A table of 4 columns and a label for each party."""
    rng = np.random.default_rng(0)
    paths = {}
    for device in devices:
        lines = [
            f"{a:.4f},{b:.4f},{c:.4f},{a * b:.4f},{int(a > b)}" for a, b, c in rng.random((24, 3))
        ]
        paths[device] = folder / f"{device.party}.csv"
        paths[device].write_text("a,b,c,d,kind\n" + "\n".join(lines))
    return paths


def table_model(devices):
    return OrchestraFLModel(device_list=devices, random_seed=7, **TABLE, **MLP)


def test_fit__y(devices, ours, x, tmp_path):
    want = ours.fit(x, epochs=1)["global_history"]
    assert toy.build(devices).fit(x, labels(devices), epochs=1)["global_history"] == want
    with pytest.raises(DataError, match=r"name a column only with {PYU: path}.*got 'kind'"):
        toy.build(devices).fit(x, "kind", epochs=1)
    paths = tables(devices, tmp_path)
    model = table_model(devices)
    model.fit(paths, "kind", epochs=1)
    scores, _ = model.evaluate(paths, "kind", return_dict=True)
    assert "nmi" in scores


def test_fit__batch_size(devices, ours, x):
    ours.fit(x, epochs=1, batch_size=41)
    assert ask(ours, lambda w: w.reports.rows_trained) == 41
    with pytest.raises(ParameterError, match=r"`batch_size` to be one number.*got a mapping"):
        ours.fit(x, batch_size=dict.fromkeys(devices, 8))
    model = plain(devices)
    model.fit(x, x, batch_size=8, epochs=1, verbose=0)  # 41 and 20 rows: 3 steps of SecretFlow's
    assert ask(model, lambda w: (w.rounds_done, w.config.batch_size)) == (3, 8)


@pytest.mark.parametrize(
    ("name", "value"), [("batch_sampling_rate", 0.5), ("batch_sampling_rate", 1.0)]
)
def test_fit__batch_sampling_rate(devices, ours, x, name, value):
    with pytest.raises(ParameterError, match=r"Expected no `batch_sampling_rate` .*`batch_size`"):
        ours.fit(x, **{name: value})
    ours.fit(x, epochs=1, **{name: None})
    model = plain(devices)
    model.fit(x, x, epochs=1, verbose=0, **{name: value})
    assert ask(model, lambda w: w.rounds_done) == 1 / value


@pytest.mark.parametrize("build", [toy.build, plain])
def test_fit__epochs(devices, x, build):
    model = build(devices)
    history = model.fit(x, epochs=2) if build is toy.build else fit_plain(model, x, epochs=2)
    assert len(history["global_history"]["train_loss"]) == 2


def test_fit__verbose(ours, x, capfd):
    ours.fit(x, epochs=1)
    quiet = capfd.readouterr().err
    ours.fit(x, epochs=1, verbose=1)
    assert len(capfd.readouterr().err) > len(quiet)


def test_fit__callbacks(ours, x):
    epochs = []

    class Spy(host.Callback):
        def on_epoch_end(self, epoch=None, logs=None):
            epochs.append(epoch)

    ours.fit(x, epochs=2, callbacks=[Spy()])
    assert epochs == [0, 1]


HEALTH = {f"val_{name}" for name in ("alignment", "uniformity", "effective_rank")}
SCORES = {f"val_{name}" for name in ("nmi", "ari", "cluster_accuracy", "purity")}


@pytest.mark.parametrize("form", ["pair", "no labels", "samples", "own class"])
def test_fit__validation_data(devices, x, form):
    y, model = labels(devices), (plain if form == "own class" else toy.build)(devices)
    few = fed_ndarray({d: toy.images(d.party)[: 4 + i] for i, d in enumerate(devices)})
    if form == "own class":
        history = fit_plain(model, x, epochs=2, validation_data=(x, y))
    else:
        given = {"pair": (x, y), "no labels": (few, None), "samples": few}[form]
        history = model.fit(x, epochs=2, validation_data=given)
    found = {n: v for n, v in history["global_history"].items() if n.startswith("val_")}
    with_labels = form in ("pair", "own class")
    assert set(found) == HEALTH | {"val_cluster_balance"} | (SCORES if with_labels else set())
    assert all(len(values) == 2 for values in found.values())
    # By the numbers of validation samples, not of training samples.
    sizes = toy.SIZES if with_labels else {"alice": 4, "bob": 5}
    local = history["local_history"]
    parts = [(local[f"{d}_val_alignment"][1], sizes[d.party]) for d in devices]
    mean = sum(value * n for value, n in parts) / sum(sizes.values())
    assert found["val_alignment"][1] == pytest.approx(mean, rel=1e-6)
    # What FLModel's own evaluate gives of the trained encoder.
    again, _ = model.evaluate(x, y, return_dict=True) if with_labels else (None, None)
    if again is not None:
        last = {name.removeprefix("val_"): values[-1] for name, values in found.items()}
        assert {n: float(m.result()) for n, m in again.items()} == pytest.approx(last, rel=1e-6)


def test_validation_is_for_every_strategy_and_by_the_manifest(devices, x):
    for strategy in ("fed_simclr", "fed_rotpred", "orchestra_simple"):
        model = OrchestraFLModel(device_list=devices, model=toy.MODEL, strategy=strategy, **SMALL)
        history = model.fit(x, epochs=1, validation_data=(x, labels(devices)))
        names = {n for n in history["global_history"] if n.startswith("val_")}
        assert names == HEALTH | SCORES, strategy
        (row,) = [row for row in model.manifest() if row["name"] == "evaluation"]
        assert "val_" in row["meaning"]


def test_a_validation_leaves_the_parameters_of_the_fit(ours, x):
    seen = []

    class Spy(host.Callback):
        def on_test_end(self, logs=None):
            seen.append(ask(ours, lambda w: w.config.temperature))

    ours.fit(
        x, epochs=2, strategy_kwargs={"temperature": 0.3}, validation_data=x, callbacks=[Spy()]
    )
    assert seen == [0.3, 0.3]


def test_protected_samples_are_not_validated_unless_asked_for(devices, x):
    private = {"privacy": "user", "noise_multiplier": 1.0}
    model = partial(toy.MODEL, norm="group+batch")
    options = {"device_list": devices, "model": model, "strategy": "fed_simclr", **SMALL}
    refused = OrchestraFLModel(**options, **private)
    with pytest.raises(PrivacyError, match="`log_unprotected=True` for `evaluate`"):
        refused.fit(x, validation_data=x)
    assert ask(refused, lambda w: w.rounds_done) == 0
    OrchestraFLModel(**options, **private, log_unprotected=True).fit(x, validation_data=x)


def test_fit__shuffle(ours, x):
    ours.fit(x, epochs=1, shuffle=True)
    with pytest.raises(ParameterError, match="Expected no `shuffle` in `fit`, got False"):
        ours.fit(x, shuffle=False)


def test_fit__class_weight(ours, x):
    with pytest.raises(ParameterError, match=r"Expected no `class_weight` .*know no classes"):
        ours.fit(x, class_weight={0: 1.0})


def test_fit__sample_weight(devices, ours, x):
    weights = fed_ndarray({d: np.ones(toy.SIZES[d.party]) for d in devices})
    with pytest.raises(ParameterError, match=r"Expected no `sample_weight` .*got 'FedNdarray'"):
        ours.fit(x, sample_weight=weights)
    with pytest.raises(ParameterError, match="Expected no `sample_weight`, got one"):
        fit_plain(plain(devices), x, epochs=1, sample_weight=weights)


@pytest.mark.parametrize("build", [toy.build, plain])
def test_fit__validation_freq(devices, x, build):
    model, y = build(devices), labels(devices)
    fit = model.fit if build is toy.build else partial(fit_plain, model)
    history = fit(x, epochs=3, validation_data=(x, y), validation_freq=2)
    assert len(history["global_history"]["val_nmi"]) == 2  # after the first and the third
    if build is toy.build:
        with pytest.raises(ParameterError, match="`validation_freq` to be an integer >= 1, got 0"):
            model.fit(x, validation_data=x, validation_freq=0)


def test_fit__aggregate_freq(devices, ours, x):
    with pytest.raises(ParameterError, match=r"Expected no `aggregate_freq` .*got 1: an epoch is"):
        ours.fit(x, aggregate_freq=1)
    model = plain(devices)
    model.fit(x, x, batch_size=8, epochs=1, aggregate_freq=2, verbose=0)
    assert ask(model, lambda w: w.rounds_done) == 2


def test_fit__label_decoder(ours, x):
    with pytest.raises(ParameterError, match=r"Expected no `label_decoder` .*`label_column`"):
        ours.fit(x, label_decoder=int)


def test_fit__max_batch_size(ours, x):
    ours.fit(x, epochs=1, max_batch_size=20000)  # FLModel's default
    with pytest.raises(ParameterError, match=r"Expected no `max_batch_size` .*got 64"):
        ours.fit(x, max_batch_size=64)


def test_fit__prefetch_buffer_size(ours, x):
    with pytest.raises(ParameterError, match="Expected no `prefetch_buffer_size`"):
        ours.fit(x, prefetch_buffer_size=2)


def test_fit__sampler_method(devices, ours, x):
    ours.fit(x, epochs=1, sampler_method="batch")
    with pytest.raises(ParameterError, match=r"Expected no `sampler_method` .*Poisson"):
        ours.fit(x, sampler_method="possion")
    with pytest.raises(ParameterError, match="`sampler_method` to be 'batch', got 'possion'"):
        fit_plain(plain(devices), x, epochs=1, sampler_method="possion")


def test_fit__random_seed(devices, ours, x):
    ours.fit(x, epochs=1, random_seed=7)
    with pytest.raises(ParameterError, match=r"Expected no `random_seed` .*got 8: give `random_"):
        ours.fit(x, random_seed=8)
    one, other = (
        fit_plain(plain(devices), x, epochs=1, random_seed=seed)["global_history"]
        for seed in (1, 2)
    )
    assert one == other


def test_fit__dp_spent_step_freq(ours, x):
    with pytest.raises(ParameterError, match=r"Expected no `dp_spent_step_freq` .*privacy_epsilon"):
        ours.fit(x, dp_spent_step_freq=1)


def test_fit__audit_log_dir(devices, ours, x, tmp_path):
    ours.fit(x, epochs=2, validation_data=x, audit_log_dir=str(tmp_path / "ours"))
    own = plain(devices, simulation=True)
    fit_plain(own, x, epochs=2, validation_data=(x, x), audit_log_dir=str(tmp_path / "own"))
    for folder in ("ours", "own"):
        found = sorted(p.relative_to(tmp_path / folder) for p in (tmp_path / folder).rglob("[01]"))
        assert [str(p) for p in found] == [
            f"base_model/{party}/{epoch}" for party in ("alice", "bob") for epoch in (0, 1)
        ]
    with pytest.raises(ParameterError, match="Expected `validation_data` with `audit_log_dir`"):
        ours.fit(x, audit_log_dir=str(tmp_path))


def test_fit__dataset_builder(devices, ours, x, tmp_path):
    paths, builders = array_files(devices, tmp_path), dict.fromkeys(devices, image_builder)
    built = ours.fit(paths, epochs=2, dataset_builder=builders, validation_data=paths)
    want = toy.build(devices).fit(x, epochs=2, validation_data=(x, labels(devices)))
    assert built["global_history"] == want["global_history"]
    assert "val_nmi" in built["global_history"]
    own = plain(devices)
    history = own.fit(paths, None, epochs=2, dataset_builder=builders, verbose=0)
    assert ask(own, lambda w: (w.num_samples(), w.rounds_done)) == (41, 2)
    same = fit_plain(plain(devices), x, epochs=2)
    assert history["global_history"] == same["global_history"]
    with pytest.raises(DataError, match=r"`x` to be \{PYU: path\} with `dataset_builder="):
        ours.fit(x, dataset_builder=builders)
    with pytest.raises(DataError, match=r"`x` to be \{PYU: path\} with `dataset_builder`, which"):
        fit_plain(plain(devices), x, epochs=1, dataset_builder=builders)


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (lambda path, stage: [torch.zeros(4, 8, 8)], "to return batches and how many of them"),
        (lambda path, stage: ([torch.zeros(4, 8, 8)], 2), "`steps_per_epoch` = 2 batches.* got 1"),
        (lambda path, stage: ([(torch.zeros(4, 8, 8),) * 3], 1), "got 3 things: samples are not"),
        (lambda path, stage: ([(torch.zeros(4, 8, 8), torch.full((4,), 0.5))], 1), "whole numbers"),
    ],
)
def test_builders_that_give_something_else_are_refused(devices, ours, tmp_path, builder, message):
    paths = array_files(devices, tmp_path)
    with pytest.raises((DataError, ParameterError), match=message):
        ours.fit(paths, dataset_builder=dict.fromkeys(devices, builder))


def test_fit__wait_steps(ours, x):
    ours.fit(x, epochs=1, wait_steps=1)
