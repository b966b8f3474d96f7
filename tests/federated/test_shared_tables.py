"""Parties agree on the columns of their tables: on names, and on sums."""

import json

import numpy as np
import pandas as pd
import pytest

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import agree_on_tables, fed_from_paths, host
from orchestra_strategy.cli import main
from orchestra_strategy.data import load_local
from orchestra_strategy.data.readers import csv_survey
from orchestra_strategy.data.readers.csv_options import one_hot_columns
from orchestra_strategy.errors import DataError, ParameterError, PrivacyError
from orchestra_strategy.runtime.federated_input import views_of_tables
from tests.federated import toy
from tests.test_trainer import CONFIG

COLUMNS = ["age", "job", "zip", "pay"]
TABLES = {
    "alice": "age,job,zip,pay,note\n30,cook,1,1.5,x\n40,clerk,2,2.5,y\n50,cook,3,-1,z\n"
    "60,NA,1,0,x\n",
    "bob": "age,job,zip,pay,note\n20,nurse,01,7,u\n70,cook,2,8,v\n20,nurse,A1,9,w\n35,cook,2,1,w\n"
    "25,nurse,2,3,w\n",
}
BOTH = {"columns": COLUMNS, "categories": "agree", "standardise": "agree"}


@pytest.fixture
def paths(devices, tmp_path):
    for party, text in TABLES.items():
        (tmp_path / f"{party}.csv").write_text(text)
    return {d: tmp_path / f"{d.party}.csv" for d in devices}


def together():
    tables = [
        pd.read_csv(pd.io.common.StringIO(t), keep_default_na=False, dtype={"zip": str})
        for t in TABLES.values()
    ]
    return pd.concat(tables)


def test_names_are_the_union_and_scales_are_those_of_all_rows(paths):
    agreed = agree_on_tables(paths, **BOTH)
    assert agreed["categories"] == {
        "job": ["NA", "clerk", "cook", "nurse"],
        "zip": ["01", "1", "2", "3", "A1"],  # numbers at alice, as they are written
    }
    whole = together()
    assert set(agreed["standardise"]) == {"age", "pay"}
    for column, (mean, deviation) in agreed["standardise"].items():
        assert mean == pytest.approx(whole[column].mean(), rel=1e-12)
        assert deviation == pytest.approx(whole[column].std(ddof=0), rel=1e-12)
    assert agreed["columns"] == COLUMNS


def test_reading_by_agree_is_reading_by_what_was_agreed_on(paths, devices):
    agreed = agree_on_tables(paths, **BOTH)
    x = fed_from_paths(paths, **BOTH)
    for device, path in paths.items():
        want = load_local(path, **agreed).samples
        assert np.array_equal(host.reveal(x.partitions[device]), want)
    rows = np.concatenate([host.reveal(x.partitions[d]) for d in devices])
    numeric = rows[:, [0, -1]]
    np.testing.assert_allclose(numeric.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(numeric.std(axis=0), 1, atol=1e-6)
    assert rows.shape == (9, 1 + 4 + 5 + 1)
    groups = one_hot_columns(COLUMNS, agreed["categories"])
    assert all((rows[:, list(group)].sum(axis=1) == 1).all() for group in groups)


def test_one_can_be_agreed_on_without_the_other(paths):
    agreed = agree_on_tables(paths, columns=COLUMNS, categories="agree", standardise="none")
    assert agreed["standardise"] == "none"
    assert set(agreed["categories"]) == {"job", "zip"}
    scales = agree_on_tables(paths, columns=["age", "pay"], standardise="agree")
    assert "categories" not in scales
    assert scales["standardise"] == agree_on_tables(paths, **BOTH)["standardise"]


def test_a_deviation_keeps_its_digits_far_from_0_and_a_constant_has_none(devices, tmp_path):
    paths = {d: tmp_path / f"{d.party}.csv" for d in devices}
    for i, path in enumerate(paths.values()):
        rows = "".join(f"{10**9 + 3 * i + j},5,0.1\n" for j in (0, 1, 2, 3))
        path.write_text("far,same,tenth\n" + rows)
    columns = ["far", "same", "tenth"]
    scales = agree_on_tables(paths, columns=columns, standardise="agree")["standardise"]
    values = [0, 1, 2, 3, 3, 4, 5, 6]
    assert scales["far"] == (10**9 + 3, pytest.approx(np.std(values), rel=1e-9))
    assert scales["same"] == (5, 1)
    assert scales["tenth"] == (pytest.approx(0.1), 1)


def test_a_decimal_comma_is_no_text(devices, tmp_path):
    paths = {d: tmp_path / f"{d.party}.csv" for d in devices}
    for path in paths.values():
        path.write_text("a;b\n1,5;x\n2,5;y\n3,5;x\n4,5;y\n", encoding="utf-16")
    options = {**BOTH, "columns": ["a", "b"], "decimal": ",", "encoding": "utf-16"}
    agreed = agree_on_tables(paths, **options)
    assert agreed["categories"] == {"b": ["x", "y"]}
    assert agreed["standardise"]["a"][0] == 3
    assert agreed["encoding"] == "utf-16"


def test_what_the_first_party_gets_has_names_and_sums_and_no_counts(paths, monkeypatch):
    seen = []
    for name in ("names_in", "column_sums", "squares"):
        function = getattr(csv_survey, name)

        def spy(*arguments, function=function):
            seen.append(function(*arguments))
            return seen[-1]

        monkeypatch.setattr(f"orchestra_strategy.data.shared_tables.{name}", spy)
    agree_on_tables(paths, **BOTH)
    alice = list(seen[::2])
    assert alice[0] == {"job": ["NA", "clerk", "cook"], "zip": ["1", "2", "3"]}
    assert alice[1] == {"age": [4, 180.0], "pay": [4, 3.0]}
    assert set(alice[2]) == {"age", "pay"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("age,job,zip,pay\n1,a,1,1\n", "at least 4 rows, for names and sums not to .* got 1"),
        ("age,job,pay\n" + 4 * "1,a,1\n", "to have the column `zip`, got none"),
        ("age,job,zip,pay\n" + 4 * "1,,2,1\n", "column `job` .* no empty or NaN cell, got 4"),
        (
            "age,job,zip,pay\n" + "".join(f"1,secret{i},2,1\n" for i in range(30)),
            "column `job` .* at most 1000 names, some of them in several rows, .* free text or ids",
        ),
        (
            "age,job,zip,pay\n" + "".join(f"1,secret{i // 2},2,1\n" for i in range(2002)),
            "column `job` .* at most 1000 names",
        ),
    ],
)
def test_a_partys_table_that_cannot_be_agreed_on_is_told_without_its_cells(
    paths, devices, table, message
):
    paths[devices[1]].write_text(table)
    with pytest.raises(DataError, match=f"of 1 of 2 parties .* party `bob`: .*{message}") as caught:
        agree_on_tables(paths, **BOTH)
    assert "secret" not in str(caught.value)
    assert "alice" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"columns": None}, "`columns` to name those on which .* got None"),
        ({"column": ["age"]}, "did you mean `columns`"),
        ({"image_size": 3}, "options of a CSV table with 'agree', got `image_size`"),
        ({"decimal": ";"}, "`decimal` to be"),
        ({"label_column": "age"}, "`label_column` not to be in `columns`"),
        ({"encoding": "utf-9"}, "`encoding` to be one that Python knows"),
    ],
)
def test_options_are_refused(paths, changed, message):
    with pytest.raises((ParameterError, DataError), match=message):
        agree_on_tables(paths, **{**BOTH, **changed})


