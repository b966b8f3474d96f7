"""Every program in `examples/`, in its smallest form; `docs/examples.md` has the full runs."""

import importlib.util
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("log_levels_kept")
ROOT = Path(__file__).parents[1]
PROGRAMS = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
BANK = ROOT.parent / "shared/data/bank-full.csv.gz"


def output_of(name, capsys, *arguments):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    program.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


@pytest.mark.skipif(not BANK.exists(), reason="needs bank-full.csv.gz of UCI's Bank Marketing")
def test_bank_marketing(capsys):
    output = output_of("bank_marketing", capsys, "--data", BANK, "--rounds", 1, "--rows", 600)
    tables = re.split(r"(?=all columns|without duration)", output)[1:]
    assert len(tables) == 2
    for table in tables:
        rows = re.findall(r"^  (orchestra|untrained|raw columns) +(\S+).* (\S+)$", table, re.M)
        assert [row[0] for row in rows] == ["orchestra", "untrained", "raw columns"]
        assert all(50 < float(auc) < 100 for row in rows for auc in row[1:])
    assert tables[0] != tables[1].replace("without duration", "all columns     ")


def test_bank_marketing__too_few_rows(capsys, tmp_path):
    (tmp_path / "bank.csv").write_text("age;duration;y\n30;5;no\n40;6;yes\n")
    with pytest.raises(SystemExit, match="Expected 20 rows, got 2; lower `--rows`"):
        output_of("bank_marketing", capsys, "--data", tmp_path / "bank.csv", "--rows", 4)


def test_photo_folders(capsys):
    output = output_of("photo_folders", capsys, "--rounds", 1, "--per-class", 24)
    for row in ("orchestra", "untrained", "pixels"):
        assert re.search(rf"^\W*{row}\W+\d", output, re.M)


@pytest.mark.parametrize("backbone", ["own", "torchvision:squeezenet1_1"])
def test_own_backbone(capsys, backbone):
    arguments = ["--rounds", 1, "--images", 240, "--backbone", backbone]
    output = output_of("own_backbone", capsys, *arguments)
    assert float(re.search(r"largest difference (\S+)", output)[1]) < 1e-5
    assert f"features (397, {128 if backbone == 'own' else 512})" in output


def test_use_in_sklearn(capsys):
    output = output_of("use_in_sklearn", capsys, "--rounds", 1, "--images", 120)
    accuracies = re.findall(r"^(encoder|untrained|raw pixels) +accuracy (\S+)", output, re.M)
    assert len(accuracies) == 3
    assert all(float(accuracy) > 40 for _, accuracy in accuracies)  # guessing has 10
    assert accuracies[0][1] != accuracies[1][1]
    assert float(re.search(r"differ by (\S+)", output)[1]) < 1e-4


def test_vertical_model(capsys):
    output = output_of("vertical_model", capsys, "--rounds", 1, "--images", 120)
    auc = {name: float(value) for name, value in re.findall(r"brings (\w+) +AUC (\S+)", output)}
    assert auc.keys() == {"features", "untrained", "pixels", "nothing"}
    assert min(auc["features"], auc["pixels"]) > auc["nothing"]


def test_audit_before_joining(capsys):
    arguments = ["--rounds", 1, "--members", 40, "--attacks", "span", "--attack-steps", 40]
    output = output_of("audit_before_joining", capsys, *arguments)
    assert re.search(r"no bound\)\n  span +LEAKS", output)
    assert re.search(r"\(epsilon 8\.00\)\n  span +found nothing", output)
    assert output.splitlines()[-1].startswith("Join without privacy? No")


def test_every_program_has_its_section_and_its_test():
    page = (ROOT / "docs/examples.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    assert len(PROGRAMS) == 6
    for name in PROGRAMS:
        assert f"python examples/{name}.py" in page
        assert f"def test_{name}(" in tests
