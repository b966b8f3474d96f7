"""Features of samples at their parties: computed there, and written there on request."""

import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from orchestra_strategy import host
from orchestra_strategy.data.arrays import as_samples
from orchestra_strategy.errors import DataError, OrchestraError, ParameterError
from orchestra_strategy.evaluation.features import extract_features
from orchestra_strategy.files import PathLike, write_private
from orchestra_strategy.threads import torch_threads

__all__ = ["embed_at_parties"]

_log = logging.getLogger(__name__)

_EMBED_SECONDS = 1800.0


def embed_at_parties(
    encoder: nn.Module,
    federated: Any,
    out: Mapping[Any, PathLike] | None = None,
    timeout_s: float = _EMBED_SECONDS,
) -> Any:
    """Let every party compute the features of its own samples.

    Args:
        encoder: What :func:`~orchestra_strategy.evaluation.extract_features` takes; every party
            gets a copy.
        federated: A FedNdarray of samples.
        out: PYU -> a ``.npy`` file on that party's disk, readable by its owner alone; None writes
            nothing.
        timeout_s: The longest wait for all parties, in local mode.

    Returns:
        A FedNdarray of features, (n, d) float32 at each party, in the order of its samples.

    Raises:
        DataError: A party's samples cannot be used, or its file not be written; all parties'
            problems in one message.
        HostError: Some party is not ready in time.
        ParameterError: ``out`` names other parties or files.
    """
    paths = _checked_paths(federated, out)
    found = {
        device: device(_embed, num_returns=2)(encoder, samples, paths.get(device))
        for device, samples in federated.partitions.items()
    }
    problems = host.reveal_within(
        {device.party: problem for device, (_, problem) in found.items()},
        timeout_s,
        "the features of all parties",
    )
    told = "; ".join(
        f"party `{party}`: {problem}" for party, problem in problems.items() if problem
    )
    if told:
        raise DataError(f"Expected samples that the encoder can embed, got {told}.")
    return host.FedNdarray(
        partitions={device: features for device, (features, _) in found.items()},
        partition_way=host.PartitionWay.HORIZONTAL,
    )


def _checked_paths(federated: Any, out: Mapping[Any, PathLike] | None) -> dict[Any, str]:
    paths = {device: os.fspath(path) for device, path in (out or {}).items()}
    strange = [d for d in paths if d not in federated.partitions]
    if strange:
        raise ParameterError(
            "Expected `out` to have parties with samples, "
            f"{sorted(d.party for d in federated.partitions)}, got {strange[0]!r}."
        )
    for device, path in paths.items():
        if not path.endswith(".npy"):
            raise ParameterError(
                f"Expected `out` of party `{device.party}` to be a .npy file, got {path!r}."
            )
    return paths


def _embed(
    encoder: nn.Module, samples: npt.NDArray[Any], path: str | None
) -> tuple[npt.NDArray[np.float32] | None, str]:
    """Return a party's features, which stay there, and what went wrong, which is revealed."""
    try:
        with torch_threads(1):
            # Checked first by what tells of no values, since the message leaves the party.
            features = extract_features(encoder, as_samples(samples))
        if path is not None:
            buffer = io.BytesIO()
            np.save(buffer, features)
            write_private(Path(path).expanduser(), buffer.getvalue())
    except OrchestraError as error:
        return None, str(error).rstrip(".")
    except OSError as error:
        return None, f"`{path}` cannot be written: {error.strerror}"
    except Exception as error:  # raised here, it would leave the others waiting in cluster mode
        _log.exception("Embedding failed.")
        return None, f"{type(error).__name__} on samples of shape {np.shape(samples)[1:]}"
    return features, ""
