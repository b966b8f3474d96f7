"""Private training over a thousand users: the encoder beside everything that it has to beat.

Samples are dealt out to virtual users of five parties, who share the noise over SecureAggregator
(``noise="shared"``), with a clip that follows the median norm. ``digits`` are scikit-learn's, two a
user; ``--cifar FOLDER`` has CIFAR-10 in image folders. Rows: the untrained network, a network
trained on images of a random process alone (``start``), raw pixels, the training without privacy,
and with epsilon 8 and 2, each from both networks. ``--cohort N`` scales the noise as N users would
have it, which is a simulation and called so. Runs are written to ``OUT/runs`` when they are done,
and not run again:

    python -m experiments.private_users --out private_users --seeds 0 1 2
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from demo_custom_strategy import load_data
from experiments.privacy_curve import once
from federated_orchestra import MODEL_PRESETS, FederatedOrchestraTrainer
from orchestra_strategy import host, session
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.encoder_export import export_encoder
from orchestra_strategy.evaluation import write_json
from orchestra_strategy.evaluation.plots.comparison_plot import plot_comparison
from orchestra_strategy.privacy import Release, find_noise_multiplier
from orchestra_strategy.rng import numpy_generator
from orchestra_strategy.runtime.pretraining import pretrained

PARTIES = ("alice", "bob", "carol", "dave", "erin")
PARAMETERS = {
    **{"user_type": "multiuser_aggregate", "batch_size": 8, "health_samples": 0},
    **{"local_epochs": 3, "lr": 0.03, "momentum": 0.0, "weight_decay": 0.0},
}
CLIP = {
    "accountant": "pld",
    "clip_norm": 0.5,
    "clip_quantile": 0.5,
    "clip_rate": 0.5,
    "clip_share": 0.01,
}
LABELS = (5, None)
STARTS = ("untrained", "start")
Data = tuple[Any, Any, Any, Any]


def smaller(x: Any, side: int) -> Any:
    """Return images (n, c, H, W) of a given side, as means of blocks."""
    block = x.shape[-1] // side
    blocks = x.reshape(*x.shape[:2], side, block, side, block)
    return np.rint(blocks.mean((3, 5), dtype=np.float32)).astype(np.uint8)


def samples(arguments: argparse.Namespace, seed: int) -> tuple[Any, Data]:
    """Return the users' samples, and the labelled ones of the probes: train and test.

    With ``--held-out`` the second are training samples that neither users nor probes have.
    """
    rng = numpy_generator(seed, "experiment", 0, "users")
    if arguments.cifar is None:
        train_x, train_y, test_x, test_y = load_data()
    else:
        from experiments.cifar import read_cifar

        train, test, _ = read_cifar(arguments.cifar)
        train_x, test_x = (smaller(images.x, arguments.side) for images in (train, test))
        train_y, test_y = train.y, test.y
    order = rng.permutation(len(train_y))
    own = order[: arguments.users * arguments.per_user]
    bank = order if arguments.cifar is None else order[-5000:]
    if arguments.held_out:
        rest = np.setdiff1d(order, own)
        held_out, bank = rest[::2], rest[1::2]
        test_x, test_y = train_x[held_out], train_y[held_out]
    return train_x[own], (train_x[bank], train_y[bank], test_x, test_y)


def model_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the network's options: a small projector."""
    channels = 1 if arguments.cifar is None else 3
    return {"backbone": arguments.backbone, "in_channels": channels} | MODEL_PRESETS["private"]


def noise_of(epsilon: float, delta: float, rounds: int, users: int, cohort: int) -> float:
    """Return the noise multiplier of a training; of a larger cohort, as it would weigh there."""
    z = find_noise_multiplier(lambda z: {Release(z): 1}, epsilon, delta, rounds, "pld")
    return z * users / cohort


def privacy_of(arguments: argparse.Namespace, epsilon: float) -> dict[str, Any]:
    """Return the parameters of privacy; none without an epsilon."""
    if not epsilon:
        return {}
    users, cohort = arguments.users, arguments.cohort or arguments.users
    delta = min(1e-5, cohort**-1.1)
    z = noise_of(epsilon, delta, arguments.rounds, users, cohort)
    return {"privacy": "user", "noise": "shared", "noise_multiplier": z, "delta": delta, **CLIP}


