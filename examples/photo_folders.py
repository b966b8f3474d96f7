"""Photos in folders: three parties, each with JPEG files of its own, one sub-folder per class.

The photos are drawn by this program: a disc, a square, a cross or stripes, in random colours, at a
random place, on a dark background. With ``--data FOLDER`` your own are taken instead:
``FOLDER/alice``, ``FOLDER/bob``, ``FOLDER/carol`` and, with labels, ``FOLDER/labelled`` and
``FOLDER/test``. The parties' labels are not used.

Run: ``python examples/photo_folders.py``.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import session
from orchestra_strategy.data import load_local
from orchestra_strategy.evaluation import results_table

PARTIES = ["alice", "bob", "carol"]
SHAPES = ["cross", "disc", "square", "stripes"]
READ = {"mode": "RGB", "image_size": 24}


def draw(shape: str, rng: np.random.Generator) -> Image.Image:
    """Return a photo of 48 x 40 pixels."""
    noise = rng.normal(0, 12, (40, 48, 3)) + rng.integers(20, 100, 3)
    photo = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(photo)
    colour = tuple(int(c) for c in rng.integers(140, 256, 3))
    size = int(rng.integers(18, 32))
    x, y = int(rng.integers(2, 46 - size)), int(rng.integers(2, 38 - size))
    if shape == "disc":
        pen.ellipse((x, y, x + size, y + size), fill=colour)
    elif shape == "square":
        pen.rectangle((x, y, x + size, y + size), fill=colour)
    elif shape == "cross":
        pen.line((x, y, x + size, y + size), fill=colour, width=4)
        pen.line((x, y + size, x + size, y), fill=colour, width=4)
    else:
        for step in range(0, size + 1, 6):
            pen.line((x, y + step, x + size, y + step), fill=colour, width=2)
    return photo


def write_photos(folder: Path, per_class: int, rng: np.random.Generator) -> None:
    """Write a sub-folder per class."""
    for shape in SHAPES:
        (folder / shape).mkdir(parents=True)
        for i in range(per_class):
            draw(shape, rng).save(folder / shape / f"{i:03}.jpg", quality=90)


def main(argv: list[str] | None = None) -> None:
    """Train, and print accuracies beside the controls."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="your own folder; drawn by default")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--per-class", type=int, default=48, help="photos that are drawn")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.data or Path(temporary)
        if arguments.data is None:
            rng = np.random.default_rng(0)
            for name in [*PARTIES, "labelled", "test"]:
                write_photos(folder / name, arguments.per_class, rng)
        config = {
            "rounds": arguments.rounds,
            "model": {"backbone": "conv4", "in_channels": 3},
            "parameters": {
                **{"batch_size": 32, "local_epochs": 2, "lr": 0.01, "views": "colour"},
                **{"num_global_clusters": 16, "num_local_clusters": 8, "memory_size": 128},
                "deg_length": 4.0,  # as published, the rotation loss would diverge here
            },
            "data_options": READ,
            "progress": False,
        }
        with session(PARTIES, mode="debug") as devices:
            trainer = FederatedOrchestraTrainer(config, devices)
            trainer.train({device: folder / device.party for device in devices})
            pool, test = (load_local(folder / name, **READ) for name in ("labelled", "test"))
            scores = trainer.evaluate(
                pool.samples, pool.labels, test.samples, test.labels, labels_per_class=(1, 5, 20)
            )
    Console(width=100).print(results_table(scores))


if __name__ == "__main__":
    main()
