"""A backbone of your own: the first half of torchvision's ResNet-18, for grey images.

Two parties train it on scikit-learn's digits; the encoder is written, read again and used. With
``--backbone torchvision:NAME`` or ``timm:NAME`` a whole network is trained by its name instead, on
images four times as wide.

Run: ``python examples/own_backbone.py [--backbone timm:resnet10t]``.
"""

import argparse
import tempfile
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from torch import nn
from torchvision.models import resnet18

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import OrchestraModel, fed_ndarray, load_encoder, session


def half_a_resnet() -> OrchestraModel:
    """Return the network of every party; what it gives are 128 features of an image."""
    whole = resnet18(weights=None)
    backbone = nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1, bias=False),  # one channel, and no stride on 8x8 pixels
        whole.bn1,
        nn.ReLU(),
        whole.layer1,
        whole.layer2,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return OrchestraModel(backbone, feature_dim=128)


def main(argv: list[str] | None = None) -> None:
    """Train, print accuracies, and use what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--backbone", default="own", help="own, torchvision:NAME or timm:NAME")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--images", type=int, default=400, help="of both parties together")
    arguments = parser.parse_args(argv)
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    if arguments.backbone != "own":  # whole networks halve an image five times
        images = np.kron(images, np.ones((1, 4, 4), np.float32))
    train_x, test_x = images[: arguments.images], images[1400:]
    train_y, test_y = digits.target[: arguments.images], digits.target[1400:]
    model: Any = half_a_resnet
    if arguments.backbone != "own":
        model = {"backbone": arguments.backbone, "in_channels": 1}
    config = {
        "rounds": arguments.rounds,
        "model": model,
        "parameters": {
            **{"batch_size": 32, "local_epochs": 2, "lr": 0.01},
            **{"num_global_clusters": 32, "num_local_clusters": 16, "memory_size": 128},
        },
        "progress": False,
    }
    with session(["alice", "bob"], mode="debug") as devices:
        data = {device: train_x[i::2] for i, device in enumerate(devices)}
        trainer = FederatedOrchestraTrainer(config, devices)
        trainer.train(fed_ndarray(data))
        scores = trainer.evaluate(train_x, train_y, test_x, test_y, labels_per_class=(1, 5, 20))
        features = trainer.embed(test_x)
        with tempfile.TemporaryDirectory() as folder:
            trainer.export(folder)
            # No code is written: of a network of your own, the reader needs yours.
            own = {"model": half_a_resnet} if arguments.backbone == "own" else {}
            encoder = load_encoder(folder, **own)
    for name, row in scores.items():
        print(f"{name:10}", {probe: score.percent() for probe, score in row.items()})
    difference = float(np.abs(encoder.transform(test_x) - features).max())
    print(f"read again: features {features.shape}, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
