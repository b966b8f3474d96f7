"""``orchestra-fl export``: a trained encoder for programs without this package."""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestra_strategy.commands.data_arguments import add_encoder, writable
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.errors import ModelError, ParameterError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "write a trained encoder as TorchScript, ONNX, or plain weights"

_FORMATS = {"torchscript": (".pt",), "onnx": (".onnx",), "weights": (".pt", ".pth")}


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    add_encoder(parser)
    parser.add_argument(
        "--format",
        choices=list(_FORMATS),
        default="torchscript",
        help="weights are the backbone's state_dict (torchscript)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="what to write")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the images, for torchscript and onnx; not of a table",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the backbone; what was written is loaded again and compared, but for ONNX."""
    import torch

    from orchestra_strategy.encoder_file import read_encoder
    from orchestra_strategy.files import write_private

    out = writable(arguments.out, "--out", _FORMATS[arguments.format])
    trained = read_encoder(arguments.encoder)
    if arguments.format == "weights":
        buffer = io.BytesIO()
        torch.save(trained.model.backbone.state_dict(), buffer)
        write_private(out, buffer.getvalue())
        print(f"{out}: state_dict of the backbone {trained.options['backbone']}")
        return 0
    shape = _shape(trained.options, arguments.size)
    network = _with_scaling(trained)
    content = (
        _script(network, shape) if arguments.format == "torchscript" else _onnx(network, shape)
    )
    write_private(out, content)
    kind = "a table" if len(shape) == 1 else "float32 images in [0, 1]"
    sides = ", ".join(map(str, shape))
    print(f"{out}: {kind} of shape (n, {sides}) -> features (n, {trained.model.backbone.out_dim})")
    return 0


def _shape(options: dict[str, Any], size: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape of one sample."""
    table = options["backbone"] == "mlp"
    if table != (size is None):
        rule = "no `--size` for a table" if table else "`--size HEIGHT WIDTH` of the images"
        raise ParameterError(f"Expected {rule}, got {size}.")
    if size is not None and min(size) < 1:
        raise ParameterError(f"Expected `--size` to be two numbers from 1 on, got {list(size)}.")
    return (options["in_channels"], *(size or ()))


def _with_scaling(trained: Any) -> Any:
    """Return the backbone with the scaling of pixels that it was trained with before it."""
    from torch import Tensor, nn

    backbone, table = trained.model.backbone, trained.options["backbone"] == "mlp"

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, x: Tensor) -> Tensor:
            features: Tensor = self.backbone(x if table else (x - 0.5) / 0.5)
            return features

    return Encoder().eval()


def _script(network: Any, shape: tuple[int, ...]) -> bytes:
    import torch

    buffer, jit = io.BytesIO(), _untyped(torch.jit)
    with torch.no_grad():
        jit.save(jit.trace(network, torch.rand(2, *shape)), buffer)
        again = jit.load(io.BytesIO(buffer.getvalue()))
        x = torch.rand(5, *shape)
        if not torch.allclose(again(x), network(x), atol=1e-5):
            raise ModelError("Expected the exported encoder to compute the same, got other values.")
    return buffer.getvalue()


def _onnx(network: Any, shape: tuple[int, ...]) -> bytes:
    import torch

    buffer, onnx = io.BytesIO(), _untyped(torch.onnx)
    try:
        onnx.export(
            network,
            (torch.rand(2, *shape),),
            buffer,
            input_names=["samples"],
            output_names=["features"],
            dynamic_axes={"samples": {0: "n"}, "features": {0: "n"}},
            dynamo=False,
        )
    except (RuntimeError, onnx.errors.OnnxExporterError) as error:
        raise ModelError(
            f"Expected an encoder that ONNX can express for images of size {shape[1:]}, got: "
            f"{str(error).splitlines()[0]} Use `--format torchscript`, or another `--size`."
        ) from error
    return buffer.getvalue()


def _untyped(module: Any) -> Any:
    """Return a module of torch whose functions have no types, or others than they take."""
    return module
