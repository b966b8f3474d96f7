"""Strategies and routes on the demo's digits: the same seeds and splits, one process.

``python -m experiments.digits --strategies orchestra orchestra+secure orchestra_plus fed_simclr``
trains the demo's setting once per name and seed, and prints probes of the frozen encoders beside
each other. ``name+secure`` goes over an aggregator, ``name+float16`` sends weights as float16.
``--alpha 1000`` deals the classes out evenly. Parameters of the demo that a strategy does not have
are left out.
"""

import argparse
import time
from collections.abc import Sequence
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
from orchestra_strategy.strategies.registry import lookup_strategy

LABELS = (1, 5, None)
WAYS = ("server", "secure", "float16")


def setting(name: str, seed: int, rounds: int) -> tuple[dict[str, Any], str]:
    """Return the trainer's configuration for ``strategy[+way]``, and the way.

    Raises:
        ParameterError: The strategy is unknown.
        ValueError: The way is unknown.
    """
    strategy, _, way = name.partition("+")
    way = way or "server"
    if way not in WAYS:
        raise ValueError(f"Expected a way of {', '.join(WAYS)} in {name!r}, got {way!r}.")
    known = lookup_strategy(strategy).config_class.model_fields
    demo: dict[str, Any] = CONFIG["parameters"]  # type: ignore[assignment]
    parameters = {k: v for k, v in demo.items() if k in known}
    parameters |= {"payload_dtype": "float16"} if way == "float16" else {}
    common = {**CONFIG, "seed": seed, "rounds": rounds, "progress": False}
    return {**common, "strategy": strategy, "parameters": parameters}, way


def run(name: str, seed: int, rounds: int, alpha: float) -> dict[str, Any]:
    """Train once, and return accuracies in %, the encoder's health, and the seconds."""
    train_x, train_y, test_x, test_y = load_data()
    parts = dirichlet_partition(train_y, len(PARTIES), alpha=alpha, seed=seed, min_size=16)
    config, way = setting(name, seed, rounds)
    begun = time.process_time()
    with session(PARTIES, mode="debug") as devices:
        how = {"aggregator": PlainAggregator(devices[0])} if way == "secure" else {}
        trainer = FederatedOrchestraTrainer(config, devices, **how)
        data = fed_ndarray({d: train_x[part] for d, part in zip(devices, parts, strict=True)})
        results = trainer.train(data)
        seconds = time.process_time() - begun
        probes = trainer.evaluate(train_x, train_y, test_x, test_y, LABELS)
    return {
        "name": name,
        "seed": seed,
        "cpu_seconds": seconds,
        "accuracy": {probe: 100 * r.mean for probe, r in probes[config["strategy"]].items()},
        "metrics": results.metrics,
    }


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return mean and standard deviation over seeds, a line per name; of two the difference."""
    probes = list(runs[0]["accuracy"])
    lines = [f"{'':<24}" + "".join(f"{name:>16}" for name in probes)]
    means = []
    for name in dict.fromkeys(r["name"] for r in runs):
        values = np.array([[r["accuracy"][p] for p in probes] for r in runs if r["name"] == name])
        means.append(values.mean(0))
        cells = (f"{m:.1f} +- {s:.1f}" for m, s in zip(values.mean(0), values.std(0), strict=True))
        lines.append(f"{name:<24}" + "".join(f"{cell:>16}" for cell in cells))
    if len(means) == 2:
        gain = means[1] - means[0]
        lines.append(f"{'gain':<24}" + "".join(f"{g:>+16.1f}" for g in gain))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Train all, print the table, and write the runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategies", nargs="+", default=["orchestra", "orchestra+secure"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=26)
    parser.add_argument("--alpha", type=float, default=0.5, help="of the Dirichlet split")
    parser.add_argument("--out", type=Path, default=Path("digits.json"))
    arguments = parser.parse_args(argv)
    rounds, alpha = arguments.rounds, arguments.alpha
    runs = []
    for seed in range(42, 42 + arguments.seeds):
        for name in arguments.strategies:
            runs.append(run(name, seed, rounds, alpha))
            print(name, seed, runs[-1]["accuracy"], flush=True)
    print(table(runs))
    write_json(arguments.out, {"rounds": rounds, "alpha": alpha, "runs": runs})


if __name__ == "__main__":
    main()
