"""The doctor: a healthy party, and each thing that can be wrong with one."""

import json
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from orchestra_strategy import host
from orchestra_strategy.cluster import make_certificates
from orchestra_strategy.commands import machine_checks, party_checks
from tests.cluster.ports import free_ports
from tests.commands.jobs import JOB, status, write_job

assert host.secretflow  # imported here: what it makes of standard output must not be a test's


@pytest.fixture
def party(tmp_path, monkeypatch):
    """A job of alice and bob in the present folder, alice's keys and data, and the ports."""
    monkeypatch.chdir(tmp_path)
    ports = free_ports(2)
    make_certificates("keys", ["alice", "bob"])
    np.save("alice.npy", np.zeros((20, 8, 8), np.float32))
    write_job(
        tmp_path,
        f"{JOB}"
        "out_dir: out\n"
        "data: '{party}.npy'\n"
        "parties:\n"
        f"  alice: {{address: '127.0.0.1:{ports[0]}'}}\n"
        f"  bob: {{address: '127.0.0.1:{ports[1]}'}}\n"
        "tls: {ca: keys/ca.pem, cert: 'keys/{party}.pem', key: 'keys/{party}.key'}\n",
    )
    return ports


def findings(capsys, *arguments, code=0):
    assert status("doctor", "job.yaml", "--party", "alice", *arguments, "--json") == code
    return {f["what"]: (f["grade"], f["told"]) for f in json.loads(capsys.readouterr().out)}


def test_a_healthy_party(party, capsys):
    with socket.socket() as bob:
        bob.bind(("127.0.0.1", party[1]))
        bob.listen()
        found = findings(capsys)
    assert [what for what, (grade, _) in found.items() if grade == "bad"] == []
    assert found["data"] == ("ok", "20 samples of shape (8, 8) in alice.npy")
    assert found["tls"][0] == found["port"][0] == found["party bob"][0] == "ok"
    assert found["secretflow"][1].startswith("1.13.0b0 (secretflow_fl; torch 2.7.0, ")


def test_a_table_on_which_the_parties_will_agree(party, capsys, tmp_path):
    (tmp_path / "alice.csv").write_text("age,job\n30,cook\n40,clerk\n50,cook\n20,clerk\n")
    options = "data_options={columns: [age, job], categories: agree, standardise: agree}"
    table = ("--set", "data=alice.csv", "--set", options)
    grade, told = findings(capsys, *table)["data"]
    assert grade == "ok"
    assert told.startswith("4 samples of shape (3,) in alice.csv; more columns where the others")
    (tmp_path / "alice.csv").write_text("age,job\n30,cook\n40,clerk\n")
    assert "to have at least 4 rows" in findings(capsys, *table, code=1)["data"][1]


def test_a_peer_that_has_not_started_is_no_fault(party, capsys):
    grade, told = findings(capsys)["party bob"]
    assert (grade, told) == ("note", f"nobody listens at 127.0.0.1:{party[1]} yet")


def test_a_taken_port(party, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", party[0]))
        other.listen()
        grade, told = findings(capsys, code=1)["port"]
    assert grade == "bad"
    assert "Address already in use; end the process that has it, or choose another port" in told


@pytest.mark.parametrize(
    ("change", "what", "message"),
    [
        ("data=nowhere.npy", "data", "Expected data in `nowhere.npy`, got no such file"),
        ("data=null", "data", "Expected the path of the party's data, got none; give it as"),
        ("data_options.image_size=8", "data", "Expected options of a .npy file"),
        ("tls.cert=keys/bob.pem", "tls", "`tls.key` to be the key of `tls.cert`, got"),
        ("tls.key=nowhere", "tls", "to be a file that can be read, got 'nowhere'"),
        ("parties.bob.address='no.such.host.invalid:1'", "party bob", "to be a known host, got"),
        ("parties.alice.listen='203.0.113.1:99'", "port", "give one of this machine as `listen`"),
        ("cluster.peer_timeout=1", "job", "`peer_timeout` to be at least two heartbeats"),
        ("out_dir=alice.npy/out", "disk", "the file `{here}/alice.npy` in its way"),
        ("rounds=0", "job", "`--set rounds`: Expected `rounds` to be greater than or equal to 1"),
        ("parties.bob=null", "job", "`parties.bob`"),
        ("ray={}", "job", "`ray` with `backend: ray` alone"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(change, what, message, party, tmp_path, capsys):
    grade, told = findings(capsys, "--set", change, code=1)[what]
    assert grade == "bad"
    assert message.format(here=tmp_path) in told


def test_a_ray(party, capsys, monkeypatch):
    assert "ray" not in findings(capsys)
    away = f"ray.address='127.0.0.1:{free_ports(1)[0]}'"
    found = findings(capsys, "--set", "backend=ray", "--set", away, code=1)["ray"]
    assert found[0] == "bad"
    assert "Connection refused; start it (`ray start --head`), or leave" in found[1]
    real = party_checks.shutil.disk_usage("/")
    for free, grade in ((2**20, "note"), (2**40, "ok")):
        usage = real._replace(free=free)
        monkeypatch.setattr(party_checks.shutil, "disk_usage", lambda _, u=usage: u)
        (found,) = party_checks.check_own_ray(SimpleNamespace(backend="ray", ray=None))
        assert (found.grade, found.told.startswith("2.42.0, local")) == (grade, True)


def test_without_a_job_it_looks_at_the_machine(tmp_path):
    command = [sys.executable, "-m", "orchestra_strategy", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    looked_at = [line[6:].split(":")[0] for line in done.stdout.splitlines()]
    assert looked_at == ["python", "secretflow", "cpus", "clock", "disk"]


def test_another_python_and_a_clock_of_another_year():
    found = machine_checks.check_python((3, 12, 1))
    assert found.grade == "bad"
    assert "Expected Python 3.10, got 3.12.1; make an environment" in found.told
    found = machine_checks.check_clock(now=0.0)
    assert found.grade == "bad"
    assert "got 1970-01-01" in found.told


def test_little_room_and_a_closed_folder(tmp_path, monkeypatch):
    usage = machine_checks.shutil.disk_usage(tmp_path)
    for free, grade in ((2**20, "bad"), (2**31, "note"), (2**40, "ok")):
        monkeypatch.setattr(
            machine_checks.shutil, "disk_usage", lambda _, free=free: usage._replace(free=free)
        )
        assert machine_checks.check_folder(str(tmp_path / "new" / "er"), "disk").grade == grade
    monkeypatch.setattr(machine_checks.os, "access", lambda *_: False)  # root may write anywhere
    found = machine_checks.check_folder(str(tmp_path / "out"), "disk")
    assert "give this user the right to write in" in found.told


def test_a_broken_secretflow_is_told(monkeypatch):
    def broken():
        raise ImportError("libfoo.so: cannot open")

    monkeypatch.setattr(machine_checks, "load_host", broken)
    found = machine_checks.check_secretflow()
    assert found.grade == "bad"
    assert "got ImportError: libfoo.so: cannot open; install it into" in found.told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--party", "alice"), "Expected a job with `--party`, got none"),
        (("job.yaml", "--local", "x"), "Expected `--party` with `--local`, got none"),
    ],
)
def test_arguments_that_need_each_other(arguments, message, capsys):
    assert status("doctor", *arguments) == 2
    assert message in capsys.readouterr().err
