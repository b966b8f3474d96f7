"""Settings as parties show them to each other."""

from orchestra_strategy.runtime.common_settings import as_texts


def test_texts_tell_values_apart_and_keep_the_secret():
    one = as_texts({"rounds": 3, "server": None}, {"norm": "batch"}, {"lr": 0.1, "noise_seed": 7})
    other = as_texts({"rounds": 3, "server": "a"}, {"norm": "batch"}, {"lr": 0.1, "noise_seed": 8})
    assert one["rounds"] == "3"
    assert one["server"] == "nothing"
    assert one["model.norm"] == "batch"
    assert {name for name in one if one[name] != other[name]} == {"server", "noise_seed"}
    assert one["noise_seed"].startswith("(sha256 ")
    assert as_texts({}, {}, {"noise_seed": None}) == {"noise_seed": "nothing"}


def test_what_describes_a_machine_is_left_out():
    assert as_texts({}, {}, {"torch_threads": 4, "party": "alice", "lr": 1}) == {"lr": "1"}
