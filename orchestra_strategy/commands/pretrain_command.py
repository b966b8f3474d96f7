"""``orchestra-fl pretrain``: an encoder trained on images of a random process, as a start."""

import argparse
from pathlib import Path

from orchestra_strategy.commands.job_file import add_job, job_to_use
from orchestra_strategy.commands.own_modules import add_import
from orchestra_strategy.commands.parser import SentenceParser

__all__ = ["HELP", "add_arguments", "run"]

HELP = "train a job's model on images of a random process, as a start without anybody's data"


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    add_job(parser)
    add_import(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="what to write")
    parser.add_argument("--images", type=int, default=4000, metavar="N", help="how many (4000)")
    parser.add_argument("--size", type=int, default=32, metavar="S", help="side in pixels (32)")
    parser.add_argument("--epochs", type=int, default=10, metavar="E", help="passes (10)")
    parser.add_argument(
        "--strategy", default="fed_simclr", metavar="NAME", help="by whose objective (fed_simclr)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the images, train, and write the encoder."""
    config = job_to_use(arguments)
    if config is None:
        return 0
    from orchestra_strategy.encoder_export import export_encoder
    from orchestra_strategy.runtime.pretraining import pretrained

    def tell(epoch: int, loss: float) -> None:
        print(f"  epoch {epoch:>3}/{arguments.epochs}  loss {loss:.3f}", flush=True)

    trained = pretrained(
        config.model.model_dump(),
        arguments.strategy,
        arguments.images,
        arguments.size,
        arguments.epochs,
        config.seed,
        tell=tell,
    )
    export_encoder(arguments.out, trained)
    print(f"{arguments.out}: start from it by `model.weights={arguments.out}`")
    return 0
