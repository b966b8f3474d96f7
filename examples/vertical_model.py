"""Features for SecretFlow's vertical models: an encoder prepares one party's part.

Two hospitals, alice and carol, have images (scikit-learn's digits) and no labels; they train an
encoder together. A third one, bob, knows alice's patients as well: one number for each, and whether
the digit is odd. alice's images are worth more to a vertical model as features: SecretFlow's split
learning (SLModel) is trained on alice's columns and bob's, once with features, once with pixels and
once without alice. Labels stay at bob; what leaves alice is what split learning sends.

Run: ``python examples/vertical_model.py``.
"""

import argparse
from typing import Any

import numpy as np
import torch
from secretflow.device import reveal
from secretflow_fl.ml.nn import SLModel
from secretflow_fl.ml.nn.core.torch import BaseModule, TorchModel, optim_wrapper
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import nn

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import fed_ndarray, host, session
from orchestra_strategy.evaluation import extract_features

Columns = dict[Any, Any]  # PYU -> the party's columns (n, d)


class Half(BaseModule):  # type: ignore[misc]
    """A party's part of the vertical model."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what leaves the party, (B, 8)."""
        return torch.tanh(self.layers(x))

    def output_num(self) -> int:
        """Return the number of tensors that leave."""
        return 1


class Joined(BaseModule):  # type: ignore[misc]
    """The part behind both, at the party with the labels."""

    def __init__(self, parties: int) -> None:
        super().__init__()
        self.layer = nn.Linear(8 * parties, 1)

    def forward(self, x: Any) -> torch.Tensor:
        """Return logits (B, 1)."""
        logits: torch.Tensor = self.layer(torch.cat(x, dim=1) if isinstance(x, list) else x)
        return logits


def vertical_auc(train: Columns, labels: Any, test: Columns, test_labels: Any, bob: Any) -> float:
    """Train SecretFlow's split learning, and return the AUC on rows that it has not seen."""

    def part(network: Any, **arguments: int) -> Any:
        return TorchModel(
            model_fn=network,
            loss_fn=nn.BCEWithLogitsLoss,
            optim_fn=optim_wrapper(torch.optim.Adam, lr=0.02),
            **arguments,
        )

    model = SLModel(
        base_model_dict={d: part(Half, width=columns.shape[1]) for d, columns in train.items()},
        device_y=bob,
        model_fuse=part(Joined, parties=len(train)),
        random_seed=0,
        backend="torch",
    )
    x, y = vertical(train), vertical({bob: labels.astype(np.float32)[:, None]})
    model.fit(x, y, epochs=15, batch_size=32, verbose=0)
    answers = torch.cat([batch.detach() for batch in reveal(model.predict(vertical(test), 256))])
    return float(roc_auc_score(test_labels, answers.ravel().numpy()))


def vertical(columns: Columns) -> Any:
    """Return a FedNdarray of the same rows at every party."""
    parts = {device: device(lambda x: x)(array) for device, array in columns.items()}
    return host.FedNdarray(parts, host.PartitionWay.VERTICAL)


def main(argv: list[str] | None = None) -> None:
    """Train both, and print the AUC of the vertical model by what alice brings to it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--labels", type=int, default=60, help="rows that bob has labels for")
    parser.add_argument("--images", type=int, default=1400, help="of alice and carol together")
    arguments = parser.parse_args(argv)
    digits, rng = load_digits(), np.random.default_rng(0)
    images, odd = (digits.images / 16).astype(np.float32), digits.target % 2
    number = (odd[:, None] + rng.normal(0, 2, (len(odd), 1))).astype(np.float32)
    rows, asked = np.arange(arguments.labels), np.arange(1400, len(images))
    config = {
        "rounds": arguments.rounds,
        "model": {"backbone": "conv4", "in_channels": 1},
        "parameters": {
            **{"batch_size": 32, "local_epochs": 2, "lr": 0.01},
            **{"num_global_clusters": 32, "num_local_clusters": 16, "memory_size": 128},
        },
        "progress": False,
    }
    with session(["alice", "bob", "carol"], mode="debug") as (alice, bob, carol):
        trainer = FederatedOrchestraTrainer(config, [alice, carol])
        parts = np.array_split(images[: arguments.images], 2)
        trainer.train(fed_ndarray({alice: parts[0], carol: parts[1]}))
        brought = {
            "features": trainer.embed(images),
            "untrained": extract_features(trainer.untrained_encoder(), images),  # the control
            "pixels": images.reshape(len(images), -1),
        }
        for name, columns in {**brought, "nothing": None}.items():
            table = {bob: number} if columns is None else {alice: columns, bob: number}
            train, test = ({d: t[part] for d, t in table.items()} for part in (rows, asked))
            auc = vertical_auc(train, odd[rows], test, odd[asked], bob)
            print(f"alice brings {name:9} AUC {100 * auc:.1f} %")


if __name__ == "__main__":
    main()
