"""Bad tables, models and choices: a sentence that says whose, what and how to mend it."""

import pytest
from secretflow.component.core import comp_eval

from orchestra_strategy import session
from orchestra_strategy.component import plugin
from orchestra_strategy.errors import DataError, ModelError, ParameterError
from tests.component.inputs import (
    COLUMNS,
    PARTIES,
    describe,
    embed_call,
    storage,
    train_call,
    write_table,
)

plugin()
NUMBERS = dict.fromkeys(COLUMNS, "float")


@pytest.fixture(scope="module", autouse=True)
def _simulation():
    with session(PARTIES, mode="debug"):
        yield


@pytest.fixture
def tables(tmp_path):
    return [write_table(tmp_path, party) for party in PARTIES]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    made = [write_table(folder, party) for party in PARTIES]
    return folder, made, comp_eval(train_call(made), storage(folder), None).outputs[0]


def refused(folder, call, kind, match):
    with pytest.raises(kind, match=match):
        comp_eval(call, storage(folder), None)


def test_two_tables_of_one_party(tables, tmp_path):
    call = train_call([tables[0], tables[0]])
    refused(tmp_path, call, DataError, "one table of each party, got two of alice: join them")


def test_a_column_that_a_party_lacks(tables, tmp_path):
    fewer = describe("bob", dict.fromkeys(COLUMNS[1:], "float"))
    call = train_call([tables[0], fewer])
    refused(tmp_path, call, DataError, "the same features, got `x0` at alice and not at bob")
    call = train_call([tables[0], fewer], **{"input/input_ds/features": ["x0", "x1", "x2", "x3"]})
    refused(tmp_path, call, DataError, "the table of bob to have column `x0`, got none")


def test_a_column_of_text(tables, tmp_path):
    text = describe("bob", {**NUMBERS, "x1": "str"})
    refused(tmp_path, train_call([tables[0], text]), DataError, "got text in `x1` of bob: make it")


def test_the_same_column_twice(tables, tmp_path):
    call = train_call(tables, **{"input/input_ds/features": ["x1", "x1"]})
    refused(tmp_path, call, DataError, "Expected `features` to be different columns")


def test_numbers_and_images(tables, tmp_path):
    both = {"input/input_ds/features": ["x1"], "input/input_ds/image_column": ["id"]}
    refused(tmp_path, train_call(tables, **both), ParameterError, "`features` or `image_column`")


@pytest.mark.parametrize(
    ("cell", "match"),
    [
        ("", "party `bob`: Expected `bob.csv` to be a table .*: look for empty cells"),
        ("NA", "party `bob`: Expected column `x2` to have no empty cell, got 1 of 48: fill them"),
        ("nan", "party `bob`: Expected column `x2` to have .*1 of 48"),
        ("inf", "party `bob`: Expected column `x2` to have finite numbers, got 1 of 48"),
        ("Smith", "party `bob`: Expected `bob.csv` to be a table with the columns and types"),
    ],
    ids=["empty", "noted", "nan", "inf", "text"],
)
def test_a_bad_cell_is_told_without_what_it_holds(tmp_path, cell, match):
    made = [write_table(tmp_path, party) for party in PARTIES]
    write_table(tmp_path, "bob", cells={"x2": cell})
    made[1].data_refs[0].null_strs.append("NA")
    with pytest.raises(DataError, match=match) as caught:
        comp_eval(train_call(made), storage(tmp_path), None)
    assert "Smith" not in str(caught.value)


def test_a_file_that_is_not_there(tables, tmp_path):
    (tmp_path / "bob.csv").unlink()
    refused(
        tmp_path, train_call(tables), DataError, "party `bob`: Expected `bob.csv` to be a table"
    )


def test_a_table_without_rows(tmp_path):
    made = [write_table(tmp_path, "alice"), write_table(tmp_path, "bob", rows=0)]
    refused(tmp_path, train_call(made), DataError, "`bob.csv` to have at least one row, got none")


def test_parameters_that_contradict_each_other(tables, tmp_path):
    call = train_call(tables, **{"waiting/peer_timeout": 1.0})
    refused(tmp_path, call, ParameterError, "`peer_timeout` to be at least two heartbeats")
    call = train_call(tables, noise_multiplier=1.0)
    refused(tmp_path, call, ParameterError, "where `noise_multiplier` is given")


def test_a_party_without_the_model(trained):
    folder, _, model = trained
    write_table(folder, "alice")
    call = embed_call(model, describe("carol", NUMBERS))
    refused(folder, call, DataError, r"has a copy of the model \(alice, bob\), got one of carol")


def test_a_table_without_a_column_of_the_training(trained):
    folder, _, model = trained
    call = embed_call(model, describe("bob", dict.fromkeys(COLUMNS[1:], "float")))
    refused(folder, call, DataError, "the table of bob to have column `x0`, got none")


def test_a_column_to_keep_that_is_none(trained):
    folder, tables, model = trained
    call = embed_call(model, tables[0], **{"input/input_ds/keep": ["age"]})
    refused(folder, call, DataError, "`keep` to be columns of `input_ds`, got `age`")


def test_a_column_to_keep_with_the_name_of_a_feature(trained):
    folder, _, model = trained
    named = describe("alice", {**NUMBERS, "orchestra_3": "float"})
    call = embed_call(model, named, **{"input/input_ds/keep": ["orchestra_3"]})
    refused(folder, call, DataError, "other names than the features', got `orchestra_3`")


def test_a_model_that_is_damaged_or_gone(trained):
    folder, tables, model = trained
    changed = type(model)()
    changed.CopyFrom(model)
    for ref in changed.data_refs:
        ref.uri = ref.uri.replace("model/", "moved/")
    call = embed_call(changed, tables[0])
    refused(folder, call, ModelError, "the model's files in `moved/0`, got FileNotFoundError")
    (folder / "moved" / "0").mkdir(parents=True)
    for name in ("encoder.safetensors", "encoder.json"):
        (folder / "moved" / "0" / name).write_bytes(b"no encoder")
    refused(folder, call, ModelError, "Expected `moved/0` to be a trained encoder")


def test_a_description_of_another_model(trained):
    folder, tables, model = trained
    changed = type(model)()
    changed.CopyFrom(model)
    changed.meta.value = changed.meta.value.replace(b"feature_dim", b"feature_din")
    call = embed_call(changed, tables[0])
    refused(folder, call, ModelError, "Expected `input_model` to be a model of orchestra_train")
