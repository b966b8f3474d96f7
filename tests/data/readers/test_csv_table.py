"""CSV tables: scaling, categories, labels, and every kind of bad cell."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestra_strategy.data.readers import csv_layout
from orchestra_strategy.data.readers.csv_table import load_csv
from orchestra_strategy.errors import DataError, ParameterError

BANK = Path(__file__).parents[4] / "shared" / "data" / "bank-full.csv.gz"
TABLE = """age;job;balance;y
30;clerk;1.5;no
50;cook;-2;yes
40;clerk;0.5;no
"""
JOBS = {"job": ["clerk", "cook", "none"]}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(TABLE)
    return path


def replaced(table, old, new):
    table.write_text(TABLE.replace(old, new))
    return table


def test_numbers_categories_and_labels(table):
    data = load_csv(table, label_column="y", categories=JOBS, standardise="none")
    assert data.samples.dtype == np.float32
    assert data.feature_names == ("age", "job=clerk", "job=cook", "job=none", "balance")
    assert data.samples.tolist() == [[30, 1, 0, 0, 1.5], [50, 0, 1, 0, -2], [40, 1, 0, 0, 0.5]]
    assert data.labels.tolist() == [0, 1, 0]
    assert data.class_names == ("no", "yes")


def test_standardise__by_the_party(table):
    data = load_csv(table, columns=["balance", "age"], label_column="y")
    assert data.feature_names == ("balance", "age")
    expected = [(v - 40) / np.sqrt(200 / 3) for v in (30, 50, 40)]
    assert np.allclose(data.samples[:, 1], expected)
    assert np.allclose(data.samples.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(data.samples.std(axis=0), 1)


def test_standardise__by_given_numbers(table):
    data = load_csv(table, columns=["job", "age"], categories=JOBS, standardise={"age": (20.0, 10)})
    assert data.samples.tolist() == [[1, 0, 0, 1], [0, 1, 0, 3], [1, 0, 0, 2]]


def test_standardise__a_constant_column_is_zero(tmp_path):
    # The mean of three times 0.1 is not quite 0.1 in floating point.
    (tmp_path / "t.csv").write_text("a,b\n0.1,1\n0.1,2\n0.1,3\n")
    assert (load_csv(tmp_path / "t.csv").samples[:, 0] == 0).all()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_delimiters_are_told_apart(tmp_path, delimiter, suffix):
    text = "\ufeff" + f'"a"{delimiter}b\n1{delimiter}2\n3{delimiter}4\n'  # as spreadsheets write it
    content = text.encode()
    path = tmp_path / f"t{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    data = load_csv(path, standardise="none")
    assert data.feature_names == ("a", "b")
    assert data.samples.tolist() == [[1, 2], [3, 4]]


def test_categories__of_digits_keep_their_zeros(tmp_path):
    (tmp_path / "t.csv").write_text("zip,n\n01,1\n1,2\n")
    data = load_csv(tmp_path / "t.csv", categories={"zip": ["01", "1"]}, standardise="none")
    assert data.samples.tolist() == [[1, 0, 1], [0, 1, 2]]
    data = load_csv(tmp_path / "t.csv", categories={"n": [2, 1]}, standardise="none")
    assert data.samples.tolist() == [[1, 0, 1], [1, 1, 0]]


def test_class_names__number_the_labels(table):
    data = load_csv(table, columns=["age"], label_column="y", class_names=["yes", "maybe", "no"])
    assert data.labels.tolist() == [2, 0, 2]
    with pytest.raises(DataError, match=r"among the 2 `class_names`, got 1 .* first in row 2"):
        load_csv(table, columns=["age"], label_column="y", class_names=["no", "maybe"])


# ---- Bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"columns": ["age", "balence"]},
        {"label_column": "balence"},
        {"categories": {"balence": [1]}},
    ],
)
def test_a_missing_column__is_named_with_the_nearest(table, options):
    with pytest.raises(
        DataError,
        match=r"the column `balence`, got none of this name among its 4 \(that of column 3 is n",
    ):
        load_csv(table, **options)


@pytest.mark.parametrize(
    ("old", "new", "cell", "column", "row"),
    [
        *[(";-2;", ";{};", cell, "3", 2) for cell in ("", "NaN", "NA")],
        ("clerk;0.5", "{};0.5", "", "`job`", 3),
        ("yes", "{}", "", "`y`", 2),
    ],
)
def test_an_empty_or_nan_cell__is_named(table, old, new, cell, column, row):
    with pytest.raises(
        DataError,
        match=f"column {column} of .* no empty or NaN cell, got 1 of 3, .* row {row}: fill",
    ):
        load_csv(
            replaced(table, old, new.format(cell)),
            label_column="y",
            categories=JOBS,
            class_names=["no", "yes"],
        )


@pytest.mark.parametrize("cell", ["inf", "-Infinity"])
def test_an_infinite_cell__is_named(table, cell):
    with pytest.raises(DataError, match=r"`balance` .* to be finite, got 1 .* first in row 2"):
        load_csv(replaced(table, "-2", cell), columns=["balance"])


def test_a_cell_beyond_float32__is_named(table):
    with pytest.raises(DataError, match=r"scaled table in .* is refused: .* at index \(1, 0\)"):
        load_csv(replaced(table, "-2", "1e300"), columns=["balance"], standardise="none")


def test_text_without_categories__is_refused_with_the_remedy(table):
    with pytest.raises(
        DataError,
        match=r"in column 2 of .*text \(in column 2 in 3 cells of 3, .* row 1\): .*`categories={",
    ):
        load_csv(table, label_column="y")


def test_text_among_numbers__is_named_and_not_repeated(table):
    with pytest.raises(
        DataError, match=r"in column `balance` of .* in 1 cells of 3, .* row 2"
    ) as error:
        load_csv(replaced(table, "-2", "secret"), columns=["age", "balance"])
    assert "secret" not in str(error.value)


def test_an_unknown_category__is_named_and_not_repeated(table):
    with pytest.raises(DataError, match=r"`job` .* `categories` alone, got 1 .* row 2") as error:
        load_csv(table, columns=["job"], categories={"job": ["clerk", "chef"]})
    assert "cook" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "to start with the names of its columns, got no line"),
        (b"a,b\n", "at least one row below its header, got none"),
        (b"a,b,a\n1,2,3\n", "a name of its own, got one name in columns 1 and 3"),
        (b"a,b\n1,2\n1,2,3\n", "to be a CSV table, got: Expected 2 fields in line 3, saw 3"),
        (b"a,b\n1,2,3\n1,2,3\n", "to be a CSV table, got rows with more cells than its header"),
        (b"a,b\n1,2\n1\n", "column 2 .* got 1 of 2, the first in row 2"),
        (b"\xff\xfe,b\n1,2\n", "text in UTF-8, got other bytes: they look like UTF-16; give `enc"),
        (b"a,b\n1,2\n\xff,2\n", r"got other bytes: give its `encoding` \('cp1251', 'cp1252' would"),
        (b",b\n0,2\n", "to have a name, got none in column 1: if it is a row index"),
    ],
)
def test_broken_files__are_refused(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"t.csv.*{message}|{message}"):
        load_csv(tmp_path / "t.csv")


def test_a_missing_file_and_a_broken_archive__are_refused(tmp_path):
    with pytest.raises(DataError, match=r"t.csv` to be a CSV file, got FileNotFound"):
        load_csv(tmp_path / "t.csv")
    (tmp_path / "t.csv.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"t.csv.gz` to be a CSV file, got BadGzipFile"):
        load_csv(tmp_path / "t.csv.gz")


SECRET = "SECRET4711"


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (f"{SECRET},{SECRET},1\n1,2,3\n", {}),
        (f"{SECRET},17,1\n1,2,3\n", {"columns": ["age"]}),
        (f"{SECRET},17,1\n1,2,3\n", {"columns": [f"{SECRET}X"[1:]]}),
        (f"{SECRET},17,1\n1,2,3\n", {"label_column": "age"}),
        (f"{SECRET},17,1\n1,,3\nx,2,3\n", {"columns": ["17"]}),
        (f"{SECRET},17,1\n,2,3\n", {}),
        (f"{SECRET},17,1\nx,2,3\n", {}),
        (f"{SECRET},17,1\ninf,2,3\n", {}),
        (f"{SECRET},17,1\n1,2,3\n", {"standardise": {"17": (0, 1)}}),
        (f"a,b\n1,2\n1,2,{SECRET}\n", {}),
        (f'a,b\n1,"{SECRET}\n2,3\n', {}),
        (f"{SECRET},17,1\n1,2,3,4\n1,2,3,4\n", {}),
        ("a" * 200_000 + SECRET + ",b\n1,2\n", {}),
    ],
)
def test_no_message_repeats_what_may_be_a_cell(tmp_path, content, options):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises((DataError, ParameterError)) as error:
        load_csv(tmp_path / "t.csv", **options)
    assert SECRET not in str(error.value)
    assert error.value.__cause__ is None


def test_an_archive_that_unpacks_to_too_much__is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_layout, "MOST_BYTES", 10_000)
    for name, pack in [("t.csv", bytes), ("t.csv.gz", gzip.compress)]:
        (tmp_path / name).write_bytes(pack(b"a,b\n" + b"1,2\n" * 5000))
        with pytest.raises(DataError, match="at most 10000 bytes of text, got more: divide it"):
            load_csv(tmp_path / name)


def test_a_header_without_end__is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a," * 2**20)
    with pytest.raises(DataError, match=r"the header of .* to be shorter than 1048576 characters"):
        load_csv(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": "age"}, "`columns` to be a list of different names, got 'age'"),
        ({"columns": ["age", "age"]}, "`columns` to be a list of different names"),
        ({"columns": ["y"], "label_column": "y"}, "`label_column` not to be in `columns`, got 'y'"),
        ({"class_names": ["a"]}, "`class_names` with a `label_column`, got none"),
        ({"decimal": ";"}, "`decimal` to be '.' or ',', got ';'"),
        ({"decimal": ",", "delimiter": ","}, "another mark than `delimiter`, got ',' for both"),
        ({"encoding": "utf-9"}, "`encoding` to be one that Python knows, .*, got 'utf-9'"),
        ({"encoding": "rot13"}, "`encoding` to be one that Python knows, .*, got 'rot13'"),
        ({"categories": {"job": ["a", 1]}}, r"`job` to be all texts or all numbers, got \['a', 1"),
        ({"delimiter": ";;"}, "`delimiter` to be one character, got ';;'"),
        ({"categories": {"job": []}}, r"`categories` of `job` .* different values, got \[\]"),
        ({"categories": {"job": "cook"}}, "`categories` of `job` .* got 'cook'"),
        ({"columns": ["age"], "categories": JOBS}, "of feature columns, got `job`"),
        ({"standardise": "all"}, r"'party', 'none' or \{column: .*, got 'all'"),
        ({"standardise": {"age": (0, 0)}}, r"`age` to be .* above 0\), got \(0, 0\)"),
        ({"standardise": {"age": 1}}, "`age` to be .*, got 1"),
        (
            {"columns": ["age", "balance"], "standardise": {"age": (0, 1)}},
            "none for column `balance`",
        ),
    ],
)
def test_options__that_contradict_are_refused(table, options, message):
    with pytest.raises(ParameterError, match=message):
        load_csv(table, **options)


def test_no_feature__is_refused(table):
    with pytest.raises(DataError, match="at least one feature column, got none"):
        load_csv(table, columns=[])


@pytest.mark.skipif(not BANK.exists(), reason="the Bank Marketing table is not there")
def test_a_real_table():
    frame = pd.read_csv(BANK)
    texts = [c for c in frame.columns if frame[c].dtype == object and c != "y"]
    categories = {c: sorted(frame[c].unique()) for c in texts}
    data = load_csv(BANK, label_column="y", categories=categories)
    assert data.samples.shape == (45_211, 7 + sum(map(len, categories.values())))
    assert data.labels.mean() == pytest.approx(0.117, abs=0.001)
    ages = data.samples[:, data.feature_names.index("age")]
    assert np.allclose(ages, (frame["age"] - frame["age"].mean()) / frame["age"].std(ddof=0))
    one_hot = data.samples[:, [n.startswith("job=") for n in data.feature_names]]
    assert (one_hot.sum(axis=1) == 1).all()
    with pytest.raises(DataError, match=r"numbers in column 1, column 2, .*column 10 of"):
        load_csv(BANK, label_column="y")
