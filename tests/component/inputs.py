"""Small tables in a platform's storage, and what a component is called with."""

import numpy as np
from secretflow.component.core import VTable, VTableParty
from secretflow_spec.core.utils import build_node_eval_param
from secretflow_spec.v1.data_pb2 import StorageConfig

PARTIES = ("alice", "bob")
COLUMNS = [f"x{i}" for i in range(6)]
SMALL = {
    "rounds": 2,
    "batch_size": 8,
    "local_epochs": 1,
    "health_samples": 16,
    "network/hidden_dim": 16,
    "network/projection_dim": 16,
    "strategy": "orchestra",
    "strategy/orchestra/num_global_clusters": 4,
    "strategy/orchestra/num_local_clusters": 2,
    "strategy/orchestra/memory_size": 16,
}


def storage(folder):
    return StorageConfig(type="local_fs", local_fs=StorageConfig.LocalFSConfig(wd=str(folder)))


def write_table(folder, party, rows=48, columns=COLUMNS, cells=None):
    """Write a CSV file of a party, and return the platform's description of it."""
    rng = np.random.default_rng(PARTIES.index(party))
    kinds = rng.integers(0, 3, rows)
    numbers = kinds[:, None] * np.arange(len(columns)) + rng.normal(size=(rows, len(columns)))
    lines = [",".join(["id", *columns, "y"])]
    for row in range(rows):
        line = [f"{party}{row}", *(f"{v:.5f}" for v in numbers[row]), str(kinds[row])]
        for name, cell in (cells or {}).items():
            if row == 3:
                line[1 + columns.index(name)] = cell
        lines.append(",".join(line))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{party}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return describe(party, features=dict.fromkeys(columns, "float"))


def describe(party, features, labels=("y",), null_strs=()):
    part = VTableParty.from_dict(
        party=party,
        uri=f"{party}.csv",
        format="csv",
        null_strs=list(null_strs),
        features=features,
        labels=dict.fromkeys(labels, "int"),
        ids={"id": "str"},
    )
    return VTable(name=f"{party}.csv", parties=[part]).to_distdata()


def train_call(tables, uri="model", **changed):
    attributes = {**SMALL, **changed}
    own = f"strategy/{attributes['strategy']}/"  # those of others may not be sent
    attributes = {
        k: v for k, v in attributes.items() if k.startswith(own) or not k.startswith("strategy/")
    }
    return build_node_eval_param(
        *("ml.train", "orchestra_train", "0.0.1"), attributes, list(tables), [uri, "report"]
    )


def embed_call(model, table, uri="features", **changed):
    return build_node_eval_param(
        *("ml.predict", "orchestra_embed", "0.0.1"), changed or None, [model, table], [uri]
    )
