"""The trained encoder for other programs: ONNX and TorchScript, each compared with torch."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchestra_strategy.encoder_file import ONNX_FILE, pack_encoder
from orchestra_strategy.errors import ModelError
from orchestra_strategy.exchange.weights import read_weights
from orchestra_strategy.files import PathLike, write_private
from orchestra_strategy.trained_encoder import TrainedEncoder

__all__ = ["export_encoder", "to_onnx", "to_torchscript"]

_log = logging.getLogger(__name__)

_SIDES = ((32, 32), (28, 36))  # of images: those that are traced, and others to compare on
_TOLERANCE = 1e-5  # of the largest feature, or of 1


class _Scaled(nn.Module):
    """The encoder from samples as a user has them to features (n, d).

    Args:
        trained: What it computes; images are (n, C, H, W) float32 in [0, 1], or in its value range.
    """

    def __init__(self, trained: TrainedEncoder) -> None:
        super().__init__()
        self.backbone = trained.model.backbone
        self._table, self._window = trained.of_tables, trained.value_range

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        if not self._table:
            if self._window is not None:
                low, high = self._window
                # In float64, as where data are read: a range far from 0 would lose its digits.
                x = ((x.double() - low) / (high - low)).clamp(0.0, 1.0).float()
            x = (x - 0.5) / 0.5
        features: Tensor = self.backbone(x)
        return features


def export_encoder(folder: PathLike, trained: TrainedEncoder) -> None:
    """Write an encoder: weights, what it is, and ONNX; for their owner alone.

    Where ONNX cannot express it, or ``onnx`` is not installed, that file is missing, and the log
    and ``encoder.json`` say why.

    Args:
        folder: Made if missing; files of an older encoder in it are replaced.
        trained: The encoder.

    Raises:
        ModelError: Its options cannot be written.
        OSError: A file cannot be written.
    """
    folder = Path(folder).expanduser()
    content = None
    try:
        content, apart = to_onnx(trained)
        remark = f"compared with torch, features differ by {apart:.1g} at most"
    except ModelError as error:
        remark = f"not written: {error}"
        _log.warning("No `%s` in `%s`. %s", ONNX_FILE, folder, error)
    files = pack_encoder(
        read_weights(trained.model),
        trained.options,
        trained.seed,
        trained.strategy,
        trained.rounds,
        trained.data_options,
        remark,
        trained.sample_shape,
    )
    (folder / ONNX_FILE).unlink(missing_ok=True)  # of another encoder, from here on
    for name, data in {**files, **({} if content is None else {ONNX_FILE: content})}.items():
        write_private(folder / name, data)


def to_onnx(trained: TrainedEncoder) -> tuple[bytes, float]:
    """Return the encoder as ONNX, and by how much its features differ from torch's at most.

    Input ``samples`` is float32: (n, C, height, width) for any of n, height and width, or (n, F);
    output ``features`` is (n, d) float32.

    Raises:
        ModelError: ONNX cannot express it, computes something else, or is not installed.
    """
    try:
        from onnx import load_from_string
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        raise ModelError(
            "Expected `onnx` to be installed, which writes ONNX and compares it with torch, got: "
            f"{error}; `pip install 'orchestra-strategy[onnx]'`."
        ) from error
    network, buffer, exporter = _Scaled(trained).eval(), io.BytesIO(), _untyped(torch.onnx)
    axes = {0: "n"} | ({2: "height", 3: "width"} if _takes_any_size(trained) else {})
    traced, other = _examples(trained)
    ours = (RuntimeError, exporter.errors.OnnxExporterError)
    # A network of its owner's raises whatever its layers do.
    expected: Any = ours if trained.any_size else Exception
    try:
        with _quietly():
            exporter.export(
                network,
                (traced,),
                buffer,
                input_names=["samples"],
                output_names=["features"],
                dynamic_axes={"samples": axes, "features": {0: "n"}},
                dynamo=False,
            )
        evaluator: Any = ReferenceEvaluator(load_from_string(buffer.getvalue()))
        (found,) = evaluator.run(None, {"samples": other.numpy()})
    except expected as error:
        raise ModelError(
            f"Expected an encoder that ONNX can express, got: {_first_line(error)}"
        ) from error
    apart = _apart(trained, other, found, "ONNX")
    return buffer.getvalue(), apart


def to_torchscript(trained: TrainedEncoder) -> bytes:
    """Return the encoder as TorchScript, with input and output as of :func:`to_onnx`.

    Raises:
        ModelError: It computes something else.
    """
    network, buffer, jit = _Scaled(trained).eval(), io.BytesIO(), _untyped(torch.jit)
    traced, other = _examples(trained)
    with _quietly():
        jit.save(jit.trace(network, traced, check_trace=False), buffer)
        again = jit.load(io.BytesIO(buffer.getvalue()))
        _apart(trained, other, again(other).numpy(), "TorchScript")
    return buffer.getvalue()


def _takes_any_size(trained: TrainedEncoder) -> bool:
    """Whether images may have any size: of networks that are not ours only the data's is sure."""
    return not trained.of_tables and (trained.any_size or trained.sample_shape is None)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


@contextmanager
def _quietly() -> Iterator[None]:
    """Compute without gradient, and without warnings of what the comparison looks at anyway."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", _untyped(torch.jit).TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _examples(trained: TrainedEncoder) -> Iterator[Tensor]:
    """Yield samples that are traced, and others to compare on; the caller's generator is left."""
    generator, width = torch.Generator().manual_seed(0), int(trained.options["in_channels"])
    low, high = trained.value_range or (0.0, 1.0)
    fixed = () if trained.sample_shape is None else trained.sample_shape[-2:]
    for rows, sides in enumerate(_SIDES if _takes_any_size(trained) else (fixed, fixed), start=2):
        if trained.of_tables:
            yield torch.randn(rows, width, generator=generator)
        else:
            yield low + (high - low) * torch.rand(rows, width, *sides, generator=generator)


def _apart(trained: TrainedEncoder, x: Tensor, found: Any, kind: str) -> float:
    """Return by how much features differ from the encoder's at most; refuse much."""
    wanted = trained.transform(x.numpy())
    apart = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else np.inf
    if not apart <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise ModelError(
            f"Expected {kind} to compute the encoder's features, got others, by up to {apart:.1g}."
        )
    return apart


def _untyped(module: Any) -> Any:
    """Return a module of torch whose functions have no types, or others than they take."""
    return module
