"""What only its owner may open, and JSON out of files."""

import os
import stat

import pytest

from orchestra_strategy.errors import CheckpointError
from orchestra_strategy.evaluation import write_html, write_json
from orchestra_strategy.evaluation.plots.figures import new_figure, save_figure
from orchestra_strategy.files import parse_json, private_folder


def mode_of(path):
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(autouse=True)
def usual_mask():
    old = os.umask(0o022)
    yield
    os.umask(old)


def test_a_private_folder__is_made_for_its_owner_alone(tmp_path):
    assert mode_of(private_folder(tmp_path / "run" / "party")) == 0o700
    (tmp_path / "readable").mkdir(mode=0o755)
    assert private_folder(tmp_path / "readable") == tmp_path / "readable"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_in__is_refused(tmp_path, mode):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    with pytest.raises(CheckpointError, match=rf"alone can write in, got permissions {mode:04o}"):
        private_folder(tmp_path / "open")


def test_links_and_files__are_refused(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    for name, got in [("link", "a link"), ("nowhere", "a link"), ("file", "another kind of file")]:
        with pytest.raises(CheckpointError, match=rf"{name}` to be a folder .* got {got}"):
            private_folder(tmp_path / name)
    assert not (tmp_path / "missing").exists()


def test_a_folder_of_another_user__is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(CheckpointError, match=r"got one of user .*; remove it, or take another"):
        private_folder(tmp_path)


def test_reports_and_pictures__are_their_owners_alone(tmp_path):
    write_html(tmp_path / "html" / "a.html", "title", [])
    write_json(tmp_path / "json" / "a.json", {})
    pytest.importorskip("matplotlib")
    save_figure(new_figure(1, 1), tmp_path / "plot" / "a.png")
    save_figure(new_figure(1, 1), tmp_path / "bare" / "a")
    for path in ("html/a.html", "json/a.json", "plot/a.png", "bare/a"):
        assert mode_of(tmp_path / path) == 0o600
        assert mode_of((tmp_path / path).parent) == 0o700


def test_json__that_is_too_long_too_deep_or_none_is_refused():
    assert parse_json(b'{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="more than 3 bytes"):
        parse_json(b"[1, 2]", longest=3)
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json(b"[" * 100_000)
    with pytest.raises(ValueError, match=r"no JSON, at byte 1$"):
        parse_json(b"[secret]")
    with pytest.raises(ValueError, match=r"no JSON$"):
        parse_json(b"\xff\xfe1")
