"""A job as one party runs it."""

from pathlib import Path

import pytest

from orchestra_strategy.commands.cluster_job import ClusterJob, with_local_part
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import ParameterError

PARTIES = {name: {"address": f"127.0.0.1:{port}"} for port, name in enumerate(("alice", "bob"), 1)}


def job(**changed):
    return parse_config(ClusterJob, {"rounds": 1, "parties": PARTIES, **changed})


def test_on_a_ray_paths_are_those_of_the_command_whatever_the_workers_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = {"data": "{party}.npy", "out_dir": "~/out"}
    alone = with_local_part(job(**paths), None, "alice")
    assert (alone.data, alone.out_dir) == ("alice.npy", "~/out")
    on_ray = with_local_part(job(**paths, backend="ray"), None, "alice")
    assert on_ray.data == str(tmp_path / "alice.npy")
    assert on_ray.out_dir == str(Path.home() / "out")
    assert on_ray.checkpoint_dir is None


def test_a_partys_ray_stands_in_its_local_part(tmp_path):
    local = tmp_path / "alice.yaml"
    local.write_text("ray: {address: '127.0.0.1:6379'}\n", encoding="utf-8")
    assert with_local_part(job(backend="ray"), local, "alice").ray.address == "127.0.0.1:6379"
    with pytest.raises(ParameterError, match="`ray` with `backend: ray` alone"):
        job(ray={"num_cpus": 8})
