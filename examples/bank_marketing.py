"""Tables at three parties: bank marketing, with and without the column that gives the answer away.

The UCI table "Bank Marketing" (S. Moro, P. Cortez, P. Rita, Decision Support Systems 62, 2014) has
16 columns and whether a customer has subscribed. Three banks train one encoder without labels; then
linear probes on 20, 100 and all labels of a fourth set of rows are measured by AUC. ``duration``,
the length of the call, is known only when the answer is, so a second table goes without it.

Run: ``python examples/bank_marketing.py --data bank-full.csv.gz``.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import agree_on_tables, session
from orchestra_strategy.data import load_local, one_hot_columns

PARTIES = ["alice", "bob", "carol"]
PARAMETERS = {
    **{"batch_size": 256, "local_epochs": 1, "lr": 0.02, "views": "table"},
    **{"num_global_clusters": 32, "num_local_clusters": 16, "memory_size": 128},
}


def deal_out(table: pd.DataFrame, rows: int, folder: Path, seed: int) -> None:
    """Write a CSV for each party, one to draw labels from and one to measure on."""
    table = table.sample(frac=1.0, random_state=seed)
    names = [*PARTIES, "labelled", "test"]
    if len(table) < rows * len(names):
        raise SystemExit(f"Expected {rows * len(names)} rows, got {len(table)}; lower `--rows`.")
    for i, name in enumerate(names):
        table.iloc[i * rows : (i + 1) * rows].to_csv(folder / f"{name}.csv", index=False)


def train_and_measure(
    table: pd.DataFrame, folder: Path, rounds: int, labels: list[int | None], seed: int
) -> dict[str, dict[str, Any]]:
    """Return the probes' results, by features and probe."""
    columns = [name for name in table.columns if name != "y"]
    with session(PARTIES, mode="debug") as devices:
        paths = {device: folder / f"{device.party}.csv" for device in devices}
        # What all parties have to know alike: names of categories, means and deviations.
        options = agree_on_tables(
            paths,
            columns=columns,
            categories="agree",
            standardise="agree",
        )
        one_hot = one_hot_columns(columns, options["categories"])
        config = {
            "rounds": rounds,
            "seed": seed,
            "model": {
                "backbone": "mlp",
                "in_channels": None,
                "hidden_dim": 64,
                "projection_dim": 64,
            },
            "parameters": {**PARAMETERS, "view_options": {"one_hot": one_hot}},
            "data_options": options,
            "progress": False,
        }
        trainer = FederatedOrchestraTrainer(config, devices)
        trainer.train(paths)
        more = {"label_column": "y", "class_names": ["no", "yes"]}
        pool, test = (
            load_local(folder / f"{name}.csv", **options, **more) for name in ("labelled", "test")
        )
        # Rows of a table may be equal without being the same customer.
        return trainer.evaluate(
            pool.samples, pool.labels, test.samples, test.labels, labels, allow_duplicates=True
        )


def main(argv: list[str] | None = None) -> None:
    """Print AUC by features and number of labels, for both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="bank-full.csv, .gz or not")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--rows", type=int, default=4000, help="of each party and each set")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    whole = pd.read_csv(arguments.data, sep=None, engine="python")  # by semicolons or commas
    for name, table in {
        "all columns": whole,
        "without duration": whole.drop(columns="duration"),
    }.items():
        with tempfile.TemporaryDirectory() as folder:
            deal_out(table, arguments.rows, Path(folder), arguments.seed)
            scores = train_and_measure(
                table, Path(folder), arguments.rounds, [10, 50, None], arguments.seed
            )
        print(f"{name:18} {'20 labels':>12} {'100 labels':>12} {'all':>6}   (AUC in %)")
        for features, row in scores.items():
            cells = [row[f"{each} auc"].percent() for each in ("10", "50", "all")]
            label = "raw columns" if features == "columns" else features
            print(f"  {label:16} {cells[0]:>12} {cells[1]:>12} {cells[2]:>6}")


if __name__ == "__main__":
    main()
