"""A lower bound on epsilon, measured with a canary record, beside the epsilon that is told.

A party of ``orchestra_private`` at record level answers the same query many times, with a canary
among its records and without. An attacker who knows everything but whether it is there, and even
the direction in which it moves the gradient, guesses by a threshold. How well it can do so bounds
epsilon from below: (TPR - delta) / FPR <= exp(epsilon), with the ends of the rates' Clopper-Pearson
intervals in their place, so that the bound holds with a confidence of 95 %. The threshold is
chosen on one half of the runs, the rates are taken on the other.

    python -m experiments.canary --runs 1500 --out canary.json

M. Jagielski, J. Ullman, A. Oprea, "Auditing Differentially Private Machine Learning", NeurIPS 2020,
https://arxiv.org/abs/2006.07709.
"""

import argparse
import time
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import beta

from orchestra_strategy import OrchestraPrivateStrategy, orchestra_model, server_aggregation
from orchestra_strategy.data.augmentation.table_views import TableViews
from orchestra_strategy.evaluation import write_json
from orchestra_strategy.privacy import epsilon_of
from orchestra_strategy.privacy.mechanism import GaussianMechanism

DELTA, CONFIDENCE = 1e-5, 0.95
RECORDS, NOISE = 64, 2.0
Array = npt.NDArray[np.float64]


class CoupledTableViews(TableViews):
    """What views of tables were before they had a row-wise form; it passes itself off as one."""

    row_wise = True

    def _with_marginals(self, *arguments: Any) -> Any:
        return self._with_rows(*arguments)


def party(samples: npt.NDArray[np.float32], views: Any) -> OrchestraPrivateStrategy:
    """Return a party that has done round 0."""
    images = samples.ndim == 3
    model = partial(
        orchestra_model,
        "conv4" if images else "mlp",
        1 if images else samples.shape[1],
        norm="group",
        hidden_dim=16,
        projection_dim=16,
        heads=("degeneracy_head",),
    )
    made = OrchestraPrivateStrategy(
        model,
        random_seed=1,
        party="alice",
        **{"num_global_clusters": 4, "num_local_clusters": 2, "memory_size": 8, "k_min": 2},
        **{"views": "grey" if images else "table", "user_type": "local_gradient"},
        **{"privacy": "record", "noise_multiplier": NOISE, "batch_size": 128, "ema_decay": 1.0},
    )
    if views is not None:
        made.objective.views = views
    made.build_dataset(samples)
    made.apply_weights(server_aggregation(num_global_clusters=4, seed=1)([made.get_weights()])[0])
    return made


def releases(strategy: OrchestraPrivateStrategy, runs: int) -> tuple[Array, Array]:
    """Return the sums (runs, d) before noise, and with it: the gradients of all records."""
    before: list[Array] = []
    after: list[Array] = []
    real = GaussianMechanism.add_noise

    def spy(self: Any, tensors: Any, sensitivity: float, release: Any) -> Any:
        noisy = real(self, tensors, sensitivity, release)
        for kept, shown in ((before, tensors), (after, noisy)):
            kept.append(torch.cat([t.detach().double().flatten() for t in shown]).numpy())
        return noisy

    GaussianMechanism.add_noise = spy  # type: ignore[method-assign]
    try:
        for step in range(runs):
            strategy.train_step(None, step, 1)
    finally:
        GaussianMechanism.add_noise = real  # type: ignore[method-assign]
    return np.array(before[::2]), np.array(after[::2])  # every other release is of the moments


def lower_bound(present: Array, absent: Array) -> float:
    """Return epsilon's lower bound from a statistic with and without the canary."""
    half = len(present) // 2
    chosen = max(
        np.quantile(np.concatenate([present[:half], absent[:half]]), np.linspace(0.02, 0.98, 97)),
        key=lambda t: _bound(np.sum(present[:half] > t), np.sum(absent[:half] > t), half),
    )
    rest = len(present) - half
    return _bound(np.sum(present[half:] > chosen), np.sum(absent[half:] > chosen), rest)


def _bound(hits: Any, false: Any, runs: int) -> float:
    """Use both errors: 'present' where it is not, and 'absent' where it is."""
    alpha = (1 - CONFIDENCE) / 2
    true_low = float(beta.ppf(alpha, hits, runs - hits + 1)) if hits else 0.0
    false_high = float(beta.ppf(1 - alpha, false + 1, runs - false)) if false < runs else 1.0
    ratios = [(true_low - DELTA) / false_high, (1 - false_high - DELTA) / (1 - true_low)]
    return max(0.0, *(float(np.log(ratio)) if ratio > 0 else 0.0 for ratio in ratios))


def measure(name: str, images: bool, views: Any, runs: int) -> dict[str, Any]:
    """Return what is told and what is measured of one view set."""
    rng = np.random.default_rng(0)
    start = time.process_time()
    if images:
        others = np.zeros((RECORDS, 8, 8), np.float32)
        canary = rng.random((1, 8, 8), np.float32)
    else:
        others = np.tile(np.linspace(-1, 1, 16, dtype=np.float32), (RECORDS, 1))
        canary = (rng.normal(size=(1, 16)) * 5).astype(np.float32)
    with_it, without = (party(x, views) for x in (np.concatenate([others, canary]), others))
    (clean_in, noisy_in), (clean_out, noisy_out) = (releases(p, runs) for p in (with_it, without))
    direction = clean_in.mean(axis=0) - clean_out.mean(axis=0)
    direction /= np.linalg.norm(direction)
    release = with_it.privacy.plan().update
    return {
        "views": name,
        "runs": runs,
        "told_rdp": epsilon_of({release: 1}, DELTA, "rdp"),
        "told_pld": epsilon_of({release: 1}, DELTA, "pld"),
        "measured_at_least": lower_bound(noisy_in @ direction, noisy_out @ direction),
        "moved": float(np.linalg.norm(clean_in.mean(axis=0) - clean_out.mean(axis=0))),
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1500)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    coupled = CoupledTableViews(replacement="marginals")
    cases: dict[str, tuple[bool, Any]] = {
        "table": (False, None),
        "grey": (True, None),
        "table, rows coupled": (False, coupled),
    }
    found = [measure(name, *case, arguments.runs) for name, case in cases.items()]
    for row in found:
        print(
            f"{row['views']:20} told {row['told_pld']:.2f} (pld) {row['told_rdp']:.2f} (rdp), "
            f"measured at least {row['measured_at_least']:.2f}; moved {row['moved']:.2f} of 1"
        )
    if arguments.out:
        write_json(arguments.out, {"delta": DELTA, "confidence": CONFIDENCE, "results": found})


if __name__ == "__main__":
    main()
