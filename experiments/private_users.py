"""Private training over a thousand users: the encoder beside everything that it has to beat.

Samples are dealt out to virtual users of five parties, who share the noise over SecureAggregator
(``noise="shared"``), with a clip that follows the median norm. ``digits`` are scikit-learn's, two a
user; ``--cifar FOLDER`` has CIFAR-10 in image folders. Rows: the untrained network, a network
trained on images of a random process alone (``start``), raw pixels, the training without privacy,
and with epsilon 8 and 2, each from both networks. ``--cohorts N ...`` adds rows whose noise is
scaled as N users would have it, which is a simulation and called so. Runs are written to
``OUT/runs`` when they are done, and not run again:

    python -m experiments.private_users --out private_users --seeds 0 1 2
"""

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from experiments.privacy_curve import once
from experiments.private_samples import samples
from federated_orchestra import MODEL_PRESETS, FederatedOrchestraTrainer
from orchestra_strategy import host, session
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.encoder_export import export_encoder
from orchestra_strategy.evaluation import write_json
from orchestra_strategy.evaluation.plots.comparison_plot import plot_comparison
from orchestra_strategy.privacy import Release, find_noise_multiplier
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


def model_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the network's options: a small projector."""
    channels = 1 if arguments.cifar is None else 3
    norm = {} if arguments.norm is None else {"norm": arguments.norm}
    network = {"backbone": arguments.backbone, "in_channels": channels}
    return {**network, **MODEL_PRESETS["private"], **norm}


def noise_of(epsilon: float, delta: float, rounds: int, users: int, cohort: int) -> float:
    """Return the noise multiplier of a training; of a larger cohort, as it would weigh there."""
    z = find_noise_multiplier(lambda z: {Release(z): 1}, epsilon, delta, rounds, "pld")
    return z * users / cohort


def privacy_of(arguments: argparse.Namespace, epsilon: float, cohort: int | None) -> dict[str, Any]:
    """Return the parameters of privacy; none without an epsilon."""
    if not epsilon:
        return {}
    users, cohort = arguments.users, cohort or arguments.users
    delta = min(1e-5, cohort**-1.1)
    z = noise_of(epsilon, delta, arguments.rounds, users, cohort)
    return {"privacy": "user", "noise": "shared", "noise_multiplier": z, "delta": delta, **CLIP}


def run(
    arguments: argparse.Namespace, epsilon: float, cohort: int | None, start: str | None, seed: int
) -> Any:
    """Train once and probe; return accuracies in % by features and probe, and the history."""
    x, labelled = samples(arguments, seed)
    private = privacy_of(arguments, epsilon, cohort)
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


def row_name(start: str, epsilon: float, cohort: int | None) -> str:
    """Return the name of a training in the table."""
    told = f"{start}, epsilon {epsilon:g}" if epsilon else f"{start}, no privacy"
    return told + (f", as {cohort:,} users" if cohort else "")


def draw(
    rows: dict[str, dict[str, list[float]]], arguments: argparse.Namespace, file: Path, probe: str
) -> None:
    """Write the picture: a probe's accuracy over the users that share the noise."""
    series, levels, spreads = {}, {}, {}
    for start in arguments.starts:
        for epsilon in filter(None, arguments.epsilons):
            cohorts = [None, *arguments.cohorts]
            values = [rows[row_name(start, epsilon, cohort)][probe] for cohort in cohorts]
            name = f"from {start}, epsilon {epsilon:g}"
            users = [float(np.log10(cohort or arguments.users)) for cohort in cohorts]
            series[name] = (users, [float(np.mean(v)) for v in values])
            spreads[name] = [float(np.ptp(v)) / 2 for v in values]
    for name in (*arguments.starts, *(row_name(s, 0.0, None) for s in arguments.starts), "pixels"):
        if name in rows:
            levels[name] = float(np.mean(rows[name][probe]))
    of_users = "users who share the noise, log10 (from the second point on simulated)"
    plot_comparison(series, levels, file, of_users, f"accuracy, {probe}, %", spreads)


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
    parser.add_argument("--norm", help="'group' for users of one sample; the preset's if left out")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--cohorts", type=int, nargs="*", default=[], help="see above")
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
        for name, epsilon in product(arguments.starts, arguments.epsilons):
            path = str(start) if name == "start" else None
            for cohort in [None, *(arguments.cohorts if epsilon else [])]:
                suffix = f"-as-{cohort}" if cohort else ""
                file = out / "runs" / f"{name}-{epsilon:g}{suffix}-{seed}.json"
                one = once(file, run, arguments, epsilon, cohort, path, seed)
                found.setdefault(row_name(name, epsilon, cohort), []).append(one)
    rows = table(found, arguments.strategy)
    show(rows)
    write_json(out / "private_users.json", {"rows": rows, **json.loads(_told(arguments))})
    for probe in ("5", "knn") if any(arguments.epsilons) else ():
        draw(rows, arguments, out / f"private_users_{probe}.png", probe)


def _told(arguments: argparse.Namespace) -> str:
    return json.dumps({"settings": vars(arguments)}, default=str)


if __name__ == "__main__":
    main()
