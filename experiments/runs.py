"""One run: a strategy and a seed. It trains, evaluates every few rounds, returns plain values."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from experiments.cifar import Images, Split, block_means
from experiments.settings import Experiment
from experiments.supervised import train_supervised
from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import host, session
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.evaluation import (
    check_disjoint,
    cluster_class_table,
    cluster_features,
    clustering_scores,
    extract_features,
    fine_tune,
    plot_cluster_balance,
    plot_cluster_confusion,
    plot_embedding_map,
    plot_learning_curve,
    probe_protocol,
    sgd_probe_accuracy,
)

__all__ = ["measure", "measure_controls", "run_one"]

_PIXELS = 8  # the raw-pixel control sees images of this side, as averages of blocks


def run_one(
    setting: Experiment,
    split: Split,
    strategy: str,
    seed: int,
    pictures: Path | None,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Train one strategy with one seed, and measure it.

    Args:
        setting: The experiment.
        split: Its images for this seed.
        strategy: A registered name, one with ``+secure`` behind it, or ``supervised``.
        seed: Root seed.
        pictures: Folder for the run's pictures; None for neither pictures nor final protocols.
        tell: Takes a line for the person who waits.

    Returns:
        ``curve`` (a row per evaluation), ``final`` (every protocol), ``ledger``, ``manifest``;
        ``seconds`` of the training with its evaluations, ``cpu_seconds`` without them.
    """
    check_disjoint(split.bank.x, split.test.x, allow_duplicates=True)
    names = [f"party{i:02d}" for i in range(setting.parties)]
    curve: list[dict[str, Any]] = []
    evaluating = 0.0
    with session(names, mode=setting.mode) as devices:
        data = fed_ndarray({d: p.x for d, p in zip(devices, split.parties, strict=True)})

        def note(round_index: int, encoder: nn.Module) -> None:
            nonlocal evaluating
            begun = time.process_time()
            row = {"round": round_index, **measure(encoder, split.bank, split.test)}
            curve.append(row)
            tell(
                f"{strategy} seed {seed} round {round_index}: kNN {row['knn']:.1%}, "
                f"linear {row['linear']:.1%}"
            )
            evaluating += time.process_time() - begun

        begun, cpu_begun = time.perf_counter(), time.process_time()
        if strategy == "supervised":
            labels = fed_ndarray({d: p.y for d, p in zip(devices, split.parties, strict=True)})
            encoder, ledger = train_supervised(
                setting, devices, data, labels, len(split.class_names), seed, note
            )
            manifest: list[dict[str, Any]] = []
        else:
            encoder, ledger, manifest = _train(setting, devices, data, strategy, seed, note)
        seconds = time.perf_counter() - begun
        cpu_seconds = time.process_time() - cpu_begun - evaluating
    run = {
        "strategy": strategy,
        "seed": seed,
        "curve": curve,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "ledger": ledger,
        "manifest": manifest,
    }
    if pictures is None:
        return run
    final = _final(setting, encoder, split, seed, pictures / f"{strategy}-{seed}")
    losses = [key for key in ledger[-1] if key.startswith("train_")]
    if losses:
        history = {key: [row[key] for row in ledger] for key in losses}
        plot_learning_curve(history, pictures / f"{strategy}-{seed}-losses.png")
    return {**run, "final": final}


class _Evaluate(host.Callback):  # type: ignore[misc]
    """FLModel callback: evaluates the averaged encoder every few rounds."""

    def __init__(
        self, trainer: FederatedOrchestraTrainer, every: int, note: Callable[[int, nn.Module], None]
    ) -> None:
        super().__init__()
        self.trainer, self.every, self.note = trainer, every, note

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Measure, after the server's reply has come."""
        done = int(epoch) + 1
        if done % self.every == 0 or done == self.trainer.config.rounds:
            self.note(done, self.trainer.encoder())


