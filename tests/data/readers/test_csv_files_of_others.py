"""CSV tables as other programs and countries write them."""

import gzip
import logging

import numpy as np
import pytest

from orchestra_strategy.data.readers.csv_table import load_csv
from orchestra_strategy.errors import DataError


@pytest.fixture
def written(tmp_path):
    """Write a text, and return its path."""

    def write(text, encoding="utf-8", name="t.csv"):
        content = text.encode(encoding)
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        return path

    return write


def raw(path, **options):
    return load_csv(path, standardise="none", **options)


@pytest.mark.parametrize("names", [["NA", "ZA"], ["n/a", "null"], ["nan", "NULL"], ["", "-"]])
@pytest.mark.parametrize("quote", ["", '"'])
def test_na_is_a_name_where_it_is_listed(written, names, quote):
    rows = "".join(f"{quote}{name}{quote},{i}\n" for i, name in enumerate(names))
    data = raw(written("country,n\n" + rows), categories={"country": names})
    assert data.samples.tolist() == [[1, 0, 0], [0, 1, 1]]
    labelled = raw(written("country,n\n" + rows), label_column="country", class_names=names)
    assert labelled.labels.tolist() == [0, 1]


def test_na_elsewhere_is_an_empty_cell_and_the_way_on_is_told(written):
    path = written("country,n\nNA,1\nZA,2\n")
    with pytest.raises(
        DataError, match=r"no empty or NaN cell, .* if NA is a name there, list all"
    ):
        raw(path, label_column="country")
    with pytest.raises(DataError, match=r"column 2 .* no empty or NaN cell"):
        raw(written("country,n\nNA,NA\nZA,2\n"), categories={"country": ["NA", "ZA"]})


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("names", [("age\n(years)", "b"), ("a", "b\n(kg)"), ("a\n\nb", "c\n")])
def test_names_may_have_line_breaks(written, names, end):
    header = ";".join(f'"{name}"' for name in names) + end
    data = raw(written(header + f"1;2{end}3;4{end}"))
    assert data.feature_names == names
    assert data.samples.tolist() == [[1, 2], [3, 4]]
    assert raw(written(header + f"1;2{end}"), columns=[names[1]]).samples.tolist() == [[2]]


@pytest.mark.parametrize("line", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\n"])
def test_the_line_that_tells_excel_the_delimiter_is_no_header(written, line):
    data = raw(written(line + "a,1;b\n1;2\n3;4\n"))
    assert data.feature_names == ("a,1", "b")
    assert data.samples.tolist() == [[1, 2], [3, 4]]
    assert raw(written(line + "a|b\n1|2\n"), delimiter="|").feature_names == ("a", "b")


def test_delimiters_in_quoted_names_do_not_count(written):
    assert raw(written('"a,b,c,d";e\n1;2\n')).feature_names == ("a,b,c,d", "e")


AIR = (
    "Date;T;RH;AH;X;;\n10/03/2004;13,6;48,9;0,7578;1;;\n"
    "11/03/2004;13,3;47,7;0,7255;2;;\n;;;;;;\n;;;;;;\n"
)


def test_decimal_commas_nameless_columns_and_rows_without_a_cell(written, caplog):
    path = written(AIR)
    with pytest.raises(DataError, match=r"`T` .looks like numbers with a decimal comma: give `dec"):
        raw(path, columns=["T", "RH", "AH", "X"])
    with caplog.at_level(logging.WARNING):
        data = raw(path, columns=["T", "RH", "AH", "X"], decimal=",")
    np.testing.assert_allclose(data.samples, [[13.6, 48.9, 0.7578, 1], [13.3, 47.7, 0.7255, 2]])
    assert data.notes == ("passed over 2 rows without a cell",)
    assert "passed over 2 rows without a cell" in caplog.text
    with pytest.raises(DataError, match="to have a name, got none in column 6"):
        raw(path, decimal=",")


def test_rows_keep_their_numbers_after_one_without_a_cell(written):
    with pytest.raises(DataError, match=r"the first in row 3: fill"):
        raw(written("a,b\n1,2\n,\n3,\n"))
    with pytest.raises(DataError, match=r"1 cells of 2, the first in row 3\)"):
        raw(written("a,b\n1,2\n,\n3,x\n"))
    with pytest.raises(DataError, match="no empty or NaN cell, got 2 of 2"):
        raw(written("a,b\n,\n,\n"))


def test_names_that_are_there_twice_are_passed_over_where_they_are_not_read(written):
    path = written("a,x,x,b\n1,2,3,4\n")
    assert raw(path, columns=["b", "a"]).samples.tolist() == [[4, 1]]
    for options in ({}, {"columns": ["x"]}, {"columns": ["a"], "label_column": "x"}):
        with pytest.raises(DataError, match="a name of its own, got one name in columns 2 and 3"):
            raw(path, **options)


@pytest.mark.parametrize("last", ["6222021234567890123457", "1234567890123457"])
@pytest.mark.parametrize("digits", ["6222021234567890123456", "1234567890123456"])
def test_long_numbers_are_text(written, digits, last):
    path = written(f"account,b\n{digits},2\n{digits},3\n{last},3\n")
    told = r"numbers in column 1 \(looks like ids of more than 15 digits\) .* in row 1"
    with pytest.raises(DataError, match=told):
        raw(path)
    data = raw(path, categories={"account": [last, digits]})
    assert data.samples[:, :2].tolist() == [[0, 1], [0, 1], [1, 0]]


def test_shorter_numbers_are_numbers(written):
    path = written("a,b,c\n123456789012345,-99999999999999.5,1e300\n1,2,3\n")
    assert raw(path, columns=["a", "b"]).samples[1].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["2004-03-10", "2004-03-11"], "dates"),
        (["10.03.2004", "1/3/04"], "dates"),
        (["2004-03-10T10:00:00Z", "2004-3-1 10:00"], "dates"),
        (["10:30", "9:05:01"], "times"),
        (["1,5", ",5"], "numbers with a decimal comma: give `decimal=','`"),
        (["1.234,5", "-2,25"], "numbers with a decimal comma: give `decimal=','`"),
        (["1 234 567", "1 000"], "numbers with a mark at the thousands"),
        (["12 %", "$5"], "numbers with a unit"),
        ([f"key{i}" for i in range(20)], "ids, no two alike"),
    ],
)
def test_text_is_told_by_its_kind(written, cells, kind):
    rows = "".join(f'"{cell}",1\n' for cell in cells)
    with pytest.raises(DataError) as caught:
        raw(written("a,b\n" + rows))
    assert f"Expected numbers in column 1 (looks like {kind}) of" in str(caught.value)


