"""What a platform is told of the components: that they exist, their attributes, their Chinese."""

import json
from importlib import metadata
from pathlib import Path

import pytest
from secretflow.component.core import Registry, translate
from secretflow.component.core.i18n import gettext
from secretflow.component.core.utils import _build_comp_list_def

from federated_orchestra import ModelConfig, TrainerConfig
from orchestra_strategy import component
from orchestra_strategy.cluster.settings import Limits
from orchestra_strategy.component import strategy_forms
from orchestra_strategy.component.forms import (
    Samples,
    limits_from,
    network_from,
    run_from,
    views_for,
)
from orchestra_strategy.component.strategy_forms import STRATEGIES, parameters_from
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.runtime.checks import our_strategy

component.plugin()
TRAIN, EMBED = "ml.train/orchestra_train:0.0.1", "ml.predict/orchestra_embed:0.0.1"
TRANSLATION = Path(component.__file__).parent / "translation.json"
SAMPLES = Samples(columns=["a", "b", "c", "d"])


def attributes(identity):
    """Attribute by its path, as a form has them."""
    definition = Registry.get_definition_by_id(identity).component_def
    return {"/".join([*a.prefixes, a.name]): a for a in definition.attrs}


def made(**values):
    """The component as SecretFlow makes it, of what a form sends."""
    ends = {"output_model": "m", "report": "r", "input_ds": []}
    return Registry.get_definition_by_id(TRAIN).make_component({"_minor": 0, **ends, **values})


def test_secretflow_finds_both():
    (found,) = metadata.entry_points(group="secretflow_plugins", name="orchestra")
    assert found.load() is component.plugin
    for identity in (TRAIN, EMBED):
        assert Registry.get_definition_by_id(identity).root_package == "orchestra_strategy"


def test_an_older_secretflow_gets_a_warning_and_no_components(monkeypatch, caplog):
    monkeypatch.setattr(component, "installed_version", lambda: "1.11.0b1")
    monkeypatch.setattr(component, "import_module", lambda name: pytest.fail(name))
    component.plugin()
    assert "need secretflow>=1.12, got 1.11.0b1" in caplog.text


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_parameter_of_a_strategy_is_an_attribute(name):
    config = our_strategy(name).config_class
    told = attributes(TRAIN)
    for field, info in config.model_fields.items():
        if field in strategy_forms._LEFT_OUT:
            assert field not in told
            continue
        own = f"strategy/{name}/{field}"
        choices = getattr(info.annotation, "__args__", (None, None))
        if own not in told and len(choices) == 1:
            continue  # a parameter that has one value alone
        attribute = told.get(own, told.get(field))
        assert attribute is not None, field
        assert (own in told) != (field in told), field
        assert attribute.desc


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_form_left_alone_is_the_default_configuration(name):
    chosen, parameters = parameters_from(made(strategy=name))
    assert chosen == name
    parameters["views"] = views_for(parameters["views"], SAMPLES)
    config = our_strategy(name).config_class
    given = {"noise_multiplier": 1.0} if name == "orchestra_private" else {}
    expected = parse_config(config, {"views": "table", **given})
    assert parse_config(config, {**parameters, **given}) == expected


def test_the_rest_of_a_form_left_alone_is_the_default_configuration():
    form = made()
    usual = TrainerConfig()
    assert {n: getattr(usual, n) for n in run_from(form, "/data")} == run_from(form, "/data")
    assert limits_from(form.waiting) == Limits(plain_text=True)
    network = network_from(form.network, SAMPLES)
    usual_network = ModelConfig().model_dump(exclude={"weights", "num_classes"})
    assert network == {**usual_network, "backbone": "mlp", "in_channels": 4}
    pictures = Samples(image_column="path", mode="RGB", image_size=32)
    assert network_from(form.network, pictures) == usual_network
    assert views_for("auto", pictures) == "colour"


def test_bounds_choices_and_defaults_are_those_of_the_configuration():
    told = attributes(TRAIN)
    lr, momentum = told["lr"].atomic, told["momentum"].atomic
    assert (lr.lower_bound.f, lr.lower_bound_inclusive, lr.upper_bound_enabled) == (0, False, False)
    assert (momentum.lower_bound_inclusive, momentum.upper_bound.f) == (True, 1)
    assert not momentum.upper_bound_inclusive
    assert lr.default_value.f == pytest.approx(0.003)
    users = told["users_per_round"].atomic  # may be None, which a form says as 0
    assert (users.default_value.i64, users.lower_bound.i64) == (0, 0)
    assert list(told["accountant"].atomic.allowed_values.ss) == ["rdp", "pld"]
    assert list(told["strategy/orchestra_private/privacy"].atomic.allowed_values.ss) == [
        "user",
        "record",
    ]
    assert told["strategy"].union.default_selection == "orchestra"


def test_numbers_of_four_bytes_are_read_as_they_were_written():
    assert parameters_from(made(lr=0.003000000026077032))[1]["lr"] == 0.003
    assert parameters_from(made(delta=9.999999747378752e-06))[1]["delta"] == 1e-5


def test_none_and_dictionaries_are_read_back():
    text = '{"noise": 0.1}'
    values = parameters_from(made(noise_multiplier=0.0, view_options=text, planned_rounds=3))[1]
    assert (values["noise_multiplier"], values["planned_rounds"]) == (None, 3)
    assert values["view_options"] == {"noise": 0.1}
    assert run_from(made(checkpoint_dir="sub"), "/data")["checkpoint_dir"] == "/data/sub"
    assert run_from(made(checkpoint_dir="/else"), "/data")["checkpoint_dir"] == "/else"


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_a_text_that_is_no_dictionary_is_refused(text):
    with pytest.raises(ParameterError, match="Expected `view_options` to be a dictionary as JSON"):
        parameters_from(made(view_options=text))


def test_what_is_out_of_bounds_is_refused_by_secretflow():
    with pytest.raises(ValueError, match="lr"):
        made(lr=0.0)


def test_the_translation_has_every_text_and_no_other():
    archive = json.loads(TRANSLATION.read_text(encoding="utf-8"))
    definitions = Registry.get_definitions("orchestra_strategy")
    listed = gettext(_build_comp_list_def(definitions), archive)
    missing = [text for texts in listed.values() for text, chinese in texts.items() if not chinese]
    assert missing == []  # add them to translation.json
    assert {key: set(texts) for key, texts in archive.items()} == {
        key: set(texts) for key, texts in listed.items()
    }
    english = [t for texts in archive.values() for t in texts if " " in t and texts[t].isascii()]
    assert english == []


def test_secretflows_own_tool_takes_the_translation():
    archive = json.loads(TRANSLATION.read_text(encoding="utf-8"))
    assert translate("orchestra_strategy", archive) == archive
