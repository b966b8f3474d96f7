import logging

import pytest

from orchestra_strategy import session
from orchestra_strategy.errors import HostError
from orchestra_strategy.runtime.session import logical_cpus, quiet_host_logs


@pytest.mark.parametrize("names", [[], ["a", "a"], [1, 2]])
def test_bad_names_are_refused(names):
    with pytest.raises(HostError, match="`parties` to be different names"), session(names):
        pass


def test_an_unknown_mode_is_refused():
    with pytest.raises(HostError, match="`mode` to be 'debug', 'local' or 'cluster', got 'ray'"):
        session(["a"], mode="ray").__enter__()


def test_cpus_suffice_for_workers_maskers_and_tasks():
    for parties in (1, 2, 5, 20):
        workers, maskers, server = parties, parties, 1
        assert logical_cpus(parties) > workers + maskers + server


def test_a_session_can_follow_another_and_ends_after_an_error():
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), session(["a", "b"], mode="debug") as devices:
            divide_by_zero([d.party for d in devices] == ["a", "b"])


def divide_by_zero(as_expected):
    assert as_expected
    return 1 / 0


def host_record(level):
    return logging.LogRecord("root", level, "/x/secretflow/device/driver.py", 1, "m", (), None)


def test_quiet_drops_the_hosts_chatter_and_nothing_else(caplog):
    root = logging.getLogger()
    level = root.level
    with quiet_host_logs(), caplog.at_level(logging.INFO):
        root.handle(host_record(logging.WARNING))
        assert not caplog.records
        root.handle(host_record(logging.ERROR))
        logging.warning("from a user's own code")
        assert [r.levelno for r in caplog.records] == [logging.ERROR, logging.WARNING]
    root.handle(host_record(logging.WARNING))
    assert len(caplog.records) == 3
    assert root.level == level
