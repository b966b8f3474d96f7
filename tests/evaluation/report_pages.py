"""Reports as they are written, of made-up numbers: for the tests that read them."""

import numpy as np

from experiments.cifar_report import write_report
from experiments.settings import load_experiment
from orchestra_strategy.evaluation import (
    plot_cluster_balance,
    plot_cluster_confusion,
    plot_embedding_map,
    plot_learning_curve,
    probe_protocol,
)
from orchestra_strategy.runtime.training_page import Measured, write_training_report

SEEN = {"server": "alice (the first of `device_list`, since no server was given): each party's"}
SEEN["driver"] = "the driver"
HISTORY = {
    "train_loss": [4.5, 3.0, 2.5],
    "health_alignment": [0.9, 0.5, 0.25],
    "health_uniformity": [-2.0, -1.75, -1.5],
    "health_effective_rank": [4.0, 8.0, 12.0],
    "health_cluster_balance": [0.5, 0.75, 0.875],
}
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def entry(name, size, when="both", to="server", **more):
    fixed = {"shape": [size // 4], "dtype": "float32", "bytes": size, "combine": "weighted mean"}
    fixed |= {"when": when, "to": to, "per_sample": False, "seen_by": SEEN[to], "max_rows": 0}
    return {"name": name, **fixed, **more}


MANIFEST = [
    entry("weights/backbone.stages.0.blocks.1.convolution.weight", 3_000_000),
    entry("weights/projector.weight", 82_896),
    entry("local_centroids", 32_768, shape=[None, 512], max_rows=16, combine="clustered"),
    entry("averaged weights", 3_082_896, "asked", "driver"),
    entry("health_alignment", 8, "round", "driver", combine="mean in the log"),
]
LEDGER = [
    {
        **{"round": i, "rounds": 1, "seconds": 2.5, "samples": 4311, "images_per_second": 1724.4},
        **{"bytes_up_per_party": 3_115_672, "bytes_down_per_party": 3_344_000, "left_out": []},
        **{name: values[i - 1] for name, values in HISTORY.items()},
    }
    for i in (1, 2, 3)
]
RESULTS = {
    **{"history": HISTORY, "ledger": LEDGER, "manifest": MANIFEST, "rounds": 3, "seconds": 7.5},
    "traffic": {"up_per_party": 12_462_680},
    "settings": {
        **{"strategy": "orchestra", "rounds": 3, "parties": ["alice", "bob"]},
        **{"model": {"backbone": "conv4"}, "parameters": {"lr": 0.01, "privacy": None}},
    },
}


def clouds(classes, each, seed=0):
    """Features (n, 16) of classes that lie apart, and their labels."""
    labels = np.arange(classes * each) % classes
    noise = np.random.default_rng(seed).normal(size=(len(labels), 16))
    return (noise + 4 * np.eye(16)[labels]).astype(np.float32), labels


def training_page(folder):
    """Write the report of a training, with what labels say of it; return its path."""
    (train, train_y), (test, test_y) = clouds(3, 10), clouds(3, 8, seed=1)
    features = {"orchestra": (train, test), "untrained": (-train, test), "pixels": (train, test)}
    probes = probe_protocol(features, train_y, test_y, labels_per_class=(1, None), seeds=2)
    of_test = {name: both[1] for name, both in features.items()}
    measured = Measured(probes, of_test, test_y, ["cat", "dog", "ship"])
    write_training_report(folder / "training.html", "A training", RESULTS, measured)
    return folder / "training.html"


def cifar_results(preset="smoke"):
    """What an experiment of two strategies and two seeds has in ``results.json``."""
    final = {"knn": 0.35, "linear": 0.4, "sgd": 0.41, "semi_supervised_0.01": 0.2}
    final |= {"semi_supervised_0.1": 0.3, "clusters": {"nmi": 0.1, "ari": 0.05, "accuracy": 0.2}}

    def run(strategy, seed):
        curve = [{"round": r, "knn": 0.3 + 0.01 * r * seed, "linear": 0.4} for r in (1, 2)]
        fixed = {"curve": curve, "ledger": LEDGER, "manifest": MANIFEST, "seconds": 60.0}
        measured = {**final, "knn": 0.35 + 0.02 * seed}
        return {"strategy": strategy, "seed": seed, "final": measured, **fixed}

    control = {"untrained": {"knn": 0.28, "linear": 0.37}, "pixels": {"knn": 0.34, "linear": 0.37}}
    return {
        "setting": load_experiment(preset).model_dump(),
        "controls": [{"seed": s, "class_names": list(CLASSES), **control} for s in (0, 1)],
        "runs": [
            run(name, seed) for name in ("orchestra_advanced", "fed_simsiam") for seed in (0, 1)
        ],
    }


def cifar_page(folder):
    """Write the report of an experiment with its pictures; return its path."""
    pictures = folder / "pictures"
    features, labels = clouds(10, 3)
    for name in ("orchestra_advanced", "fed_simsiam", "untrained", "pixels"):
        plot_embedding_map(features, labels, pictures / f"{name}-0-map.png", 0, CLASSES, name)
    for name in ("orchestra_advanced", "fed_simsiam"):
        plot_cluster_confusion(labels, labels, pictures / f"{name}-0-confusion.png", CLASSES)
        plot_cluster_balance(labels, 10, pictures / f"{name}-0-balance.png")
        plot_learning_curve({"train_loss": [2.0, 1.0]}, pictures / f"{name}-0-losses.png")
    return write_report(folder, cifar_results())
