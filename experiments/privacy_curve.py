"""What user-level privacy costs on digits, and what it buys: 100 virtual users, epsilon by epsilon.

Trains ``orchestra_private`` over two parties of 50 virtual users each (14 digits a user) with one
noise multiplier after the other. The frozen encoder is probed beside two controls, raw pixels and a
run that learns nothing, of which noise alone is left; membership inference asks it which digits it
was trained on. Then the audit attacks replies under the same noise multipliers, in the case where
its attack works best: two users, two images each, two steps, GroupNorm alone. Runs are written to
``OUT/runs`` when they are done, and not run again; the picture is ``OUT/privacy_curve.png``:
``python -m experiments.privacy_curve --out privacy``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demo_custom_strategy import load_data
from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import session
from orchestra_strategy.audit import audit_setting
from orchestra_strategy.audit.attacks.membership import alignment_scores
from orchestra_strategy.audit.attacks.roc import auc_with_interval
from orchestra_strategy.data.augmentation.views import build_views
from orchestra_strategy.data.readers.local_data import LocalData
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.evaluation import write_json
from orchestra_strategy.evaluation.plots.privacy_plot import Curve, plot_privacy_curve
from orchestra_strategy.rng import torch_generator

PARTIES, USERS, ROUNDS, DELTA = ("alice", "bob"), 50, 10, 1e-3
MODEL = {"backbone": "resnet8", "norm": "group+batch", "hidden_dim": 32, "projection_dim": 32}
PARAMETERS = {
    **{"num_virtual_users": USERS, "batch_size": 16, "local_epochs": 10, "lr": 0.03},
    **{"num_global_clusters": 16, "num_local_clusters": 2, "memory_size": 16, "ema_decay": 0.99},
}
CLIP_NORM = 8.0  # somewhat below the median norm of a user's update, 10 to 14
REPLY_CLIP_NORM = 0.2  # the same of the replies that are attacked, 0.2 to 0.4
STILL = {"lr": 1e-9, "local_epochs": 1}  # teaches nothing
NOISES = (0.0, 0.001, 0.01, 0.1, 0.3, 1.0, 3.0)


def privacy_of(noise: float, clip_norm: float = CLIP_NORM) -> dict[str, Any]:
    """Return the privacy parameters; none without noise."""
    if not noise:
        return {}
    return {"privacy": "user", "noise_multiplier": noise, "clip_norm": clip_norm, "delta": DELTA}


def train(noise: float, seed: int, still: bool) -> dict[str, Any]:
    """Train once; return epsilon, accuracies in % by features and probe, and the AUC."""
    train_x, train_y, test_x, test_y = load_data()
    order = np.random.default_rng(seed).permutation(len(train_x))
    parameters = {**PARAMETERS, **privacy_of(noise), "user_type": "multiuser_aggregate"}
    parameters |= {"health_samples": 0, **(STILL if still else {})}
    config = {
        "strategy": "orchestra_private" if noise else "orchestra",
        **{"seed": seed, "rounds": ROUNDS, "progress": False},
        **{"model": {**MODEL, "in_channels": 1}, "parameters": parameters},
    }
    with session(PARTIES, mode="debug") as devices:
        trainer = FederatedOrchestraTrainer(config, devices)
        halves = zip(devices, np.array_split(order, len(devices)), strict=True)
        results = trainer.train(fed_ndarray({d: train_x[half] for d, half in halves}))
        probes = trainer.evaluate(train_x, train_y, test_x, test_y, (1, 5, None))
    trained = config["strategy"]  # with noise or without, the same curve
    accuracy = {
        "orchestra" if n == trained else n: {k: 100 * r.mean for k, r in by.items()}
        for n, by in probes.items()
    }
    found = membership(trainer.encoder(), train_x[order], test_x, seed)
    return {"epsilon": results.epsilon, "accuracy": accuracy, "membership": found}


def membership(encoder: Any, members: Any, others: Any, seed: int) -> dict[str, float]:
    """Return the AUC with which the alignment of a digit's views tells members from others."""
    scores = [
        alignment_scores(
            encoder,
            torch.from_numpy(images[:, None]),
            build_views("grey"),
            torch_generator(seed, "attacker", 0, who),
        )
        for who, images in (("members", members), ("others", others))
    ]
    auc = auc_with_interval(scores[0], scores[1], "alignment")
    return {"value": auc.value, "low": auc.low, "high": auc.high}


