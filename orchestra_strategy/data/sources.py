"""Federated data from arrays or from paths, in SecretFlow's terms."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestra_strategy import host
from orchestra_strategy.data.pixels import check_value_range, to_unit_range
from orchestra_strategy.data.readers.loading import check_options, load_local
from orchestra_strategy.data.readers.local_data import LocalData
from orchestra_strategy.data.shared_tables import agree_on_tables, asks_to_agree, check_paths
from orchestra_strategy.errors import DataError, ParameterError

__all__ = [
    "fed_from_paths",
    "fed_from_readers",
    "fed_in_unit_range",
    "fed_labelled_from_paths",
    "fed_labelled_from_readers",
    "fed_ndarray",
]

_log = logging.getLogger(__name__)

_LOAD_SECONDS = 1800.0


def _identity(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array


def fed_ndarray(
    arrays: Mapping[Any, npt.NDArray[Any]], *, value_range: tuple[float, float] | None = None
) -> Any:
    """Hand one array to each device, for simulations where one process holds them all.

    In a real deployment every party loads its own data: :func:`fed_from_paths`.

    Args:
        arrays: PYU -> that party's samples, shape (n, ...), n may differ.
        value_range: Of images that are neither uint8 nor in [0, 1], the values of black and white;
            see :func:`~orchestra_strategy.data.pixels.to_unit_range`.

    Returns:
        A horizontally partitioned FedNdarray.

    Raises:
        DataError: No party, or something that is no array.
        ParameterError: ``value_range`` is no range.
    """
    window = check_value_range(value_range)
    _check_devices("arrays", arrays)
    for device, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise DataError(
                f"Expected the data of {device} to be a numpy array, got {type(array).__name__}."
            )
        if window is not None:  # a fault is the caller's to hear, not a party's
            arrays = {**arrays, device: to_unit_range(array, window)}
    return _federated({device: device(_identity)(array) for device, array in arrays.items()})


def fed_in_unit_range(federated: Any, value_range: tuple[float, float]) -> Any:
    """Bring images that are at their parties already to [0, 1], where they are.

    Args:
        federated: A FedNdarray of images.
        value_range: The values of black and white.

    Raises:
        DataError: A party has a table.
        ParameterError: ``value_range`` is no range.
    """
    window = check_value_range(value_range)
    for device, shape in federated.partition_shape().items():
        if len(shape) < 3:  # raised there, it would leave the others waiting in cluster mode
            raise DataError(
                f"Expected images at party `{device.party}` for `value_range`, got a table of "
                f"shape {tuple(shape)}, whose columns have scales of their own."
            )
    partitions = federated.partitions.items()
    return _federated({d: d(to_unit_range)(part, window) for d, part in partitions})


def fed_from_paths(
    paths: Mapping[Any, str | os.PathLike[str]], *, timeout_s: float = _LOAD_SECONDS, **options: Any
) -> Any:
    """Let every party read its samples from its own disk; they do not pass through the driver.

    Args:
        paths: PYU -> the path as that party sees it; see :func:`~.loading.load_local`.
        timeout_s: The longest wait for all parties, in local mode.
        **options: The same for all parties; see :func:`~.loading.load_local`. Of tables,
            ``categories="agree"`` and ``standardise="agree"`` have the parties agree, see
            :func:`~.shared_tables.agree_on_tables`.

    Returns:
        A horizontally partitioned FedNdarray, uint8 or float32.

    Raises:
        ParameterError: An option is unknown or out of its range.
        DataError: A party's data cannot be read, or tables differ in their columns; all parties'
            problems in one message.
        HostError: Some party is not ready in time.
    """
    return _load_everywhere(paths, options, timeout_s, labelled=False)[0]


def fed_labelled_from_paths(
    paths: Mapping[Any, str | os.PathLike[str]], *, timeout_s: float = _LOAD_SECONDS, **options: Any
) -> tuple[Any, Any | None]:
    """Read samples like :func:`fed_from_paths`, and labels, which stay at the parties too.

    The driver compares the names of the classes, so that a number means the same everywhere.

    Args:
        paths: As in :func:`fed_from_paths`.
        timeout_s: As there.
        **options: As there.

    Returns:
        Samples and labels (n,) int64 as FedNdarrays; None for the labels if any party has none.

    Raises:
        ParameterError: As there.
        DataError: As there; also if the classes differ between parties.
        HostError: As there.
    """
    return _load_everywhere(paths, options, timeout_s, labelled=True)


def fed_from_readers(
    readers: Mapping[Any, Callable[[], LocalData]], *, timeout_s: float = _LOAD_SECONDS
) -> Any:
    """Let every party read its samples in a way of its own; they do not pass through the driver.

    Args:
        readers: PYU -> a function that is called at that party alone.
        timeout_s: As in :func:`fed_from_paths`.

    Returns:
        A horizontally partitioned FedNdarray.

    Raises:
        DataError: As in :func:`fed_from_paths`.
        HostError: As there.
    """
    _check_devices("readers", readers)
    return _read_everywhere(readers, timeout_s, labelled=False)[0]


def fed_labelled_from_readers(
    readers: Mapping[Any, Callable[[], LocalData]], *, timeout_s: float = _LOAD_SECONDS
) -> tuple[Any, Any | None]:
    """Read samples like :func:`fed_from_readers`, and labels, which stay at the parties too.

    Args:
        readers: As there.
        timeout_s: As there.

    Returns:
        As of :func:`fed_labelled_from_paths`.

    Raises:
        DataError: As there.
        HostError: As there.
    """
    _check_devices("readers", readers)
    return _read_everywhere(readers, timeout_s, labelled=True)


def _load_everywhere(
    paths: Mapping[Any, Any], options: Mapping[str, Any], timeout_s: float, labelled: bool
) -> tuple[Any, Any | None]:
    check_paths(paths)
    check_options(options)
    if asks_to_agree(options):
        options = agree_on_tables(paths, timeout_s=timeout_s, **options)
    readers = {d: partial(load_local, os.fspath(path), **options) for d, path in paths.items()}
    return _read_everywhere(readers, timeout_s, labelled)


def _read_everywhere(
    readers: Mapping[Any, Callable[[], LocalData]], timeout_s: float, labelled: bool
) -> tuple[Any, Any | None]:
    loaded = {
        device: device(_read_at_party, num_returns=3)(reader, labelled)
        for device, reader in readers.items()
    }
    reports = host.reveal_within(
        {device.party: report for device, (_, _, report) in loaded.items()},
        timeout_s,
        "the data of all parties to be read",
    )
    _check_reports(reports)
    x = _federated({device: samples for device, (samples, _, _) in loaded.items()})
    if not all(report["labelled"] for report in reports.values()):
        return x, None
    return x, _federated({device: labels for device, (_, labels, _) in loaded.items()})


def _read_at_party(reader: Callable[[], LocalData], labelled: bool) -> tuple[Any, Any, Any]:
    """Read a party's data in its own process.

    Returns:
        Samples, labels, and the report, the only one of the three that is revealed: plain values,
        fingerprints of the names of columns and (if ``labelled``) of classes, or what went wrong.
        The names themselves stay: of a table without a header they are cells.
    """
    report: dict[str, Any] = {"error": "", "message": "", "labelled": False, "skipped": 0}
    try:
        data = reader()
    except Exception as error:  # raised here, it would leave the others waiting in cluster mode
        message = str(error)
        if not isinstance(error, (DataError, ParameterError)):
            _log.exception("Reading the data failed.")
            message = type(error).__name__  # its words are not ours, and may show a cell
        kind = "ParameterError" if isinstance(error, ParameterError) else "DataError"
        return None, None, {**report, "error": kind, "message": message.rstrip(".")}
    with_labels = labelled and data.labels is not None
    report |= {"labelled": with_labels, "skipped": len(data.skipped)}
    report["columns"] = _fingerprints(data.feature_names)
    report["classes"] = _fingerprints(data.class_names) if with_labels else []
    return data.samples, data.labels if with_labels else None, report


def _fingerprints(names: Sequence[str] | None) -> list[str]:
    return [sha256(name.encode("utf-8", "surrogatepass")).hexdigest() for name in names or ()]


def _check_reports(reports: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise what the parties could not, and refuse columns and classes that differ."""
    failed = {party: report for party, report in reports.items() if report["error"]}
    if failed:
        listed = "; ".join(f"party `{p}`: {report['message']}" for p, report in failed.items())
        only_parameters = {report["error"] for report in failed.values()} == {"ParameterError"}
        raise (ParameterError if only_parameters else DataError)(
            f"The data of {len(failed)} of {len(reports)} parties cannot be read: {listed}."
        )
    _require_same(reports, "columns", "`columns` and `categories`")
    _require_same(reports, "classes", "`class_names`")
    for party, report in reports.items():
        if report["skipped"]:
            _log.warning("Party %s left out %d corrupt images.", party, report["skipped"])


def _require_same(reports: Mapping[str, Mapping[str, Any]], what: str, remedy: str) -> None:
    found = {party: report[what] for party, report in reports.items()}
    if len({tuple(names) for names in found.values()}) > 1:
        places = zip_longest(*found.values())
        first = next(i for i, names in enumerate(places, start=1) if len(set(names)) > 1)
        listed = ", ".join(f"{len(names)} at `{party}`" for party, names in found.items())
        raise DataError(
            f"Expected the same {what} in the same order at all parties, got {listed}, which "
            f"differ from number {first} on: give {remedy}."
        )


def _check_devices(name: str, values: Mapping[Any, Any]) -> None:
    if not values:
        raise DataError(f"Expected `{name}` to have at least one device, got none.")
    strange = [device for device in values if not isinstance(device, host.PYU)]
    if strange:
        raise DataError(f"Expected the keys of `{name}` to be PYUs, got {strange[0]!r}.")


def _federated(partitions: Mapping[Any, Any]) -> Any:
    return host.FedNdarray(partitions=dict(partitions), partition_way=host.PartitionWay.HORIZONTAL)