def _train(
    setting: Experiment,
    devices: list[Any],
    data: Any,
    strategy: str,
    seed: int,
    note: Callable[[int, nn.Module], None],
) -> tuple[nn.Module, list[dict[str, Any]], list[dict[str, Any]]]:
    name, _, route = strategy.partition("+")
    trainer = FederatedOrchestraTrainer(
        {
            "strategy": name,
            "rounds": setting.rounds,
            "seed": seed,
            "model": setting.model.model_dump(),
            "parameters": {**setting.parameters, **setting.only_for.get(name, {})},
            "num_gpus": setting.num_gpus,
            "progress": False,
        },
        devices,
        aggregator=host.PlainAggregator(devices[0]) if route == "secure" else None,
    )
    evaluate = _Evaluate(trainer, setting.eval_every, note)
    results = trainer.train(data, callbacks=[evaluate])
    return trainer.encoder(), results.ledger, results.manifest


def measure(encoder: nn.Module, bank: Images, test: Images) -> dict[str, float]:
    """Return kNN and linear-probe accuracy of an encoder's features."""
    features = (extract_features(encoder, images.x) for images in (bank, test))
    return _accuracies(next(features), bank.y, next(features), test.y)


def measure_controls(
    untrained: nn.Module, split: Split, seed: int, pictures: Path | None = None
) -> dict[str, dict[str, float]]:
    """Measure what a method must beat: the network before training, and 8x8 pixels.

    Args:
        untrained: The network.
        split: Images of bank and test.
        seed: Root seed.
        pictures: Folder for a map of each; None draws none.
    """
    tests = {
        "untrained": extract_features(untrained, split.test.x),
        "pixels": _small(split.test.x),
    }
    banks = {
        "untrained": extract_features(untrained, split.bank.x),
        "pixels": _small(split.bank.x),
    }
    if pictures is not None:
        for name, test in tests.items():
            path = pictures / f"{name}-{seed}-map.png"
            plot_embedding_map(test, split.test.y, path, seed, split.class_names, title=name)
    return {
        name: _accuracies(banks[name], split.bank.y, test, split.test.y)
        for name, test in tests.items()
    }


def _accuracies(
    bank: npt.NDArray[np.float32],
    bank_y: npt.NDArray[np.int64],
    test: npt.NDArray[np.float32],
    test_y: npt.NDArray[np.int64],
) -> dict[str, float]:
    result = probe_protocol({"it": (bank, test)}, bank_y, test_y, labels_per_class=(None,))["it"]
    return {"knn": result["knn"].mean, "linear": result["all"].mean}


def _small(x: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    grid = block_means(x, _PIXELS)
    small: npt.NDArray[np.float32] = (grid.reshape(len(x), -1) / 127.5 - 1).astype(np.float32)
    return small


def _final(
    setting: Experiment, encoder: nn.Module, split: Split, seed: int, prefix: Path
) -> dict[str, Any]:
    """Measure by every protocol asked for, and draw; pictures begin with ``prefix``."""
    bank, test = (extract_features(encoder, images.x) for images in (split.bank, split.test))
    final: dict[str, Any] = _accuracies(bank, split.bank.y, test, split.test.y)
    num_classes = len(split.class_names)
    clusters = cluster_features(test, num_clusters=num_classes, seed=seed)
    final["clusters"] = asdict(clustering_scores(clusters, split.test.y))
    final["cluster_class_table"] = cluster_class_table(clusters, split.test.y).tolist()
    names = split.class_names
    plot_cluster_confusion(clusters, split.test.y, f"{prefix}-confusion.png", names)
    plot_cluster_balance(clusters, num_classes, f"{prefix}-balance.png")
    plot_embedding_map(test, split.test.y, f"{prefix}-map.png", seed, names, title="encoder")
    if "sgd" in setting.probes:
        final["sgd"] = sgd_probe_accuracy(bank, split.bank.y, test, split.test.y, seed=seed)
    if "semi_supervised" in setting.probes:
        for fraction in (0.01, 0.1):
            final[f"semi_supervised_{fraction:g}"] = fine_tune(
                *(encoder, split.bank.x, split.bank.y, split.test.x, split.test.y, fraction),
                seed=seed,
                allow_duplicates=True,
            )
    return final
