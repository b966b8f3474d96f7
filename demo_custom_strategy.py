"""Demo: four parties train one encoder on handwritten digits that none of them shows to another.

Real data (scikit-learn's digits), real SecretFlow parties (a local Ray by default), under two
minutes on two cores. Run it with ``make demo``, or ``python demo_custom_strategy.py --help``.
"""

import argparse
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import (
    OrchestraError,
    OrchestraFLModel,
    orchestra_model,
    registered_strategies,
    session,
)
from orchestra_strategy.data.partition import dirichlet_partition
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.evaluation import (
    results_table,
    with_controls,
    write_json,
)
from orchestra_strategy.host import Callback, reveal
from orchestra_strategy.runtime.training_page import Measured, write_training_report

PARTIES = ["alice", "bob", "carol", "dave"]
SEED = 42
CONFIG = {
    "strategy": "orchestra",
    "seed": SEED,
    "model": {"backbone": "conv4", "in_channels": 1},
    "parameters": {
        "batch_size": 32,
        "local_epochs": 3,
        "lr": 0.01,
        "num_global_clusters": 32,
        "num_local_clusters": 16,
        "memory_size": 128,
        "ema_decay": 0.99,
        "clustering_steps": 100,
    },
}

Digits = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]
console = Console()


def load_data() -> Digits:
    """Return train and test images (n, 8, 8) in [0, 1] and their labels, 80 : 20."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, digits.target, test_size=0.2, random_state=SEED, stratify=digits.target
    )
    return train_x, train_y, test_x, test_y


def show_parameter_passing(devices: list[Any], images: npt.NDArray[Any]) -> None:
    """Show the three ways to pass a parameter, and what happens to a mistyped one."""
    console.rule("Parameters: three ways, one check", align="left")
    common = {
        "server": devices[0],
        "device_list": devices[:2],
        "model": partial(orchestra_model, "conv4", in_channels=1),
        "num_local_clusters": 2,
        "memory_size": 16,
    }
    model = OrchestraFLModel(**common, strategy_config={"temperature": 0.5}, lr=0.02)
    for way, name in {"strategy_config={...}": "temperature", "lr=...": "lr"}.items():
        show(model, f"FLModel({way})", name)
    data = fed_ndarray(dict.fromkeys(devices[:2], images[:16]))
    model.fit(data, epochs=1, strategy_kwargs={"temperature": 0.2}, callbacks=[Ask(model)])
    try:
        OrchestraFLModel(**common, temprature=0.5)
    except OrchestraError as error:
        console.print(f"  {'a mistyped one is refused':<32} {str(error).split(' Known')[0]}")


def show(model: OrchestraFLModel, way: str, name: str) -> None:
    """Ask the parties' workers what they use now."""
    answers = {d.party: w.apply(parameter_at, name) for d, w in model.workers.items()}
    console.print(f"  {way:<32} {name} at the parties: {reveal(answers)}")


def parameter_at(worker: Any, name: str) -> Any:
    """Return a parameter as a party's worker uses it now."""
    return getattr(worker.config, name)


class Ask(Callback):  # type: ignore[misc]
    """Asks the parties for their temperature while a fit is under way."""

    def __init__(self, model: OrchestraFLModel) -> None:
        super().__init__()
        self.model = model

    def on_epoch_begin(self, epoch: Any = None, logs: Any = None) -> None:
        """Print the temperature."""
        show(self.model, "fit(strategy_kwargs={...})", "temperature")


def train(devices: list[Any], rounds: int, train_x: Any, train_y: Any) -> FederatedOrchestraTrainer:
    """Split the images over the parties, and train without their labels."""
    console.print("[bold]2. Data[/bold]   scikit-learn digits, 8x8 grey; Dirichlet 0.5 by class")
    parts = dirichlet_partition(train_y, len(devices), alpha=0.5, seed=SEED, min_size=16)
    for device, part in zip(devices, parts, strict=True):
        counts = np.bincount(train_y[part], minlength=10)
        console.print(f"     {device.party:<6} {len(part):>4} images, per class {counts.tolist()}")
    data = fed_ndarray({d: train_x[part] for d, part in zip(devices, parts, strict=True)})

    parameters = ", ".join(f"{k}={v}" for k, v in CONFIG["parameters"].items())  # type: ignore
    console.print(f"[bold]3. Config[/bold] {rounds} rounds, {parameters}")
    trainer = FederatedOrchestraTrainer({**CONFIG, "rounds": rounds}, devices)

    console.print("[bold]4. Model[/bold]  conv4 backbone, projector, rotation head at every party")
    trainer.setup_model()
    console.print("[bold]5. Training[/bold] without labels")
    trainer.train(data)
    return trainer


def save(out: Path, trainer: FederatedOrchestraTrainer, measured: Measured, seconds: float) -> None:
    """Write ``results.json`` for programs and ``report.html`` for people."""
    assert trainer.results is not None
    results = {**asdict(trainer.results), "settings": trainer.settings()}
    probes = measured.probes
    write_json(
        out / "results.json",
        {
            **results,
            "probes": {n: {k: r.mean for k, r in by.items()} for n, by in probes.items()},
            "spread": {n: {k: r.std for k, r in by.items()} for n, by in probes.items()},
            "seconds": seconds,
            "training_seconds": trainer.results.seconds,
            "registered": registered_strategies(),
        },
    )
    title = "Digits of four parties, learnt without labels"
    write_training_report(out / "report.html", title, results, measured)
    console.print(f"     {out / 'results.json'}, {out / 'report.html'}")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder for results")
    parser.add_argument("--mode", choices=["local", "debug"], default="local", help="SecretFlow's")
    parser.add_argument("--rounds", type=int, default=26, help="federated rounds (26)")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1:
        parser.error(f"Expected `--rounds` to be at least 1, got {arguments.rounds}.")
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Run the demo."""
    arguments = parse_arguments(argv)
    begun = time.perf_counter()
    console.rule("Registered strategies", align="left")
    console.print("  " + ", ".join(registered_strategies()))
    console.rule("Demo", align="left")
    console.print(f"[bold]1. Cluster[/bold] {len(PARTIES)} parties, mode {arguments.mode}")
    train_x, train_y, test_x, test_y = load_data()
    with session(PARTIES, mode=arguments.mode) as devices:
        trainer = train(devices, arguments.rounds, train_x, train_y)
        console.print("[bold]6. Evaluation[/bold] with few labels, beside two controls")
        probes = trainer.evaluate(train_x, train_y, test_x, test_y)
        both = (trainer.encoder(), trainer.untrained_encoder())
        features = with_controls(*both, train_x, test_x, name="orchestra")
        show_parameter_passing(devices, train_x)
    console.rule("Result", align="left")
    console.print(results_table(probes))
    seconds = time.perf_counter() - begun
    of_test = {name: test for name, (_, test) in features.items()}
    save(arguments.out, trainer, Measured(probes, of_test, test_y, seed=SEED), seconds)
    gain = 100 * (probes["orchestra"]["1"].mean - probes["pixels"]["1"].mean)
    console.print(
        f"[bold green]Done[/bold green] in {seconds:.0f} s: with one label per class, "
        f"{gain:+.1f} points over raw pixels. All that left a party is in "
        f"{arguments.out / 'report.html'}."
    )


if __name__ == "__main__":
    main()
