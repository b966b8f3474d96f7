"""What ``payload_bits`` costs on digits under user-level privacy, and what it saves.

Two parties of 50 virtual users each, as in :mod:`experiments.privacy_curve`, train
``orchestra_private`` with updates in float32 and in 16, 8 and 4 bits:
``python -m experiments.rounded_updates --out bits.json`` prints the probe with 5 labels a class and
the bytes of a round, for each noise multiplier.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from demo_custom_strategy import load_data
from experiments.privacy_curve import MODEL, PARAMETERS, PARTIES, privacy_of
from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import session
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.evaluation import write_json

ROUNDS = 5
BITS = (None, 16, 8, 4)


def run(noise: float, bits: int | None, seed: int) -> dict[str, Any]:
    """Train once; return the probe in %, and the bytes up and down of a party's round."""
    train_x, train_y, test_x, test_y = load_data()
    order = np.random.default_rng(seed).permutation(len(train_x))
    parameters = {**PARAMETERS, **privacy_of(noise), "user_type": "multiuser_aggregate"}
    parameters["local_epochs"] = 5
    config = {
        "strategy": "orchestra_private",
        **{"seed": seed, "rounds": ROUNDS, "progress": False},
        "model": {**MODEL, "in_channels": 1},
        # The same noise for all, so that they differ in the rounding alone.
        "parameters": {**parameters, "payload_bits": bits, "noise_seed": seed, "health_samples": 0},
    }
    with session(PARTIES, mode="debug") as devices:
        trainer = FederatedOrchestraTrainer(config, devices)
        halves = zip(devices, np.array_split(order, len(devices)), strict=True)
        results = trainer.train(fed_ndarray({d: train_x[half] for d, half in halves}))
        probes = trainer.evaluate(train_x, train_y, test_x, test_y, (5,))
    work = results.ledger[-1]
    return {
        **{"noise": noise, "bits": bits, "seed": seed, "epsilon": results.epsilon},
        "probe": {name: 100 * by["5"].mean for name, by in probes.items()},
        "snr": results.history["privacy_snr"],
        **{way: work[f"bytes_{way}_per_party"] for way in ("up", "down")},
    }


def main(argv: list[str] | None = None) -> None:
    """Run all, and print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--noises", type=float, nargs="+", default=[0.1])
    parser.add_argument("--out", type=Path, default=Path("rounded_updates.json"))
    arguments = parser.parse_args(argv)
    runs = []
    for noise in arguments.noises:
        for bits in BITS:
            runs += [run(noise, bits, seed) for seed in arguments.seeds]
            write_json(arguments.out, runs)
            same = [r for r in runs if (r["noise"], r["bits"]) == (noise, bits)]
            probe = [r["probe"]["orchestra_private"] for r in same]
            print(
                f"noise {noise:g}, bits {bits}: {np.median(probe):.1f} ({min(probe):.1f} to "
                f"{max(probe):.1f}) %, {same[0]['up']:,} bytes up, {same[0]['down']:,} down",
                json.dumps({n: same[0]["probe"][n] for n in ("pixels", "untrained")}),
                flush=True,
            )


if __name__ == "__main__":
    main()
