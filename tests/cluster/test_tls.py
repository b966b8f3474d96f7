"""Key files are checked before anything starts, and never shown."""

import stat
from datetime import datetime, timedelta, timezone

import pytest

from orchestra_strategy.cluster import TlsFiles, make_certificates
from orchestra_strategy.cluster.tls_files import read_tls
from orchestra_strategy.errors import ClusterError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    ours, theirs = (tmp_path_factory.mktemp(n) for n in ("ours", "theirs"))
    make_certificates(ours, ["alice", "bob"])
    make_certificates(theirs, ["alice"])
    return ours, theirs


def files(folder, party="alice", **changed):
    paths = {"ca": "ca.pem", "cert": f"{party}.pem", "key": f"{party}.key"}
    return TlsFiles(**{**{k: str(folder / v) for k, v in paths.items()}, **changed})


def test_made_files_are_read(folders):
    for party in ("alice", "bob"):
        assert read_tls(files(folders[0], party), party).key.startswith(b"-----BEGIN PRIVATE")


def test_keys_are_their_owners_alone_and_never_written_over(folders):
    assert stat.S_IMODE((folders[0] / "alice.key").stat().st_mode) == 0o600
    before = (folders[0] / "alice.key").read_bytes()
    with pytest.raises(ClusterError, match=r"without 'ca\.pem'.*never written over"):
        make_certificates(folders[0], ["alice"])
    assert (folders[0] / "alice.key").read_bytes() == before


def test_the_authority_can_sign_no_more(folders):
    assert sorted(p.name for p in folders[1].iterdir()) == ["alice.key", "alice.pem", "ca.pem"]


def test_text_in_place_of_a_path_is_not_shown(folders):
    text = (folders[0] / "alice.key").read_text(encoding="ascii")
    with pytest.raises(ClusterError, match=r"`tls\.key` to be the path of a PEM file") as caught:
        read_tls(files(folders[0], key=text), "alice")
    secret = text.splitlines()[1]
    error = caught.value
    assert secret not in str(error)
    assert error.__cause__ is None


def test_each_fault_is_named(folders, tmp_path):
    ours, theirs = folders
    empty = tmp_path / "empty.pem"
    empty.write_text("", encoding="ascii")
    for changed, message in (
        ({"key": str(tmp_path / "none.key")}, r"`tls\.key` to be a file.*No such file"),
        ({"cert": str(empty)}, r"`tls\.cert` to be a certificate in PEM form"),
        ({"key": str(empty)}, r"`tls\.key` to be a private key"),
        ({"key": str(ours / "bob.key")}, r"`tls\.key` to be the key of `tls\.cert`.*not a pair"),
        ({"ca": str(theirs / "ca.pem")}, r"signed by `tls\.ca`.*another authority"),
    ):
        with pytest.raises(ClusterError, match=message):
            read_tls(files(ours, **changed), "alice")
    with pytest.raises(ClusterError, match=r"to name `alice`.*\['bob'\]: it is another party's"):
        read_tls(files(ours, "bob"), "alice")


@pytest.mark.parametrize("days", [-1, 91])
def test_a_certificate_out_of_date_is_refused(folders, monkeypatch, days):
    then = datetime.now(timezone.utc) + timedelta(days=days)
    monkeypatch.setattr("orchestra_strategy.cluster.tls_files._now", lambda: then)
    with pytest.raises(ClusterError, match=r"to be valid now, got .* valid from .*clock"):
        read_tls(files(folders[0]), "alice")
