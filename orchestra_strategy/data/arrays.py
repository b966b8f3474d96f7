"""Checks of a party's array, and of parties beside each other without showing their data.

:func:`as_samples` is the gate on the party's own machine. :func:`describe_samples` reduces an array
to a handful of plain values that may travel to the driver, where :func:`check_parties` compares the
parties before any training starts.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sized
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestra_strategy.data.option_checks import as_count
from orchestra_strategy.data.pixels import PIXELS_REMEDY, blocks, in_unit_range
from orchestra_strategy.errors import DataError

__all__ = ["PartyReport", "as_samples", "check_parties", "describe_samples"]

_KINDS = "iuf"  # numpy's codes for signed and unsigned integers and floats
_RANKS = {2: "a table (N, F)", 3: "grey images (N, H, W)", 4: "images (N, C, H, W)"}


def as_samples(x: Any, mend: bool = False) -> NDArray[Any]:
    """Check a party's array and return it in one of two dtypes, uint8 or float32.

    uint8 stays as it is. Everything else becomes float32: float64 keeps about 7 digits, and whole
    numbers are exact up to 2**24. Values are not scaled: pixels must be uint8 or in [0, 1], see
    :func:`~orchestra_strategy.data.pixels.to_unit_range`.

    Args:
        x: (N, F), (N, H, W) or (N, C, H, W) array of integers or floats, N >= 1.
        mend: Whether values that cannot be used are replaced, not refused: those that are not
            finite by 0, pixels outside of [0, 1] by the nearer end. Under differential privacy,
            where a refusal would tell of a sample; pixels of a dtype that has no place for [0, 1]
            are refused all the same.

    Returns:
        A read-only C-contiguous array of the same shape: a view of ``x`` where its dtype and layout
        allow, else a copy. ``x`` itself is never changed.

    Raises:
        DataError: If ``x`` is no such array, is empty, or, without ``mend``, has values not finite
            in float32 or pixels that are neither uint8 nor in [0, 1].

    >>> as_samples(np.eye(2)).dtype
    dtype('float32')
    """
    if not isinstance(x, np.ndarray):
        raise DataError(
            f"Expected `x` to be a numpy array, got {type(x).__name__}; use numpy.asarray(x)."
        )
    if x.dtype.kind not in _KINDS:
        raise DataError(
            f"Expected `x` to hold integers or floats, got dtype {x.dtype}; use "
            "x.astype('float32')."
        )
    if x.ndim not in _RANKS:
        raise DataError(f"Expected `x` to be {', '.join(_RANKS.values())}, got shape {x.shape}.")
    if x.size == 0:
        raise DataError(f"Expected `x` to have at least one sample, got shape {x.shape}.")
    # An overflow to inf is found, and reported with its index, by the check below.
    with np.errstate(over="ignore"):
        samples = np.ascontiguousarray(x, dtype=np.uint8 if x.dtype == np.uint8 else np.float32)
    if mend:
        samples = _mended(samples)
    bad, first = _not_finite(samples)
    if bad:
        raise DataError(
            f"Expected `x` to be finite, got {bad} NaN or infinite values of "
            f"{x.size} (in float32), the first at index {first}; remove or fill them."
        )
    if not in_unit_range(x, values=not mend):
        raise DataError(
            f"Expected the pixels in `x` to be uint8 or in [0, 1], got {x.dtype} outside of it; "
            f"{PIXELS_REMEDY}"
        )
    view = samples.view()
    view.flags.writeable = False
    return view


def _mended(samples: NDArray[Any]) -> NDArray[Any]:
    """Replace values that cannot be used; each sample by itself."""
    if samples.dtype == np.uint8:
        return samples
    mended = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return mended if samples.ndim == 2 else np.clip(mended, 0.0, 1.0, out=mended)


@dataclass(frozen=True)
class PartyReport:
    """What the driver may know of a party's data.

    Attributes:
        num_samples: N.
        sample_shape: Shape of one sample: (F,), (H, W) or (C, H, W).
        dtype: Name of the dtype before conversion.
        finite: Whether all values are finite.
        num_not_finite: How many are not; all, where the dtype is no number.
        unit_range: Whether pixels are uint8 or in [0, 1]; True for tables, which have no scale.
        num_labels: Number of labels, None without labels.
        labels: Why labels that are needed cannot be used; empty where they can, or none are needed.
    """

    num_samples: int
    sample_shape: tuple[int, ...]
    dtype: str
    finite: bool
    num_not_finite: int
    unit_range: bool
    num_labels: int | None
    labels: str = ""


def describe_samples(
    x: NDArray[Any], y: Sized | None = None, values: bool = True
) -> dict[str, Any]:
    """Return the fields of :class:`PartyReport` as plain Python values.

    Faults of the data are reported, not raised, so that the driver hears of all parties at once.

    Args:
        x: (N, ...) array of numbers.
        y: (N,) labels, where the party has them.
        values: Whether values are looked at; else all that ``mend`` of :func:`as_samples` can
            replace count as usable.

    Raises:
        DataError: If ``x`` is no numpy array with a first axis.

    >>> describe_samples(np.zeros((3, 8, 8)), y=[0, 1, 2])["sample_shape"]
    (8, 8)
    """
    if not isinstance(x, np.ndarray) or x.ndim == 0:
        got = "shape ()" if isinstance(x, np.ndarray) else type(x).__name__
        raise DataError(f"Expected `x` to be a numpy array (N, ...), got {got}.")
    numeric = x.dtype.kind in _KINDS
    num_not_finite = 0 if numeric else x.size
    if values and numeric:
        num_not_finite = _not_finite(x)[0]
    report = PartyReport(
        num_samples=x.shape[0],
        sample_shape=x.shape[1:],
        dtype=str(x.dtype),
        finite=num_not_finite == 0,
        num_not_finite=num_not_finite,
        unit_range=not numeric or in_unit_range(x, values),
        num_labels=None if y is None else len(y),
    )
    return asdict(report)


def _not_finite(x: NDArray[Any]) -> tuple[int, tuple[int, ...] | None]:
    """Return how many values are NaN or infinite, and the index of the first."""
    if x.dtype.kind != "f":
        return 0, None
    count, first = 0, None
    for start, block in blocks(x):
        bad = ~np.isfinite(block)
        if bad.any():
            count += int(bad.sum())
            row, *rest = (int(i) for i in np.argwhere(bad)[0])
            first = first or (start + row, *rest)
    return count, first


def check_parties(reports: Mapping[str, Mapping[str, Any]], k_min: int) -> None:
    """Refuse parties that cannot train together, naming each and everything that is wrong.

    Args:
        reports: Per party's name, what :func:`describe_samples` returned there.
        k_min: The smallest number of samples whose mean may leave a party.

    Raises:
        ParameterError: If ``k_min`` is no integer >= 1.
        DataError: If there is no party, sample shapes differ between parties, or a party has a
            wrong number of labels, values that are not finite, pixels that are neither uint8 nor in
            [0, 1], or too few samples.
    """
    as_count("k_min", k_min)
    known = sorted(field.name for field in fields(PartyReport))
    for party, report in reports.items():
        if sorted(report) != known:
            raise DataError(
                f"Expected the report of party `{party}` to have the keys {known}, got "
                f"{sorted(report)}; use describe_samples."
            )
    parties = {party: PartyReport(**report) for party, report in reports.items()}
    problems = [p for name, report in parties.items() for p in _own_problems(name, report, k_min)]
    problems += _differences("sample shape", parties, _model_shape)
    if not parties:
        problems.append("no party has data")
    if problems:
        dark = not all(report.unit_range for report in parties.values())
        raise DataError(
            f"Expected `reports` of parties that can train together, got: {'; '.join(problems)}"
            + (f". Of pixels: {PIXELS_REMEDY}." if dark else "")
        )


def _own_problems(name: str, report: PartyReport, k_min: int) -> list[str]:
    problems = []
    if report.num_samples < k_min:
        problems.append(f"party `{name}` has {report.num_samples} samples, below `k_min`={k_min}")
    if report.num_labels is not None and report.num_labels != report.num_samples:
        problems.append(
            f"party `{name}` has {report.num_labels} labels for {report.num_samples} samples"
        )
    elif report.labels:
        problems.append(f"party `{name}`: {report.labels}")
    if np.dtype(report.dtype).kind not in _KINDS:
        problems.append(f"party `{name}` has dtype {report.dtype}, no integers or floats")
    elif not report.finite:
        problems.append(f"party `{name}` has {report.num_not_finite} NaN or infinite values")
    elif not report.unit_range:
        problems.append(
            f"party `{name}` has pixels of {report.dtype} that are neither uint8 nor in [0, 1]"
        )
    return problems


def _model_shape(report: PartyReport) -> tuple[int, ...]:
    """Return the sample's shape at the model: (H, W) and (1, H, W) are the same grey image."""
    shape = tuple(report.sample_shape)
    return (1, *shape) if len(shape) == 2 else shape


def _differences(
    what: str, parties: Mapping[str, PartyReport], value: Callable[[PartyReport], object]
) -> list[str]:
    """Return one sentence that names who has what, if not all parties have the same."""
    holders: defaultdict[object, list[str]] = defaultdict(list)
    for name, report in parties.items():
        holders[value(report)].append(f"`{name}`")
    if len(holders) < 2:
        return []
    listed = ", ".join(f"{found} at {' '.join(names)}" for found, names in holders.items())
    return [f"{what} differs: {listed}"]
