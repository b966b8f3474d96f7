"""The audit as a whole: settings, refusals, and the command from a file of images to a report."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from orchestra_strategy import cli
from orchestra_strategy.audit.party import read_data, split_of
from orchestra_strategy.audit.report import limits
from orchestra_strategy.audit.settings import parse_audit
from orchestra_strategy.data.local_data import LocalData
from orchestra_strategy.errors import DataError, ParameterError
from tests.algorithms.tiny import images
from tests.evaluation.test_html_report import Page

SHORT = {
    **{"members": 16, "batch_size": 8, "passes": 1, "attack_steps": 2},
    **{"hidden_dim": 16, "projection_dim": 16, "num_global_clusters": 4, "threads": 1},
}


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "party.npz", x=images(40).numpy(), y=np.arange(40) % 3)
    (tmp_path / "short.json").write_text(json.dumps(SHORT))
    return tmp_path


def run(folder, *arguments):
    paths = ("--data", folder / "party.npz", "--config", folder / "short.json")
    cli.main(["audit", *map(str, (*paths, "--out", folder / "out")), *arguments])
    out = folder / "out"
    page = Page((out / "audit.html").read_text(encoding="utf-8"))
    assert page.open == []
    return json.loads((out / "audit.json").read_text()), page


def test_the_command_writes_a_report_and_draws_from_no_global_stream(folder, capsys):
    before = torch.get_rng_state()
    report, page = run(folder, "--noise", "0.5")
    assert torch.equal(before, torch.get_rng_state())
    assert "What the server can learn" in capsys.readouterr().out
    assert report["schema"] == 1
    assert (report["data"], report["sample_shape"]) == ("party.npz", [1, 8, 8])
    names = ["no defence", "clip 1", "clip 1, gaussian noise 0.5"]
    assert [r["setting"] for r in report["results"]] == names
    for result in report["results"]:
        kinds = ["local_gradient", "local_update", "multiuser_aggregate"]
        assert [reply["user_type"] for reply in result["replies"]] == kinds
        assert [auc["signal"] for auc in result["membership"]] == ["loss", "alignment"]
        assert all(auc["low"] <= auc["value"] <= auc["high"] for auc in result["membership"])
        assert all(reply["attack"] == "span" for reply in result["replies"])
        assert 0 <= result["utility"]["knn"] <= 1
    assert [r["epsilon_reply"] is None for r in report["results"]] == [True, True, False]
    assert report["results"][2]["epsilon_training"] < report["results"][2]["epsilon_reply"]
    assert report["limits"] == [t for t in page.of("p") if t in report["limits"]]
    assert any("local centroids" in sentence for sentence in report["limits"])
    assert [t for t in page.of("td") if t in names][:3] == names
    assert "untrained (control)" in page.of("td")
    assert [tag for tag, _ in page.tags].count("table") == 3
    assert [tag for tag, _ in page.tags].count("img") == 3


def test_a_contrastive_strategy_without_labels_and_with_both_attacks(folder):
    np.savez(folder / "party.npz", x=images(40).numpy())
    arguments = ("--strategy", "fed_simclr", "--attacks", "span", "matching")
    report, page = run(folder, *arguments, "--user-types", "local_update")
    noisy = ["no defence", "gaussian noise 0.002", "gaussian noise 0.03"]
    assert [r["setting"] for r in report["results"]] == noisy
    assert [[a["signal"] for a in r["membership"]] for r in report["results"]] == [["alignment"]] * 3
    assert report["untrained"]["knn"] is None
    assert any("effective rank" in text for text in page.of("caption"))
    assert {r["replies"][0]["attack"] for r in report["results"]} <= {"span", "matching"}


def test_a_supervised_strategy(folder):
    report, _ = run(folder, "--strategy", "supervised", "--clip", "0", "--user-types", "local_gradient")
    assert [r["setting"] for r in report["results"]] == ["no defence"]
    assert not any("local centroids" in sentence for sentence in report["limits"])


def test_the_same_seed_gives_the_same_numbers():
    config = parse_audit({**SHORT, "user_types": ["local_update"], "privacy": [{}]})
    data = LocalData(images(40).numpy())
    from orchestra_strategy.audit import run_audit
    from orchestra_strategy.audit.results import plain

    rows = []
    for _ in range(2):
        (result,) = run_audit(data, config).results
        row = plain(result)
        del row["replies"][0]["seconds"]
        rows.append(row)
    assert rows[0] == rows[1]


def test_members_and_others_are_disjoint_and_seeded():
    x = np.arange(40, dtype=np.float32).repeat(16).reshape(40, 4, 4) / 40
    splits = [
        split_of(LocalData(x, np.arange(40)), parse_audit({**SHORT, "seed": seed}))
        for seed in (0, 0, 1)
    ]
    first, again, other = ([*s.member_labels.tolist(), *s.other_labels.tolist()] for s in splits)
    assert len(set(first)) == 32
    assert first == again != other
    assert splits[0].members.shape == (16, 1, 4, 4)
    assert splits[0].members[:, 0, 0, 0].mul(40).round().tolist() == splits[0].member_labels.tolist()


def test_digits_are_at_hand():
    data = read_data("digits")
    assert data.samples.shape == (1797, 8, 8)
    assert data.samples.max() == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strateggy": "orchestra"}, "got `strateggy`; did you mean `strategy`"),
        ({"strategy": "orchestre"}, "`strategy` to be one that can be audited, got 'orchestre'"),
        ({"images": 3}, "Expected `images` to be"),
        ({"user_types": []}, "`user_types`"),
        ({"user_types": ["local_updat"]}, "`user_types.0` to be 'local_gradient'"),
        ({"privacy": [{"clip": 1.0}]}, "`local_diff_privacy` to have known entries, got `clip`"),
        ({"privacy": [{}, {}]}, r"`privacy` to hold different settings, got \['no defence', 'no"),
        (
            {"strategy": "fed_simclr", "privacy": [{"per_example_clipping": 1.0}]},
            "`per_example_clipping` to be 0, got 1: the loss of `fed_simclr` compares samples",
        ),
        (
            {"norm": "batch", "privacy": [{"per_example_clipping": 2.0}]},
            "`per_example_clipping` to be 0, got 2: BatchNorm mixes the samples of a batch; use",
        ),
    ],
)
def test_settings_that_cannot_be_audited_are_refused(values, message):
    with pytest.raises(ParameterError, match=message):
        parse_audit(values)


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (LocalData(np.zeros((40, 5), np.float32)), {}, "Expected images .* got shape .40, 5.: recon"),
        (LocalData(images(40).numpy()), {"strategy": "supervised"}, "Expected labels for strategy"),
        (LocalData(images(15).numpy()), {}, r"Expected at least 2 \* 8 samples .*, got 15"),
        (LocalData(images(40).numpy() + 1), {}, r"Expected pixels to be uint8 or in \[0, 1\]"),
    ],
)
def test_data_that_cannot_be_audited_are_refused(data, changes, message):
    with pytest.raises(DataError, match=message):
        split_of(data, parse_audit({**SHORT, **changes}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "Expected data in `nowhere`, got no such file or folder"),
        (["--data", "digits", "--out", __file__], "Expected `--out` to be a folder, got the file"),
        (["--data", "digits", "--config", "nowhere"], "Expected `--config` to be a JSON file, got"),
        (["--data", "digits", "--noise", "nan"], "`gradient_noise` to be a finite number of at"),
        (["--data", "digits", "--strategy", "x"], "`strategy` to be one that can be audited"),
    ],
)
def test_bad_arguments_end_with_a_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["audit", *arguments])
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_configuration_file_is_one_object(tmp_path, capsys):
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(SystemExit):
        cli.main(["audit", "--data", "digits", "--config", str(tmp_path / "list.json")])
    assert "`--config` to hold one JSON object, got list" in " ".join(capsys.readouterr().err.split())


def test_the_module_runs_too():
    command = [sys.executable, "-m", "orchestra_strategy.audit", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--user-types" in done.stdout


def test_limits_name_the_width_that_the_span_attack_needs():
    class Given:
        config = parse_audit({"hidden_dim": 77})

    assert any("77" in sentence for sentence in limits(Given))
