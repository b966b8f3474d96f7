"""What a cluster's settings refuse, before anything is opened."""

import pytest

from orchestra_strategy import session
from orchestra_strategy.cluster import ClusterSettings
from orchestra_strategy.config import parse_config
from orchestra_strategy.errors import HostError, ParameterError
from tests.cluster.ports import settings


def parsed(**changed):
    return parse_config(ClusterSettings, {**settings()["alice"], **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"self_party": "dora"}, r"`self_party` to be one of \['alice', 'bob'\], got 'dora'"),
        ({"parties": {"alice": {"address": "127.0.0.1:1"}}}, "at least 2 `parties`, got 1"),
        ({"peer_timeout": 0.15}, "at least two heartbeats, got 0.15 with `heartbeat=0.1`"),
        ({"start_timeout": 0}, "`start_timeout` to be greater than 0, got 0"),
        ({"peers": {}}, "got `peers`"),
        ({"ray": {}}, "`ray` with `backend: ray` alone, got it with `backend: threads`; give both"),
        (
            {"backend": "ray", "ray": {"address": "10.0.0.1:6379", "num_cpus": 8}},
            "`ray.num_cpus` with `ray.address: local` alone, got both 8 and '10.0.0.1:6379'",
        ),
        (
            {"backend": "ray", "ray": {"address": "ray://10.0.0.1"}},
            "`ray.address` to be `local`, `auto` or `host:port`, got 'ray://10.0.0.1'",
        ),
        ({"backend": "ray", "ray": {"num_cpus": 2}}, "`ray.num_cpus` to be greater than or equal"),
    ],
)
def test_refused(changed, message):
    with pytest.raises(ParameterError, match=message):
        parsed(**changed)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.1:", ":80", "host:0", "host:70000"])
def test_addresses_have_host_and_port(address):
    parties = {"alice": {"address": address}, "bob": {"address": "127.0.0.1:1"}}
    with pytest.raises(ParameterError, match=f"`host:port`.*got '{address}'"):
        parsed(parties=parties)


def test_two_parties_do_not_share_an_address():
    parties = {p: {"address": "127.0.0.1:9"} for p in ("alice", "bob")}
    with pytest.raises(ParameterError, match="own address"):
        parsed(parties=parties)


def test_names_stand_in_certificates():
    parties = {p: {"address": f"127.0.0.1:{n}"} for n, p in ((1, "alice"), (2, "bob_2"))}
    with pytest.raises(ParameterError, match=r"letters, digits.*got 'bob_2'"):
        parsed(parties=parties)


def test_plain_text_stays_on_this_machine_unless_asked_for():
    parties = {"alice": {"address": "127.0.0.1:1"}, "bob": {"address": "192.0.2.7:1"}}
    with pytest.raises(ParameterError, match=r"Expected `tls`.*bob: 192\.0\.2\.7:1.*got None"):
        parsed(parties=parties)
    assert parsed(parties=parties, plain_text=True).tls is None


def test_the_address_bound_to_may_be_another():
    both = {"address": "127.0.0.1:1", "listen": "127.0.0.1:2"}
    parties = {"alice": both, "bob": {"address": "127.0.0.1:3"}}
    assert parsed(parties=parties).listen == "127.0.0.1:2"
    assert parsed(parties=parties, self_party="bob").listen == "127.0.0.1:3"


@pytest.mark.parametrize(
    "arguments",
    [{"mode": "cluster"}, {"mode": "debug", "cluster": {}}, {"parties": ["a"], "cluster": {}}],
)
def test_session_takes_cluster_and_its_mode_together(arguments):
    with pytest.raises(HostError, match=r"Expected `cluster` with `mode='cluster'`"):
        session(**arguments).__enter__()
