"""Jobs whose processes end with their test."""

import pytest

from tests.cluster.party_process import Job


@pytest.fixture
def job(tmp_path):
    """Return a function that makes a job in the test's folder."""
    made = []

    def make(parties=2, **changed):
        made.append(Job(tmp_path, parties, **changed))
        return made[-1]

    yield make
    for one in made:
        one.close()
