import pytest

from orchestra_strategy.threads import torch_threads


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Tensors of a few numbers: a second thread only costs time."""
    with torch_threads(1):
        yield
