import pytest

from orchestra_strategy import session
from tests.federated import toy


@pytest.fixture
def devices():
    """Alice and bob in process."""
    with session(toy.PARTIES, mode="debug") as devices:
        yield devices
