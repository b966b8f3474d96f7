"""Where a party's samples come from, in SecretFlow's terms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestra_strategy import host
from orchestra_strategy.errors import DataError

__all__ = ["fed_ndarray"]


def _identity(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array


def fed_ndarray(arrays: Mapping[Any, npt.NDArray[Any]]) -> Any:
    """Hand one array to each device, for simulations where one process holds them all.

    In a real deployment every party loads its own data: ``alice(np.load)("path")``.

    Args:
        arrays: PYU -> that party's samples, shape (n, ...), n may differ.

    Returns:
        A horizontally partitioned FedNdarray.

    Raises:
        DataError: No party, or something that is no array.
    """
    if not arrays:
        raise DataError("Expected `arrays` to have at least one device, got none.")
    for device, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(
                f"Expected the data of {device} to be a numpy array, got {type(array).__name__}."
            )
    return host.FedNdarray(
        partitions={device: device(_identity)(array) for device, array in arrays.items()},
        partition_way=host.PartitionWay.HORIZONTAL,
    )
