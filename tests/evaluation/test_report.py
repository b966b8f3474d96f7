import io
import json
import math
import os
from pathlib import Path

import pytest
from rich.console import Console

from orchestra_strategy.errors import ParameterError
from orchestra_strategy.evaluation import (
    ProbeResult,
    measures_of,
    results_table,
    results_to_json,
    write_json,
)


def result(mean, std=0.0, seeds=1):
    return ProbeResult(mean, std, (mean,) * seeds)


@pytest.fixture
def results():
    return {
        "pixels": {"5": result(0.81, 0.01, 5), "knn": result(0.938)},
        "orchestra": {"5": result(0.9312, 0.0042, 5), "knn": result(0.9)},
        "untrained": {"5": result(0.70, 0.02, 5), "knn": result(0.85)},
    }


def lines(table, width=80):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def cells(line):
    return [cell.strip() for cell in line.strip("│").split("│")]


class TestTable:
    def test_methods_above_their_controls_in_percent(self, results):
        rows = [cells(line) for line in lines(results_table(results)) if line.startswith("│")]
        assert rows == [
            ["orchestra", "93.1 ± 0.4", "! 90.0"],  # below the pixels' 93.8 by kNN
            ["untrained", "70.0 ± 2.0", "85.0"],
            ["pixels", "81.0 ± 1.0", "93.8"],
        ]

    def test_mark_is_explained_only_where_there_is_one(self, results):
        mark = "! not above both controls: nothing learnt that they lack"
        assert mark in " ".join(lines(results_table(results)))
        results["orchestra"]["knn"] = result(0.939)
        assert "!" not in " ".join(lines(results_table(results)))

    def test_each_measure_has_a_table_of_its_own(self, results):
        ranked = {
            name: {**probes, "5 auc": result(0.5 + i / 10), "5 ap": result(0.25)}
            for i, (name, probes) in enumerate(results.items())
        }
        assert measures_of(ranked) == ["accuracy", "auc", "ap"]
        assert measures_of(results) == ["accuracy"]
        assert lines(results_table(ranked)) == lines(results_table(results))
        table = lines(results_table(ranked, measure="auc"))
        assert table[0] == "AUC on the test set, %"
        rows = [cells(line) for line in table if line.startswith("│")]
        assert rows == [["orchestra", "! 60.0"], ["untrained", "70.0"], ["pixels", "50.0"]]
        with pytest.raises(ParameterError, match="one that was taken, got 'auc'; AUC and"):
            results_table(results, measure="auc")

    def test_equal_to_a_control_is_not_above_it(self, results):
        results["orchestra"]["knn"] = result(0.938)
        assert any("! 93.8" in line for line in lines(results_table(results)))

    def test_headers_and_title(self, results):
        results = {name: {**r, "1": result(0.5), "all": result(0.9)} for name, r in results.items()}
        text = "\n".join(lines(results_table(results, title="Digits")))
        assert text.startswith("Digits\n")
        for header in ("features", "1 label ", "5 labels", "all", "kNN"):
            assert header in text

    def test_fractions_of_the_labels_have_headers_of_their_own(self):
        probes = {"1%": result(0.5), "10%": result(0.6)}
        text = "\n".join(lines(results_table({"orchestra": probes, "untrained": probes})))
        assert "10% of" in text
        assert "per class" not in text

    def test_full_protocol_with_marks_fits_80_columns(self):
        probes = {key: result(0.5, 0.1, 5) for key in ("1", "5", "20")}
        probes |= {"all": result(0.5), "knn": result(0.5)}
        table = results_table({"orchestra": probes, "untrained": probes, "pixels": probes})
        assert not any("…" in line for line in lines(table))

    def test_no_results(self):
        with pytest.raises(ParameterError, match="`results` to have at least one feature set, got"):
            results_table({})

    def test_other_probes(self, results):
        del results["untrained"]["5"]
        message = r"same probes, got \['5', 'knn'\] for 'pixels' and \['knn'\] for 'untrained'"
        with pytest.raises(ParameterError, match=message):
            results_table(results)


class TestJson:
    def test_results_survive_the_file(self, results, tmp_path):
        path = tmp_path / "new" / "folder" / "results.json"
        write_json(path, results_to_json(results))
        read = json.loads(path.read_text())
        assert list(read) == ["pixels", "orchestra", "untrained"]
        assert read["orchestra"]["5"] == {"mean": 0.9312, "std": 0.0042, "values": [0.9312] * 5}

    def test_text_is_utf8_with_a_last_newline(self, tmp_path):
        write_json(str(tmp_path / "a.json"), {"name": "结果"})
        assert (tmp_path / "a.json").read_bytes() == '{\n  "name": "结果"\n}\n'.encode()

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_failure_keeps_the_old_file_and_leaves_nothing_behind(
        self, tmp_path, monkeypatch, step
    ):
        path = tmp_path / "a.json"
        write_json(path, 1)

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(os, step, fail)
        with pytest.raises(OSError, match="disk full"):
            write_json(path, 2)
        assert path.read_text() == "1\n"
        assert os.listdir(tmp_path) == ["a.json"]

    def test_content_is_on_disk_before_the_name_changes(self, tmp_path, monkeypatch):
        path, steps = tmp_path / "a.json", []
        fsync, replace = os.fsync, os.replace

        def spy_fsync(descriptor):
            steps.append("fsync")
            fsync(descriptor)

        def spy_replace(source, target):
            assert Path(source).read_text() == "[\n  1\n]\n"
            assert os.path.dirname(source) == os.path.dirname(target)
            steps.append("replace")
            replace(source, target)

        monkeypatch.setattr(os, "fsync", spy_fsync)
        monkeypatch.setattr(os, "replace", spy_replace)
        write_json(path, [1])
        assert steps == ["fsync", "replace", "fsync"]

    def test_what_is_written_is_its_owners_alone(self, tmp_path):
        write_json(tmp_path / "a.json", 1)
        assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("bad", [{"x": math.nan}, {"x": math.inf}, {"x": {1, 2}}])
    def test_what_json_cannot_express_is_refused_before_writing(self, tmp_path, bad):
        path = tmp_path / "a.json"
        write_json(path, 1)
        with pytest.raises(ParameterError, match="`obj` to be plain dicts, lists and finite"):
            write_json(path, bad)
        assert path.read_text() == "1\n"
