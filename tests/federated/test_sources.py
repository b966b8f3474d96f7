"""Parties that read their own data, through OrchestraFLModel: what trains, and what is refused."""

import logging
from functools import partial

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from secretflow.data import partition as partition_frame

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import host, orchestra_model
from orchestra_strategy.data.sources import (
    fed_from_paths,
    fed_labelled_from_paths,
    fed_ndarray,
)
from orchestra_strategy.errors import DataError, ParameterError
from tests.federated import toy
from tests.test_trainer import CONFIG

TABLE_MODEL = partial(orchestra_model, "mlp", in_channels=6, hidden_dim=16, projection_dim=16)


def pixels(party):
    return (toy.images(party) * 255).round().astype(np.uint8)


def write_images(folder, party):
    """The toy images as PNG files of two classes; returns the folder."""
    for i, image in enumerate(pixels(party)):
        file = folder / party / ("round" if i % 2 else "square") / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image, "L").save(file)
    return folder / party


def write_table(folder, party, columns="abcdef", rows=24):
    rng = np.random.default_rng(toy.PARTIES.index(party))
    frame = pd.DataFrame(rng.normal(5, 3, (rows, len(columns))), columns=list(columns))
    frame.insert(0, "kind", np.where(np.arange(rows) % 2, "x", "y"))
    frame.to_csv(folder / f"{party}.csv", index=False, sep=";")
    return folder / f"{party}.csv"


def test_image_folders_train_like_the_same_arrays(devices, tmp_path):
    paths = {d: write_images(tmp_path, d.party) for d in devices}
    from_paths = toy.build(devices).fit(paths, epochs=2)
    # The files are ordered by class.
    arrays = {d: np.concatenate([pixels(d.party)[i::2] for i in (1, 0)]) for d in devices}
    assert np.isfinite(from_paths["global_history"]["train_loss"]).all()
    from_arrays = toy.build(devices).fit(fed_ndarray(arrays), epochs=2)
    assert from_paths["global_history"] == from_arrays["global_history"]
    assert (
        toy.build(devices).fit(arrays, epochs=2)["global_history"] == from_paths["global_history"]
    )


def test_samples_stay_uint8_in_the_worker(devices, tmp_path):
    model = toy.build(devices)
    reports = model.check_data({d: str(write_images(tmp_path, d.party)) for d in devices})
    assert reports["bob"]["dtype"] == "uint8"
    assert reports["bob"]["sample_shape"] == (1, 8, 8)
    model.fit({d: tmp_path / d.party for d in devices}, epochs=1)
    held = {d.party: w.apply(lambda w: w._data.samples) for d, w in model.workers.items()}
    assert {x.dtype for x in host.reveal(held).values()} == {np.dtype(np.uint8)}


def test_tables_train_through_the_trainer(devices, tmp_path):
    paths = {d: write_table(tmp_path, d.party) for d in devices}
    config = {
        **CONFIG,
        "model": {"backbone": "mlp", "in_channels": 6, "hidden_dim": 16, "projection_dim": 16},
        "parameters": {**toy.PARAMETERS, "views": "table"},
        "data_options": {"columns": list("abcdef")},
    }
    results = FederatedOrchestraTrainer(config, devices).train(paths)
    assert np.isfinite(results.history["train_loss"]).all()
    assert [row["samples"] for row in results.ledger] == [48, 48]
    config["data_options"] = {"colums": ["a"]}
    with pytest.raises(ParameterError, match="got `colums`: did you mean `columns`"):
        FederatedOrchestraTrainer(config, devices).train(paths)
    with pytest.raises(ParameterError, match=r"only with \{PYU: path\} .*, got \['colums'\]"):
        FederatedOrchestraTrainer(config, devices).train(toy.data(devices))


def test_npz_and_labels(devices, tmp_path):
    paths = {}
    for i, device in enumerate(devices):
        paths[device] = tmp_path / f"{device.party}.npz"
        np.savez(paths[device], x=pixels(device.party), y=np.full(toy.SIZES[device.party], i))
    x, y = fed_labelled_from_paths(paths)
    assert [shape[0] for shape in x.partition_shape().values()] == [41, 20]
    values = host.reveal({d.party: part for d, part in y.partitions.items()})
    assert {p: (v.shape, set(v)) for p, v in values.items()} == {
        "alice": ((41,), {0}),
        "bob": ((20,), {1}),
    }
    toy.build(devices).fit(x, y, epochs=1)
    np.savez(paths[devices[1]], x=pixels("bob"))
    x, y = fed_labelled_from_paths(paths)
    assert [shape[0] for shape in x.partition_shape().values()] == [41, 20]
    assert y is None


def test_labels_without_request_do_not_leave_the_file(devices, tmp_path):
    paths = {d: write_images(tmp_path, d.party) for d in devices}
    (paths[devices[1]] / "square").rename(paths[devices[1]] / "secret")
    fed_from_paths(paths)  # the names of classes are nobody's business where labels are not read
    with pytest.raises(
        DataError,
        match=r"same classes .* 2 at `bob`, .* number 2 on: give `class_names`",
    ):
        fed_labelled_from_paths(paths)
    names = ["round", "square", "secret"]
    _, y = fed_labelled_from_paths(paths, class_names=names)
    assert set(host.reveal(y.partitions[devices[1]])) == {0, 2}


# ---- Refusals ------------------------------------------------------------------------------