def run(arguments: argparse.Namespace, epsilon: float, start: str | None, seed: int) -> Any:
    """Train once and probe; return accuracies in % by features and probe, and the history."""
    x, labelled = samples(arguments, seed)
    private = privacy_of(arguments, epsilon)
    each = arguments.users // len(PARTIES)
    model = {**model_of(arguments), "weights": start}
    parameters = {**PARAMETERS, **private, "num_virtual_users": each, "user_split": "blocks"}
    parameters |= arguments.parameters
    parameters |= {"views": "grey" if arguments.cifar is None else "colour"}
    config = {
        **{"strategy": arguments.strategy, "seed": seed, "rounds": arguments.rounds},
        **{"progress": False, "model": model, "parameters": parameters},
    }
    with session(PARTIES, mode="debug") as devices:
        aggregator = host.SecureAggregator(devices[0], devices) if private else None
        trainer = FederatedOrchestraTrainer(config, devices, aggregator=aggregator)
        parts = np.array_split(x, len(PARTIES))
        results = trainer.train(fed_ndarray(dict(zip(devices, parts, strict=True))))
        probes = trainer.evaluate(*labelled, LABELS, seeds=5)
    accuracy = {n: {k: 100 * r.mean for k, r in by.items()} for n, by in probes.items()}
    kept = {k: v for k, v in results.history.items() if k.startswith("privacy_")}
    return {"accuracy": accuracy, "epsilon": results.epsilon, "history": kept}


def table(
    found: dict[str, list[dict[str, Any]]], strategy: str
) -> dict[str, dict[str, list[float]]]:
    """Return accuracies by row and probe, one number a seed."""
    rows: dict[str, list[dict[str, float]]] = {}
    for name, runs in found.items():
        of_start = "start" if name.startswith("start") else "untrained"
        rows[name] = [one["accuracy"][strategy] for one in runs]
        rows[of_start] = [one["accuracy"]["untrained"] for one in runs]
        rows["pixels"] = [one["accuracy"]["pixels"] for one in runs]
    return {name: {p: [one[p] for one in runs] for p in runs[0]} for name, runs in rows.items()}


def show(rows: dict[str, dict[str, list[float]]]) -> None:
    """Print the table in Markdown: mean, and range over the seeds."""
    probes = list(next(iter(rows.values())))
    print("| features | " + " | ".join(probes) + " |")
    for name, by in sorted(rows.items()):
        cells = [f"{np.mean(v):.1f} ({min(v):.1f} to {max(v):.1f})" for v in by.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


def draw(rows: dict[str, dict[str, list[float]]], file: Path) -> None:
    """Write the picture: accuracy over epsilon, from both starts, beside the controls."""
    series = {}
    for start in STARTS:
        if f"{start}, no privacy" not in rows:
            continue
        points = [(n, rows[f"{start}, {n}"]) for n in ("epsilon 2", "epsilon 8", "no privacy")]
        values = [float(np.mean(by["5"])) for _, by in points]
        series[f"from {start}"] = ([0.0, 1.0, 2.0], values)
    controls = [name for name in (*STARTS, "pixels") if name in rows]
    levels = {name: float(np.mean(rows[name]["5"])) for name in controls}
    told = "epsilon 2, epsilon 8, without privacy"
    plot_comparison(series, levels, file, told, "linear probe, 5 labels per class, %")


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, print the table, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("private_users"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--users", type=int, default=700)
    parser.add_argument("--per-user", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--strategy", default="fed_rotpred")
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.0, 8.0, 2.0])
    parser.add_argument("--backbone", default="resnet8")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--cohort", type=int, help="scale the noise as so many users would")
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--side", type=int, default=32, help="pixels; CIFAR's are 32")
    parser.add_argument("--parameters", type=json.loads, default={}, help="others, as JSON")
    parser.add_argument("--held-out", action="store_true", help="do not open the test set")
    parser.add_argument("--pretrain-images", type=int, default=4000)
    parser.add_argument("--pretrain-epochs", type=int, default=10)
    arguments = parser.parse_args(argv)
    out, found = arguments.out, dict[str, list[dict[str, Any]]]()
    for seed in arguments.seeds:
        start = out / f"start-{seed}"
        if "start" in arguments.starts and not start.is_dir():
            size = 8 if arguments.cifar is None else arguments.side
            many, epochs = arguments.pretrain_images, arguments.pretrain_epochs
            made = pretrained(model_of(arguments), "fed_simclr", many, size, epochs, seed)
            export_encoder(start, made)
        for epsilon in arguments.epsilons:
            for name in arguments.starts:
                path = str(start) if name == "start" else None
                told = f"{name}, " + (f"epsilon {epsilon:g}" if epsilon else "no privacy")
                cohort = f"-as-{arguments.cohort}" if arguments.cohort and epsilon else ""
                file = out / "runs" / f"{name}-{epsilon:g}{cohort}-{seed}.json"
                found.setdefault(told, []).append(once(file, run, arguments, epsilon, path, seed))
    rows = table(found, arguments.strategy)
    show(rows)
    suffix = f"_as_{arguments.cohort}" if arguments.cohort else ""
    write_json(out / f"private_users{suffix}.json", {"rows": rows, **json.loads(_told(arguments))})
    if set(arguments.epsilons) >= {0.0, 2.0, 8.0}:
        draw(rows, out / f"private_users{suffix}.png")


def _told(arguments: argparse.Namespace) -> str:
    return json.dumps({"settings": vars(arguments)}, default=str)


if __name__ == "__main__":
    main()
