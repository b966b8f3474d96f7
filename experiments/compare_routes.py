"""Route ``secure`` beside route ``server``: the demo's digits, the same seeds, one process.

``python -m experiments.compare_routes --seeds 3 --out routes.json`` trains the demo's setting once
per route and seed, and prints probes of the frozen encoders beside each other. ``--routes server
float16`` has the weights go to the server as they are and as float16.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from demo_custom_strategy import CONFIG, PARTIES, load_data
from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import session
from orchestra_strategy.data.partition import dirichlet_partition
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.evaluation import write_json
from orchestra_strategy.host import PlainAggregator

LABELS = (1, 5, None)


def run(route: str, seed: int, rounds: int, parameters: dict[str, Any]) -> dict[str, Any]:
    """Train once, and return accuracies in %, the encoder's health, and the seconds."""
    train_x, train_y, test_x, test_y = load_data()
    parts = dirichlet_partition(train_y, len(PARTIES), alpha=0.5, seed=seed, min_size=16)
    config: dict[str, Any] = {**CONFIG, "seed": seed, "rounds": rounds, "progress": False}
    narrow = {"payload_dtype": "float16"} if route == "float16" else {}
    config["parameters"] = {**config["parameters"], **narrow, **parameters}
    begun = time.perf_counter()
    with session(PARTIES, mode="debug") as devices:
        how = {"aggregator": PlainAggregator(devices[0])} if route == "secure" else {}
        trainer = FederatedOrchestraTrainer(config, devices, **how)
        data = fed_ndarray({d: train_x[part] for d, part in zip(devices, parts, strict=True)})
        results = trainer.train(data)
        probes = trainer.evaluate(train_x, train_y, test_x, test_y, LABELS)
    return {
        "route": route,
        "seed": seed,
        "seconds": time.perf_counter() - begun,
        "accuracy": {name: 100 * r.mean for name, r in probes["orchestra"].items()},
        "metrics": results.metrics,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """Return mean and standard deviation over seeds, a line per route, and the differences."""
    probes = list(runs[0]["accuracy"])
    lines = ["route   " + "".join(f"{name:>16}" for name in probes)]
    means = {}
    for route in dict.fromkeys(r["route"] for r in runs):
        values = np.array([[r["accuracy"][p] for p in probes] for r in runs if r["route"] == route])
        means[route] = values.mean(0)
        cells = (f"{m:.1f} +- {s:.1f}" for m, s in zip(values.mean(0), values.std(0), strict=True))
        lines.append(f"{route:<8}" + "".join(f"{cell:>16}" for cell in cells))
    if len(means) == 2:
        first, second = means.values()
        gain = second - first
        lines.append(f"{'gain':<8}" + "".join(f"{g:>+16.1f}" for g in gain))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=26)
    parser.add_argument(
        "--routes",
        nargs="+",
        default=["server", "secure"],
        choices=["server", "secure", "float16"],
    )
    parser.add_argument("--out", type=Path, default=Path("routes.json"))
    arguments = parser.parse_args()
    runs = []
    for seed in range(42, 42 + arguments.seeds):
        for route in arguments.routes:
            runs.append(run(route, seed, arguments.rounds, {}))
            print(route, seed, runs[-1], flush=True)
    print(table(runs))
    write_json(arguments.out, {"rounds": arguments.rounds, "runs": runs})


if __name__ == "__main__":
    main()
