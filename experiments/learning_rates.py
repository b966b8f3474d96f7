"""What a learning rate does to Orchestra at one party: rotation loss, and rank of projections.

    python -m experiments.learning_rates --data FOLDER --out benchmarks/results/learning_rates.json

``FOLDER`` is that of ``experiments.cifar_experiments``; the network is that of preset ``cpu``, its
first party's 500 images (Dirichlet 0.1, seed 11) are trained on for 64 steps, and no test image is
opened. The global clusters are the party's own memory after round 0. Per 16 steps: means of the
losses, of the gradient's length and of its part at the degeneracy head; and the effective rank of
the projections of 500 images that nobody has trained on. Finished points are kept.
"""

import argparse
import platform
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.cifar import make_split, read_cifar
from experiments.settings import load_experiment
from orchestra_strategy import orchestra_model
from orchestra_strategy.algorithms.ema import frozen_statistics
from orchestra_strategy.algorithms.orchestra_objective import OrchestraObjective, OrchestraSettings
from orchestra_strategy.algorithms.simclr import SimCLRObjective, SimCLRSettings
from orchestra_strategy.data.augmentation.views import build_views
from orchestra_strategy.evaluation import write_json
from orchestra_strategy.evaluation.geometry import effective_rank
from orchestra_strategy.files import parse_json

VIEWS = build_views("colour")
BATCH, STEPS, EVERY, SEED = 32, 64, 16, 11
CALM = {"deg_length": 4.0}
PLUS = {**CALM, "balance": "memory", "target_temperature": 0.05, "contrast_weight": 1.0}
POINTS: list[tuple[str, float, dict[str, Any]]] = [
    *(("orchestra", lr, {}) for lr in (0.01, 0.03)),
    ("orchestra", 0.03, {"deg_weight": 0.0}),
    *(("orchestra", lr, {"deg_length": 1.0}) for lr in (0.01, 0.03)),
    *(("orchestra", lr, CALM) for lr in (0.01, 0.03, 0.1)),
    *(("orchestra", lr, PLUS) for lr in (0.03, 0.1)),
    ("fed_simclr", 0.03, {}),
]


def objective_of(name: str, model: nn.Module, x: Tensor, options: dict[str, Any]) -> Any:
    """Return an objective that is ready for a step on images x (n, 3, H, W)."""
    generator = torch.Generator().manual_seed(1)
    if name == "fed_simclr":
        return SimCLRObjective(model, VIEWS, SimCLRSettings(**options), generator)
    made = OrchestraObjective(model, VIEWS, OrchestraSettings(**options), generator)
    ids = torch.arange(len(x))
    batches = [ids[start : start + BATCH] for start in range(0, len(x), BATCH)]
    made.fill_memory({"inputs": x[rows], "ids": rows} for rows in batches)
    made.centroids = made.memory.rows.clone()
    return made


def train(name: str, lr: float, options: dict[str, Any], x: Tensor, other: Tensor) -> list[Any]:
    """Train one party from the same start, and return a row per :data:`EVERY` steps."""
    torch.manual_seed(0)
    model = orchestra_model("resnet8", 3).train()
    objective = objective_of(name, model, x, options)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)
    rows, steps = [], []
    for step in range(STEPS):
        ids = torch.randperm(len(x), generator=objective.generator)[:BATCH]
        loss = objective(model, {"inputs": x[ids], "ids": ids})
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        steps.append(_numbers(model, loss))
        if step % EVERY == EVERY - 1:
            means = {key: mean(s[key] for s in steps[-EVERY:]) for key in steps[-1]}
            rows.append({"step": step + 1, **means, "effective_rank": _rank(model, other)})
    return rows


def _numbers(model: Any, loss: Any) -> dict[str, float]:
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    length = torch.stack([g.square().sum() for g in grads.values()]).sum().sqrt().item()
    head = grads.get("degeneracy_head.weight")
    parts = {key: value.item() for key, value in loss.parts.items()}
    told = {"loss": loss.total.item(), **parts, "gradient": length}
    return told if head is None else {**told, "gradient_of_head": head.norm().item()}


@torch.no_grad()
def _rank(model: Any, other: Tensor) -> float:
    view = VIEWS(other, torch.Generator().manual_seed(3)).x1
    with frozen_statistics(model):
        return effective_rank(F.normalize(model.projector(model.backbone(view)), dim=1))


def main() -> None:
    """Measure what is missing, and print all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder with the images")
    parser.add_argument("--out", type=Path, default=Path("learning_rates.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    setting = load_experiment("cpu", {"held_out": True, "test_size": 1000})
    split = make_split(*read_cifar(args.data), setting, SEED)
    x, other = (
        torch.from_numpy(np.array(part)) for part in (split.parties[0].x, split.test.x[:500])
    )
    done = parse_json(args.out.read_bytes())["points"] if args.out.is_file() else []
    for name, lr, options in POINTS:
        point = {"strategy": name, "lr": lr, "options": options}
        if not any(all(p[k] == v for k, v in point.items()) for p in done):
            done.append({**point, "rows": train(name, lr, options, x, other)})
            machine = {"python": platform.python_version(), "torch": torch.__version__}
            write_json(
                args.out,
                {"command": __doc__.splitlines()[2].strip(), "machine": machine, "points": done},
            )
    for point in done:
        last = {key: round(value, 2) for key, value in point["rows"][-1].items()}
        print(point["strategy"], point["lr"], point["options"], last)


if __name__ == "__main__":
    main()
