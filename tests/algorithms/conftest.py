import pytest

from orchestra_strategy.threads import torch_threads


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """On tensors of this size several threads mostly wait for each other."""
    with torch_threads(1):
        yield
