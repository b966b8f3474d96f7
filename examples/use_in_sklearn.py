"""Export an encoder, and use it in scikit-learn and ONNX: no SecretFlow, no party, no data.

Three parties train on digits without labels. What they export is then a step of a scikit-learn
pipeline, beside the same pipeline on raw pixels, with a grid search over the classifier; and
the ONNX file gives the same features.

Run: ``python examples/use_in_sklearn.py``.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import fed_ndarray, load_encoder, session
from orchestra_strategy.evaluation import extract_features


def train_and_export(images: npt.NDArray[np.float32], rounds: int, folder: Path) -> None:
    """Train three parties on a third of the images each, and write the encoder."""
    config = {
        "rounds": rounds,
        "model": {"backbone": "conv4", "in_channels": 1},
        "parameters": {
            **{"batch_size": 32, "local_epochs": 2, "lr": 0.01},
            **{"num_global_clusters": 32, "num_local_clusters": 16, "memory_size": 128},
        },
        "progress": False,
    }
    with session(["alice", "bob", "carol"], mode="debug") as devices:
        trainer = FederatedOrchestraTrainer(config, devices)
        trainer.train(fed_ndarray({d: images[i::3] for i, d in enumerate(devices)}))
        trainer.export(folder)


def main(argv: list[str] | None = None) -> None:
    """Train, export, and print accuracies with 50 labels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--labels", type=int, default=50)
    parser.add_argument("--images", type=int, default=1400, help="of all parties together")
    arguments = parser.parse_args(argv)
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    labelled_x, labelled_y = images[: arguments.labels], digits.target[: arguments.labels]
    test_x, test_y = images[1400:], digits.target[1400:]
    with tempfile.TemporaryDirectory() as folder:
        train_and_export(images[: arguments.images], arguments.rounds, Path(folder))
        encoder = load_encoder(folder)
        network = ReferenceEvaluator(onnx.load(Path(folder) / "encoder.onnx"))

    raw = FunctionTransformer(lambda x: x.reshape(len(x), -1))
    before = FunctionTransformer(partial(extract_features, encoder.untrained()))
    for name, first in {"encoder": encoder, "untrained": before, "raw pixels": raw}.items():
        pipeline = make_pipeline(first, StandardScaler(), LogisticRegression(max_iter=2000))
        search = GridSearchCV(pipeline, {"logisticregression__C": [0.01, 0.1, 1.0]}, cv=3)
        search.fit(labelled_x, labelled_y)
        print(
            f"{name:12} accuracy {100 * search.score(test_x, test_y):.1f} %, {search.best_params_}"
        )
    outputs: Any = network.run(None, {"samples": test_x[:8, None]})
    difference = float(np.abs(outputs[0] - encoder.transform(test_x[:8])).max())
    print(f"ONNX and torch differ by {difference:.1e} at most")


if __name__ == "__main__":
    main()