def test_text_of_no_kind_is_told_without(written):
    with pytest.raises(DataError, match=r"numbers in column 1 of .*t.csv`, got text"):
        raw(written("a,b\ncook,1\nclerk,2\n"))


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (range(1, 101), "column 1 looks like the numbers of the rows"),
        (np.random.default_rng(0).permutation(200) * 7 + 10_000, "column 1 looks like ids"),
        ([20040301 + i % 30 for i in range(100)], "column 1 looks like dates (yyyymmdd)"),
    ],
)
def test_numbers_that_are_no_measure_are_noted(written, caplog, cells, kind):
    rows = "".join(f"{cell},{i % 3}\n" for i, cell in enumerate(cells))
    with caplog.at_level(logging.WARNING):
        data = raw(written("id,b\n" + rows))
    assert data.notes == (f"{kind}: leave it out by `columns`",)
    assert kind in caplog.text
    assert str(next(iter(cells))) not in data.notes[0].split("column 1")[1]


@pytest.mark.parametrize(
    "cells", [range(1, 100), [i / 2 for i in range(200)], [i % 90 for i in range(200)]]
)
def test_measures_are_not_noted(written, cells):
    rows = "".join(f"{cell},{i % 3}\n" for i, cell in enumerate(cells))
    assert raw(written("a,b\n" + rows)).notes == ()


CHINESE = "年龄,职业\n30,教师\n40,工程师\n50,教师\n"
JOBS = {"职业": ["教师", "工程师"]}


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "utf-16", "utf-8", "utf-8-sig", "UTF8"])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_encodings(written, encoding, name):
    data = raw(written(CHINESE, encoding, name), categories=JOBS, encoding=encoding)
    assert data.samples.tolist() == [[30, 1, 0], [40, 0, 1], [50, 1, 0]]
    assert data.feature_names == ("年龄", "职业=教师", "职业=工程师")


@pytest.mark.parametrize(
    ("encoding", "hint"),
    [("gbk", r"`encoding` \('gb18030'"), ("utf-16", "`encoding='utf-16'`"), ("cp1252", "'cp1252'")],
)
@pytest.mark.parametrize("above", ["", "n,m\n"])
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_another_encoding_is_refused_with_a_hint(written, encoding, hint, above, name):
    text = CHINESE if encoding != "cp1252" else "Größe,b\n1,2\n"
    path = written(above + text, encoding, name)
    with pytest.raises(DataError, match=f"to be text in UTF-8, got other bytes: .*{hint}"):
        raw(path)


def test_a_wrong_encoding_is_refused_where_only_a_late_cell_shows_it(written):
    path = written("a,b\n" + "1,2\n" * 400_000 + "é,3\n", "cp1252")
    with pytest.raises(DataError, match="text in UTF-8, got other bytes: give its `encoding`"):
        raw(path)
    with pytest.raises(DataError, match="to be text in ascii, got other bytes"):
        raw(path, encoding="ascii")
