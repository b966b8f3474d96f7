"""Files in ``deploy/kuscia``, as Kuscia and Docker take them, and what Kuscia makes of outputs."""

import json
import re
from pathlib import Path

import pytest
import yaml
from secretflow.component.core import Registry
from secretflow.kuscia.meta_conversion import convert_dist_data_to_domain_data
from secretflow.kuscia.sf_config import get_sf_cluster_config
from secretflow.kuscia.task_config import KusciaTaskConfig

import orchestra_strategy
from orchestra_strategy.component import plugin
from orchestra_strategy.component.forms import Samples
from orchestra_strategy.component.model_file import About, describe_model
from tests.component.inputs import describe

plugin()
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kuscia"
PARTIES = ("alice", "bob")
INSTRUCTIONS = {"ARG", "COPY", "FROM", "RUN", "SHELL", "WORKDIR"}
PLACEHOLDERS = ("TASK_INPUT_CONFIG", "TASK_CLUSTER_DEFINE", "ALLOCATED_PORTS", "TASK_ID")


def app_image():
    (document,) = yaml.safe_load_all((FOLDER / "app-image.yaml").read_text(encoding="utf-8"))
    return document


def container():
    (template,) = app_image()["spec"]["deployTemplates"]
    (only,) = template["spec"]["containers"]
    return only


def task_config(me):
    """What Kuscia makes of the AppImage's template for a party: its values are JSON as text."""
    ports = [p["name"] for p in container()["ports"]]
    services = [{"portName": name, "endpoints": [f"{name}.{{}}.svc"]} for name in ports]
    parties = [
        {
            "name": party,
            "services": [
                {**one, "endpoints": [one["endpoints"][0].format(party)]} for one in services
            ],
        }
        for party in PARTIES
    ]
    values = {
        "TASK_ID": "task-1",
        "TASK_INPUT_CONFIG": (FOLDER / "train-task.json").read_text(encoding="utf-8"),
        "TASK_CLUSTER_DEFINE": json.dumps({"parties": parties, "selfPartyIdx": PARTIES.index(me)}),
        "ALLOCATED_PORTS": json.dumps(
            {"ports": [{"name": name, "port": 9000 + n} for n, name in enumerate(ports)]}
        ),
    }
    text = app_image()["spec"]["configTemplates"]["task-config.conf"]
    for name in PLACEHOLDERS:
        text = text.replace(f"{{{{.{name}}}}}", json.dumps(values[name])[1:-1])
    assert "{{" not in text
    config = json.loads(text)
    config["task_input_config"] = json.loads(config["task_input_config"])
    return KusciaTaskConfig.from_json(config)


@pytest.mark.parametrize("me", PARTIES)
def test_secretflow_reads_its_cluster_from_the_app_image(me):
    cluster = get_sf_cluster_config(task_config(me))
    at = cluster.public_config.ray_fed_config
    other = PARTIES[1 - PARTIES.index(me)]
    assert dict(zip(at.parties, at.addresses)) == {me: "0.0.0.0:9001", other: f"fed.{other}.svc:80"}
    assert cluster.private_config.self_party == me
    assert cluster.public_config.webhook_config.progress_url.endswith("task_id=task-1")


def test_the_example_is_a_task_that_the_component_takes():
    config = task_config("alice")
    param = config.sf_node_eval_param
    definition = Registry.get_definition_by_id(param.comp_id)
    param.inputs.extend(describe(party, {"x": "float"}) for party in PARTIES)
    param.output_uris.extend(config.sf_output_uris)
    made = definition.make_component(definition.parse_param(param))
    assert (made.rounds, made.checkpoint_dir) == (50, "orchestra-checkpoints")
    assert made.strategy.orchestra.num_global_clusters == 32
    assert len(config.sf_input_ids) == len(config.sf_cluster_desc.parties) == 2


def test_the_container_starts_what_reads_that_file():
    one = container()
    assert one["command"] == ["sh"]
    assert one["args"][0] == "-c"
    (path,) = re.findall(r"secretflow\.kuscia\.entry (\S+)$", one["args"][1])
    (mount,) = one["configVolumeMounts"]
    assert (Path(one["workingDir"]) / path).as_posix() == mount["mountPath"]
    assert mount["subPath"] in app_image()["spec"]["configTemplates"]


def test_the_job_names_the_app_image_and_its_parties():
    job = yaml.safe_load((FOLDER / "train-job.yaml").read_text(encoding="utf-8"))
    (task,) = job["spec"]["tasks"]
    assert task["appImage"] == app_image()["metadata"]["name"]
    assert [party["domainID"] for party in task["parties"]] == list(PARTIES)


def test_the_image_is_of_this_version():
    image = app_image()["spec"]["image"]
    assert image == {"name": "orchestra-strategy", "tag": orchestra_strategy.__version__}


def instructions():
    """(instruction, rest) of a Dockerfile, with continued lines joined."""
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [tuple(line.split(" ", 1)) for line in joined]


def test_the_dockerfile_is_whole():
    found = instructions()
    assert {name for name, _ in found} <= INSTRUCTIONS
    assert next(name for name, _ in found if name != "ARG") == "FROM"
    stages = {rest.split(" AS ")[1] for name, rest in found if name == "FROM" and " AS " in rest}
    arguments = dict(rest.split("=", 1) for name, rest in found if name == "ARG")
    for name, rest in found:
        if name == "FROM":
            image = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], rest.split(" AS ")[0])
            assert re.fullmatch(r"[\w/-]+:[\w.-]+", image), image
            assert not image.endswith(":latest")
        if name == "COPY":
            *sources, _ = rest.split()
            if sources[0].startswith("--from="):
                assert sources[0].removeprefix("--from=") in stages
            else:
                assert [s for s in sources if not (ROOT / s).exists()] == []
        for command in re.findall(r"pip (?:install|wheel) .*", rest if name == "RUN" else ""):
            assert "--no-cache-dir" in command
        if name == "RUN" and "|" in rest:
            assert ("SHELL", '["/bin/bash", "-o", "pipefail", "-c"]') in found


def test_the_dockerfile_starts_from_the_secretflow_of_the_tests():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    (version,) = (line.split("==")[1] for line in lock if line.startswith("secretflow=="))
    assert ("ARG", f"SECRETFLOW_IMAGE=secretflow/secretflow-anolis8:{version}") in instructions()


def test_kuscia_takes_a_models_description():
    about = About("orchestra", 2, 256, Samples(columns=["x"]))
    uris = {party: f"orchestra-model/{n}" for n, party in enumerate(PARTIES)}
    model = describe_model("orchestra-model", uris, about, None)
    made = convert_dist_data_to_domain_data("id", "source", model, "orchestra-model", "alice", "")
    assert (made.type, made.relative_uri) == ("model", "orchestra-model")
    # It packs a party's files into an archive, all of which have to lie below that path.
    assert all(ref.uri.startswith(made.relative_uri) for ref in model.data_refs)
