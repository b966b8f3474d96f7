"""The audited party's data, dealt to members and others."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from orchestra_strategy.algorithms.model_input import to_unit_images
from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.data.readers.loading import load_local
from orchestra_strategy.data.readers.local_data import LocalData
from orchestra_strategy.errors import DataError, ParameterError
from orchestra_strategy.rng import numpy_generator

__all__ = ["AuditedTable", "Split", "read_data", "split_of"]


@dataclass(frozen=True)
class AuditedTable(LocalData):
    """A table of which it is known how many units of the file one of its scaled columns stands for.

    Attributes:
        units: For each column the file's units per unit of ``samples``; 1 where it is not scaled.
    """

    units: tuple[float, ...] = ()


@dataclass(frozen=True)
class Split:
    """Members, on which the encoder is trained, and others of the same party, which it never sees.

    Attributes:
        members: Pixels in [0, 1], shape (m, C, H, W), or rows of a table (m, F).
        others: The same number of other samples.
        member_labels: (m,) int64, or None.
        other_labels: (m,) int64, or None.
        columns: Of a table, the names of its columns.
        units: Of a table, the file's units per unit of each column, shape (F,).
        one_hot: Of a table, which columns hold one category together.
    """

    members: Tensor
    others: Tensor
    member_labels: Tensor | None
    other_labels: Tensor | None
    columns: tuple[str, ...] = ()
    units: Tensor | None = None
    one_hot: tuple[tuple[int, ...], ...] = ()

    def sides(self) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
        """Return members and others by name."""
        return ("members", self.members), ("others", self.others)


def read_data(path: str, **options: Any) -> LocalData:
    """Read a party's data, or scikit-learn's digits for the path ``digits``.

    Args:
        path: What :func:`~orchestra_strategy.data.readers.loading.load_local` takes.
        **options: Its options.

    Raises:
        ParameterError: The kind of data has no such option, or it is out of its range.
        DataError: There is nothing that can be read.
    """
    if path == "digits":
        if options:
            raise ParameterError(
                f"Expected no reading options for scikit-learn's digits, got `{next(iter(options))}"
                "`; give `--data` of your own."
            )
        digits = load_digits()
        return LocalData((digits.images / 16).astype(np.float32), digits.target.astype(np.int64))
    data = load_local(path, **options)
    if data.samples.ndim != 2 or not path.lower().endswith((".csv", ".csv.gz")):
        return data
    return _with_units(data, path, options)


def _with_units(data: LocalData, path: str, options: Mapping[str, Any]) -> AuditedTable:
    """Read a table again as it is in the file, to know what its scaled columns stand for."""
    raw = load_local(path, **{**options, "standardise": "none"}).samples.std(axis=0)
    own = data.samples.std(axis=0)
    units = np.where((own > 0) & (raw > 0), raw / np.where(own > 0, own, 1), 1.0)
    known = {field.name: getattr(data, field.name) for field in fields(LocalData)}
    return AuditedTable(**known, units=tuple(units.tolist()))


def split_of(data: LocalData, config: AuditConfig) -> Split:
    """Deal the samples to members and others, by seed.

    Raises:
        DataError: They are too few, or images with pixels outside of [0, 1].
    """
    size = min(config.members, len(data) // 2)
    least = max(config.images * config.replies, 8)
    if size < least:
        raise DataError(
            f"Expected at least 2 * {least} samples (twice `images` * `replies`, and 16), got "
            f"{len(data)}; lower those, or give more data."
        )
    order = numpy_generator(config.seed, "party", 0, "split").permutation(len(data))[: 2 * size]
    samples = torch.from_numpy(np.array(data.samples[order]))
    samples = samples.float() if samples.ndim == 2 else _checked_images(samples)
    labels = None if data.labels is None else torch.from_numpy(np.array(data.labels[order]))
    width = samples.shape[1]
    names = data.feature_names or tuple(f"column {i + 1}" for i in range(width))
    units = data.units if isinstance(data, AuditedTable) else [1.0] * width
    table = samples.ndim == 2
    return Split(
        samples[:size],
        samples[size:],
        None if labels is None else labels[:size],
        None if labels is None else labels[size:],
        columns=tuple(names) if table else (),
        units=torch.tensor(units, dtype=torch.float32) if table else None,
        one_hot=data.one_hot if table else (),
    )


def _checked_images(samples: Tensor) -> Tensor:
    images = to_unit_images(samples)
    if not ((images >= 0) & (images <= 1)).all():
        raise DataError(
            "Expected pixels to be uint8 or in [0, 1], got others; scale them by `value_range` "
            "(`--data-option value_range=[0,4095]`)."
        )
    return images