def test_all_parties_problems_come_in_one_message(devices, tmp_path):
    paths = {devices[0]: tmp_path / "gone", devices[1]: write_images(tmp_path, "bob")}
    (paths[devices[1]] / "round" / "01.png").write_bytes(b"no image")
    with pytest.raises(
        DataError,
        match=r"data of 2 of 2 parties .* party `alice`: .*gone`.*; party `bob`: .*1 image is c",
    ):
        toy.build(devices).fit(paths, epochs=1)


def test_skipped_images_are_counted_on_the_driver(devices, tmp_path, caplog):
    paths = {d: write_images(tmp_path, d.party) for d in devices}
    (paths[devices[1]] / "round" / "01.png").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING, logger="orchestra_strategy.data.sources"):
        x = fed_from_paths(paths, skip_corrupt=True)
    assert "Party bob left out 1 corrupt images." in caplog.text
    assert len(host.reveal(x.partitions[devices[1]])) == toy.SIZES["bob"] - 1


def test_a_party_with_other_images_is_refused(devices, tmp_path):
    paths = {d: write_images(tmp_path, d.party) for d in devices}
    x = fed_from_paths(paths, mode="RGB")
    assert host.reveal(x.partitions[devices[0]]).shape == (41, 3, 8, 8)
    arrays = {d: tmp_path / f"{d.party}.npy" for d in devices}
    np.save(arrays[devices[0]], pixels("alice"))
    np.save(arrays[devices[1]], np.repeat(pixels("bob")[:, np.newaxis], 3, axis=1))
    with pytest.raises(DataError, match=r"shape differs: \(1, 8, 8\) at `alice`, \(3, 8, 8\) at"):
        toy.build(devices).fit(arrays, epochs=1)


def test_tables_with_other_columns_are_refused(devices, tmp_path):
    paths = {
        devices[0]: write_table(tmp_path, "alice"),
        devices[1]: write_table(tmp_path, "bob", columns="abcdfe"),
    }
    with pytest.raises(
        DataError, match=r"same columns .* got 8 at `alice`, 8 at `bob`, which differ from number 7"
    ):
        fed_from_paths(paths, categories={"kind": ["x", "y"]})
    model = toy.build(devices, model=TABLE_MODEL, views="table")
    model.fit(fed_from_paths(paths, columns=list("abcdef")), epochs=1)


def test_names_that_may_be_cells_do_not_leave(devices, tmp_path, monkeypatch):
    paths = {d: tmp_path / f"{d.party}.csv" for d in devices}
    for device, path in paths.items():
        path.write_text(f"SECRET{device.party},17\n1,2\n3,4\n")  # no header: these are a sample
    seen = []
    reveal = host.reveal_within
    monkeypatch.setattr(host, "reveal_within", lambda *a: seen.append(reveal(*a)) or seen[-1])
    with pytest.raises(DataError, match=r"2 at `alice`, 2 at `bob`, .* number 1 on") as error:
        fed_from_paths(paths)
    assert set(seen[0]) == {"alice", "bob"}
    assert "SECRET" not in f"{error.value} {seen}"


def test_options_of_another_kind_are_parameter_errors(devices, tmp_path):
    paths = {d: write_table(tmp_path, d.party) for d in devices}
    with pytest.raises(ParameterError, match=r"party `alice`: .*got `mode`: .*; party `bob`"):
        fed_from_paths(paths, mode="L")
    paths[devices[1]] = tmp_path / "gone"
    with pytest.raises(DataError, match=r"party `alice`: .*got `mode`: .*; party `bob`: .*gone"):
        fed_from_paths(paths, mode="L")


def test_an_unforeseen_error_names_the_party_too(devices, tmp_path, monkeypatch):
    def broken(path, **options):
        raise MemoryError("a cell")

    monkeypatch.setattr("orchestra_strategy.data.sources.load_local", broken)
    with pytest.raises(DataError, match=r"party `alice`: MemoryError; party `bob`: MemoryError\.$"):
        fed_from_paths(dict.fromkeys(devices, "x.npy"))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (lambda a, b: {}, "`paths` to have at least one device, got none"),
        (lambda a, b: {"alice": "x"}, "keys of `paths` to be PYUs, got 'alice'"),
        (lambda a, b: {a: "x", b: 3}, "path of party `bob` to be a string or a Path, got int"),
        (lambda a, b: {a: np.zeros((9, 8, 8)), b: "x"}, "data of bob to be a numpy array, got str"),
        (lambda a, b: ["x"], "FedNdarray, an HDataFrame or {PYU: path}, got list"),
    ],
)
def test_strange_mappings_are_refused(devices, mapping, message):
    with pytest.raises(DataError, match=message):
        toy.build(devices).fit(mapping(*devices), epochs=1)


def test_a_party_without_a_path_is_refused(devices, tmp_path):
    paths = {devices[0]: write_images(tmp_path, "alice")}
    with pytest.raises(DataError, match=r"one partition per device .* got \['alice'\] for"):
        toy.build(devices).fit(paths, epochs=1)


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "party `bob` has 1 NaN"), ("text", "party `bob` has dtype object, no integers")],
)
def test_hdataframes_with_bad_cells_are_refused(devices, value, message):
    frames = {d: pd.DataFrame(np.random.default_rng(0).random((20, 6))) for d in devices}
    for frame in frames.values():
        frame.columns = list("abcdef")
    frames[devices[1]] = frames[devices[1]].astype(object if value == "text" else float)
    frames[devices[1]].loc[3, "c"] = value
    x = host.HDataFrame(
        partitions={d: partition_frame(d(lambda f: f)(frame)) for d, frame in frames.items()}
    )
    with pytest.raises(DataError, match=message):
        toy.build(devices, model=TABLE_MODEL, views="table").fit(x, epochs=1)
