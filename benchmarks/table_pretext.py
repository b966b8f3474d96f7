"""Does a harder pretext of tables help Orchestra? Bank marketing, three parties of 4,000 rows.

The UCI table "Bank Marketing" (S. Moro, P. Cortez, P. Rita, Decision Support Systems 62, 2014):
16 columns, and whether a customer has subscribed (11.7 % yes). Parties train ``orchestra`` without
labels, once with each pretext; linear probes on 10 and on 50 labels of each class (20 and 100 in
all) are measured by AUC on rows that nobody has trained on, beside the raw columns and the
untrained network. Parameters and pretext are chosen on ``--split held-out``; ``test`` has other
rows. ``duration``, the length of the call, is known only when the answer is: a second table is
without it.

Run: ``python benchmarks/table_pretext.py --data bank-full.csv.gz [--out FILE]``; 20 trainings.
"""

import argparse
import json
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from orchestra_strategy import OrchestraStrategy, orchestra_model, server_aggregation
from orchestra_strategy.data import LocalData, load_local
from orchestra_strategy.evaluation import extract_features, labelled_subset
from orchestra_strategy.evaluation.linear_probe import linear_probe

PARTIES = ("alice", "bob", "carol")
ROWS, POOL, TEST = 4000, 8000, 5000
TABLES = ["all columns", "without duration"]
CATEGORIES = {
    "poutcome": ["failure", "other", "success", "unknown"],
    "job": [
        "admin.",
        "blue-collar",
        "entrepreneur",
        "housemaid",
        "management",
        "retired",
        "self-employed",
        "services",
        "student",
        "technician",
        "unemployed",
        "unknown",
    ],
    "marital": ["divorced", "married", "single"],
    "education": ["primary", "secondary", "tertiary", "unknown"],
    "default": ["no", "yes"],
    "housing": ["no", "yes"],
    "loan": ["no", "yes"],
    "contact": ["cellular", "telephone", "unknown"],
    "month": ["apr", "aug", "dec", "feb", "jan", "jul", "jun", "mar", "may", "nov", "oct", "sep"],
}
COLUMNS = [*CATEGORIES, "day", "campaign", "duration", "pdays", "previous", "age", "balance"]
TRAINING: dict[str, Any] = {"batch_size": 256, "local_epochs": 1, "lr": 0.02, "views": "table"}
SIZES = {"num_global_clusters": 32, "clustering_steps": 100}


class Split(NamedTuple):
    """Rows of one seed: the parties', those with labels to draw from, and those to measure on."""

    parties: list[Any]
    pool: tuple[Any, Any]
    asked: tuple[Any, Any]
    one_hot: tuple[tuple[int, ...], ...]


@lru_cache
def table_of(path: Path, duration: bool) -> LocalData:
    return load_local(
        path,
        columns=[c for c in COLUMNS if duration or c != "duration"],
        label_column="y",
        class_names=["no", "yes"],
        categories=CATEGORIES,
        standardise="none",
    )


def split_of(path: Path, duration: bool, seed: int, held_out: bool) -> Split:
    data = table_of(path, duration)
    x, y = data.samples.copy(), data.labels
    assert y is not None
    order = np.random.default_rng([seed, 17]).permutation(len(x))
    ends = np.cumsum([len(PARTIES) * ROWS, POOL, TEST, TEST])
    trained, pool, chosen_on, test = (
        order[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)
    )
    numbers = sorted({*range(x.shape[1])} - {c for group in data.one_hot for c in group})
    # As parties that agree on mean and deviation by sums have it.
    x[:, numbers] -= x[trained][:, numbers].mean(axis=0)
    x[:, numbers] /= x[trained][:, numbers].std(axis=0)
    asked = chosen_on if held_out else test
    parts = [x[trained[i :: len(PARTIES)]] for i in range(len(PARTIES))]
    return Split(parts, (x[pool], y[pool]), (x[asked], y[asked]), data.one_hot)


def trained(split: Split, seed: int, rounds: int, dim: int, **views: Any) -> tuple[Any, Any, Any]:
    """Return the model before and after training, and the pretext's loss by round."""
    width = split.parties[0].shape[1]
    model = partial(orchestra_model, "mlp", width, hidden_dim=dim, projection_dim=dim)
    options = {"one_hot": split.one_hot, **views}
    parameters = {**TRAINING, **SIZES, "view_options": options, "health_samples": 0}
    parties = [OrchestraStrategy(model, seed, party=p, **parameters) for p in PARTIES]
    server = server_aggregation(seed=seed, **SIZES)
    before = OrchestraStrategy(model, seed).model.eval()

    def exchange(payloads: list[Any]) -> None:
        for party, reply in zip(parties, server(payloads), strict=True):
            party.apply_weights(reply)

    for party, rows in zip(parties, split.parties, strict=True):
        party.build_dataset(rows)
    exchange([party.get_weights() for party in parties])
    losses = []
    for step in range(rounds):
        exchange([party.train_step(None, step, 1)[0] for party in parties])
        losses.append(round(parties[0].get_logs()["train_degeneracy"], 4))
    return before, parties[0].model.eval(), losses


def auc(pool: Any, asked: Any, split: Split, seed: int) -> dict[str, Any]:
    """Return the mean AUC over five draws of labels, by their number."""
    found: dict[str, Any] = {}
    for each in (10, 50):
        values = []
        for draw in range(5):
            rows = labelled_subset(split.pool[1], each, np.random.default_rng([seed, draw]))
            labels = split.pool[1][rows]
            probe = linear_probe(pool[rows], labels, asked, split.asked[1], statistics_from=pool)
            values.append(roc_auc_score(split.asked[1], probe.scores))
        found[str(2 * each)] = float(np.mean(values))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pretexts", nargs="+", default=["rolled", "replaced"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--split", choices=["held-out", "test"], default="test")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {k: v for k, v in vars(args).items() if k not in ("data", "out")}
    result["tables"] = {}
    for name in args.tables:
        duration = name == TABLES[0]
        rows: dict[str, list[dict[str, Any]]] = {}
        for seed in range(args.seeds):
            split = split_of(args.data, duration, seed, args.split == "held-out")
            raw, asked = split.pool[0], split.asked[0]
            rows.setdefault("raw columns", []).append(auc(raw, asked, split, seed))
            for pretext in args.pretexts:
                before, model, losses = trained(split, seed, args.rounds, args.dim, pretext=pretext)
                if pretext == args.pretexts[0]:
                    old = [extract_features(before, x) for x in (raw, asked)]
                    rows.setdefault("untrained", []).append(auc(old[0], old[1], split, seed))
                new = [extract_features(model, x) for x in (raw, asked)]
                scores = auc(new[0], new[1], split, seed)
                rows.setdefault(pretext, []).append({**scores, "pretext_loss": losses})
                print(name, seed, pretext, scores, losses[-1], flush=True)
        table = {
            of: {
                **{n: float(np.mean([one[n] for one in each])) for n in ("20", "100")},
                **{f"{n} std": float(np.std([o[n] for o in each], ddof=1)) for n in ("20", "100")},
                "seeds": each,
            }
            for of, each in rows.items()
        }
        result["tables"][name] = table
        if args.out is not None:
            args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        for of, row in table.items():
            print(f"{of:20} {row['20']:.3f} {row['100']:.3f}")


if __name__ == "__main__":
    main()
