"""The audited party's data, dealt to members and others."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from orchestra_strategy.audit.settings import AuditConfig
from orchestra_strategy.data.augmentation.view_set import to_unit_images
from orchestra_strategy.data.readers.loading import load_local
from orchestra_strategy.data.readers.local_data import LocalData
from orchestra_strategy.errors import DataError
from orchestra_strategy.rng import numpy_generator

__all__ = ["Split", "read_data", "split_of"]


@dataclass(frozen=True)
class Split:
    """Members, on which the encoder is trained, and others of the same party, which it never sees.

    Attributes:
        members: Pixels in [0, 1], shape (m, C, H, W).
        others: The same number of other samples.
        member_labels: (m,) int64, or None.
        other_labels: (m,) int64, or None.
    """

    members: Tensor
    others: Tensor
    member_labels: Tensor | None
    other_labels: Tensor | None


def read_data(path: str, **options: Any) -> LocalData:
    """Read a party's data, or scikit-learn's digits for the path ``digits``.

    Raises:
        DataError: There is nothing that can be read.
    """
    if path != "digits":
        return load_local(path, **options)
    digits = load_digits()
    return LocalData((digits.images / 16).astype(np.float32), digits.target.astype(np.int64))


def split_of(data: LocalData, config: AuditConfig) -> Split:
    """Deal the samples to members and others, by seed.

    Raises:
        DataError: They are no images with pixels in [0, 1], or too few.
    """
    if data.samples.ndim < 3:
        raise DataError(
            f"Expected images (N, H, W) or (N, C, H, W) to audit, got shape {data.samples.shape}: "
            "reconstructions of tables have no score; give images as a folder, .npz or .npy."
        )
    size = min(config.members, len(data) // 2)
    least = max(config.images * config.replies, 8)
    if size < least:
        raise DataError(
            f"Expected at least 2 * {least} samples (twice `images` * `replies`, and 16), got "
            f"{len(data)}; lower those, or give more data."
        )
    order = numpy_generator(config.seed, "party", 0, "split").permutation(len(data))[: 2 * size]
    samples = to_unit_images(torch.from_numpy(np.array(data.samples[order])))
    if not ((samples >= 0) & (samples <= 1)).all():
        raise DataError("Expected pixels to be uint8 or in [0, 1], got others; scale them first.")
    labels = None if data.labels is None else torch.from_numpy(np.array(data.labels[order]))
    return Split(
        samples[:size],
        samples[size:],
        None if labels is None else labels[:size],
        None if labels is None else labels[size:],
    )