def attack(noise: float, seed: int) -> dict[str, Any]:
    """Let the audit attack two replies under a noise multiplier."""
    train_x, train_y, _, _ = load_data()
    rows = np.random.default_rng(seed).permutation(len(train_x))
    result = audit_setting(
        LocalData(train_x[rows], train_y[rows].astype(np.int64)),
        {**privacy_of(noise, REPLY_CLIP_NORM), "num_virtual_users": USERS},
        "multiuser_aggregate",
        **{"attacks": ("span",), "norm": "group", "rounds": 1, "seed": seed, "replies": 4},
    )
    found = result.leakage
    assert found is not None  # replies have been attacked
    control = max(found.control_mean_psnr, found.control_random_psnr)
    return {
        **{"psnr": found.psnr, "control": control},
        **{"leaked": found.leaked, "samples": found.samples},
    }


def once(file: Path, run: Any, *arguments: Any) -> dict[str, Any]:
    """Return what is in ``file``; run and write it if it is not there."""
    if not file.is_file():
        begun = time.perf_counter()
        found = run(*arguments)
        write_json(file, {**found, "seconds": time.perf_counter() - begun})
        print(file.stem, json.dumps(found), flush=True)
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return result


def spread(title: str, runs: list[list[float]], levels: dict[str, float]) -> Curve:
    """Return a curve of medians with the range over seeds."""
    table = np.array(runs)
    middle, low, high = (f(table, axis=1).tolist() for f in (np.median, np.min, np.max))
    return Curve(title, middle, low, high, levels)


def draw(out: Path, utility: list[Any], still: list[Any], leaks: list[Any]) -> None:
    """Write the picture."""

    def probe(runs: list[Any], features: str = "orchestra") -> list[list[float]]:
        return [[run["accuracy"][features]["5"] for run in at] for at in runs]

    levels = {name: float(np.mean(probe(utility, name))) for name in ("pixels", "untrained")}
    alone = [float(np.median(values)) for values in probe(still)]
    learnt = spread("linear probe, 5 labels per class, %", probe(utility), levels)
    control = float(np.mean([run["control"] for at in leaks for run in at]))
    psnr = [[run["psnr"] for run in at] for at in leaks]
    aucs = [[100 * run["membership"]["value"] for run in at] for at in utility]
    curves = [
        learnt._replace(control=("noise alone", alone)),
        spread("reconstruction of replies, PSNR in dB", psnr, {"guessing": control}),
        spread("membership inference, AUC in %", aucs, {"guessing": 50.0}),
    ]
    epsilons = [at[0]["epsilon"] for at in utility]
    plot_privacy_curve(epsilons, curves, out / "privacy_curve.png", DELTA)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--noises", type=float, nargs="+", default=list(NOISES))
    parser.add_argument("--out", type=Path, default=Path("privacy"))
    arguments = parser.parse_args(argv)
    out, runs = arguments.out, arguments.out / "runs"
    kinds: dict[str, Any] = {"attack": (attack,), "still": (train, True), "train": (train, False)}
    found: dict[str, list[Any]] = {kind: [[] for _ in arguments.noises] for kind in kinds}
    for seed in arguments.seeds:
        for i, noise in enumerate(arguments.noises):
            for kind, (run, *more) in kinds.items():
                file = runs / f"{kind}-{noise}-{seed}.json"
                found[kind][i].append(once(file, run, noise, seed, *more))
    draw(out, found["train"], found["still"], found["attack"])
    write_json(out / "privacy_curve.json", {"noises": arguments.noises, **found})


if __name__ == "__main__":
    main()