@pytest.mark.parametrize("option", [{"categories": "agree"}, {"standardise": "agree"}])
def test_one_party_alone_cannot_agree(paths, devices, option):
    with pytest.raises(ParameterError, match="'agree' is for several"):
        load_local(paths[devices[0]], **option)


def test_the_trainer_agrees_once_embeds_alike_and_writes_it_down(paths, devices, tmp_path, capsys):
    agreed = agree_on_tables(paths, **BOTH)
    groups = one_hot_columns(COLUMNS, agreed["categories"])
    config = {
        **CONFIG,
        "model": {"backbone": "mlp", "in_channels": 11, "hidden_dim": 16, "projection_dim": 16},
        "parameters": {
            **toy.PARAMETERS,
            **{"views": "table", "view_options": {"noise": 0.1}},
            **{"batch_size": 4, "num_global_clusters": 2, "memory_size": 4, "k_min": 2},
            "num_local_clusters": 1,
        },
        "data_options": BOTH,
        "out_dir": tmp_path / "out",
    }
    trainer = FederatedOrchestraTrainer(config, devices)
    trainer.train(paths)
    assert trainer.data_options == agreed
    views = trainer.fl_model.strategy_config.view_options
    assert views == {"noise": 0.1, "one_hot": groups}  # nobody had to count columns
    (tmp_path / "new.csv").write_text("age,job,zip,pay\n33,nurse,2,4\n")  # too few to agree on
    alice = devices[0]
    found = host.reveal(trainer.embed({alice: tmp_path / "new.csv"}).partitions[alice])
    written = json.loads((tmp_path / "out" / "encoder.json").read_text())["data_options"]
    assert written["categories"] == agreed["categories"]
    out = tmp_path / "features.npy"
    assert main(["embed", str(tmp_path / "out"), str(tmp_path / "new.csv"), "--out", str(out)]) == 0
    np.testing.assert_allclose(np.load(out), found, atol=1e-6)
    rows = {row["name"]: row for row in trainer.fl_model.manifest()}
    assert "names of the categories" in rows["agreed columns"]["meaning"]


def test_views_are_told_which_columns_are_one_category_unless_they_know(caplog):
    table, names = {"views": "table"}, {"categories": {"job": ["cook", "clerk"]}}
    known = {"columns": ["age", "job"], **names}
    assert views_of_tables(table, known) == {"view_options": {"one_hot": ((1, 2),)}}
    assert views_of_tables({**table, "view_options": {"one_hot": ()}}, known) == {}
    assert views_of_tables({"views": "grey"}, known) == views_of_tables(table, {}) == {}
    assert not caplog.records
    assert views_of_tables(table, names) == {}
    assert "Expected `columns` beside `categories`" in caplog.text


def test_with_privacy_nothing_is_agreed_on(devices):
    config = {
        "strategy": "fed_simclr",
        "parameters": {"privacy": "user", "noise_multiplier": 1.0, "views": "table"},
        "data_options": BOTH,
    }
    with pytest.raises(PrivacyError, match="to be given with privacy, got 'agree'"):
        FederatedOrchestraTrainer(config, devices)
