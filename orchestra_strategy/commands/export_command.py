"""``orchestra-fl export``: a trained encoder for programs without this package."""

import argparse
import io
from pathlib import Path

from orchestra_strategy.commands.data_arguments import add_encoder, writable
from orchestra_strategy.commands.parser import SentenceParser

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


def run(arguments: argparse.Namespace) -> int:
    """Write the backbone; what computes is compared with torch."""
    import torch

    from orchestra_strategy.encoder_export import to_onnx, to_torchscript
    from orchestra_strategy.encoder_file import load_encoder
    from orchestra_strategy.files import write_private

    out = writable(arguments.out, "--out", _FORMATS[arguments.format])
    trained = load_encoder(arguments.encoder)
    if arguments.format == "weights":
        buffer = io.BytesIO()
        torch.save(trained.model.backbone.state_dict(), buffer)
        write_private(out, buffer.getvalue())
        print(f"{out}: state_dict of the backbone {trained.options['backbone']}")
        return 0
    onnx = arguments.format == "onnx"
    write_private(out, to_onnx(trained)[0] if onnx else to_torchscript(trained))
    width = trained.options["in_channels"]
    taken = f"float32 images (n, {width}, height, width) in {list(trained.value_range or (0, 1))}"
    taken = f"a float32 table (n, {width})" if trained.of_tables else taken
    print(f"{out}: {taken} -> features (n, {trained.feature_dim})")
    return 0
