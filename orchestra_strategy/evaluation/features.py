"""Features of a frozen encoder, for every sample and in order.

The published evaluation drops the last batch of each loader and so measures another test set for
each batch size; here all rows count. Nothing about the model is different afterwards.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from orchestra_strategy.algorithms.model import network_of
from orchestra_strategy.algorithms.model_input import refuse_other_pixels, to_model_input
from orchestra_strategy.errors import DataError, ModelError, ParameterError
from orchestra_strategy.evaluation.array_checks import Array
from orchestra_strategy.global_randomness import drawing_from
from orchestra_strategy.rng import SeededStreams

__all__ = ["extract_features"]


def extract_features(
    model: nn.Module, x: Array, batch_size: int = 512, device: "torch.device | str" = "cpu"
) -> npt.NDArray[np.float32]:
    """Run the model on all rows of ``x`` in evaluation mode, without gradient.

    Args:
        model: Maps a normalised batch (B, ...) to features (B, d), or an
            :class:`~orchestra_strategy.algorithms.model.OrchestraModel`, which normalises by
            itself. It is moved to ``device`` and back again; its training modes, weights and
            BatchNorm statistics are what they were.
        x: Images (n, H, W) or (n, C, H, W), uint8 or floating in [0, 1], or a table (n, F); see
            :func:`~orchestra_strategy.data.to_model_input` for how they are normalised.
        batch_size: Rows at a time. In evaluation mode a row's features do not depend on the others.
        device: Where the model runs.

    Returns:
        Features, shape (n, d), float32, row i for row i of ``x``.

    Raises:
        DataError: ``x`` is empty, not numeric, has NaN or infinite values, or pixels that are
            neither uint8 nor in [0, 1].
        ModelError: The output is not (B, d), or not finite (a diverged model), or the model is
            spread over several devices.
        ParameterError: ``batch_size`` is below 1.

    >>> extract_features(nn.Identity(), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), 2).tolist()
    [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    """
    if batch_size < 1:
        raise ParameterError(f"Expected `batch_size` to be at least 1, got {batch_size}.")
    if x.ndim < 2 or 0 in x.shape:
        raise DataError(
            "Expected `x` to be non-empty images (n, H, W), (n, C, H, W) or a table (n, F), got "
            f"shape {tuple(x.shape)}."
        )
    parts, network = [], network_of(model)
    # no_grad and not inference_mode: a tensor that a module caches here must still be usable in
    # training afterwards, and inference tensors are not.
    with _evaluation_mode(model, torch.device(device)), torch.no_grad(), _same_draws(device):
        for start in range(0, len(x), batch_size):
            batch = to_model_input(_rows(x, start, start + batch_size).to(device))
            parts.append(_check_output(network(batch), len(batch), start))
    return np.concatenate(parts)


def _same_draws(device: "torch.device | str") -> AbstractContextManager[None]:
    """Let what a network draws in evaluation mode, too, be the same each time."""
    return drawing_from(SeededStreams(0), "features", 0, "inside the network", device)


@contextmanager
def _evaluation_mode(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put the model into evaluation mode on ``device``; undo both, also after an error."""
    homes = {t.device for t in chain(model.parameters(), model.buffers())}
    if len(homes) > 1:
        raise ModelError(
            "Expected `model` to have all its weights on one device, got "
            f"{', '.join(sorted(map(str, homes)))}. Move it with `model.to(device)` first."
        )
    # One flag per submodule: `model.train()` would unfreeze parts that the caller froze.
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        model.to(device)
        yield
    finally:
        for home in homes:
            model.to(home)
        for module, training in modes:
            module.training = training


def _rows(x: Array, start: int, stop: int) -> Tensor:
    """Return rows start..stop as a tensor of their own, refused where they cannot be used."""
    if isinstance(x, Tensor):
        rows = x[start:stop]
    else:
        try:
            # Always a copy: arrays that come out of Ray's object store are read-only, and torch
            # would share that memory.
            # torch knows no arithmetic of unsigned numbers but uint8.
            dtype = np.float32 if x.dtype.kind == "u" and x.dtype != np.uint8 else None
            rows = torch.from_numpy(np.array(x[start:stop], dtype, order="C"))
        except (TypeError, ValueError) as error:
            raise DataError(f"Expected `x` to be numeric, got dtype {x.dtype}: {error}") from error
    bad = (~torch.isfinite(rows)).flatten(1).any(dim=1).nonzero()
    if len(bad):
        raise DataError(
            "Expected `x` to be finite, got NaN or infinite values in row "
            f"{start + int(bad[0])}. Impute or drop such rows first."
        )
    refuse_other_pixels(rows)
    return rows


def _check_output(output: object, rows: int, start: int) -> npt.NDArray[np.float32]:
    """Return the model's output as a float32 array if it is (rows, d) and finite."""
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != rows:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"Expected `model(x)` to return features (B, d) with B = {rows}, got {got}. Give the "
            "backbone, or a module whose forward returns the features."
        )
    features: npt.NDArray[np.float32] = output.float().cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise ModelError(
            "Expected `model(x)` to be finite, got NaN or infinite features for row "
            f"{start + int(bad[0])}. The training has diverged: try a lower learning rate."
        )
    return features
