"""The number of torch's CPU threads, set for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["torch_threads"]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run a block with ``count`` threads, then put the former number back.

    Sums of floats depend on how they are split between threads. Ray's workers have one thread, the
    in-process mode has all cores: only a fixed number gives equal results in both.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
