"""Settings of a training that all parties of a cluster must have in common."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestra_strategy.cluster.code_digest import digest_of_class
from orchestra_strategy.runtime.checks import our_strategy
from orchestra_strategy.runtime.cluster_session import agree

__all__ = ["agree_on_manifest", "agree_on_training", "as_texts"]

# Where a party's own machine is described: its peers' need not be the same.
_LOCAL = frozenset({"party", "torch_threads", "user_workers"})
# Compared, and not shown: whoever knows it can repeat the noise.
_SECRET = frozenset({"noise_seed"})


def agree_on_training(
    action: str,
    run: Mapping[str, Any],
    model: Mapping[str, Any],
    parameters: Mapping[str, Any],
    parties: Sequence[str],
    server: str,
) -> None:
    """Compare what is about to be trained with the other parties'; alone, do nothing.

    Args:
        action: ``train`` or ``resume``.
        run: ``strategy``, rounds, seed, and when checkpoints are written.
        model: The network's options.
        parameters: The strategy's, with their defaults.
        parties: Who trains.
        server: Who aggregates, or which aggregator.

    Raises:
        PeersDifferError: Something differs; each such name is listed with each party's value.
        ClusterError: A party does not come in time, is lost, or has stopped.
    """
    values = {"action": action, **run, "parties": list(parties), "server": server}
    values["code of the strategy"] = digest_of_class(our_strategy(run["strategy"]))
    agree("training", as_texts(values, model, parameters))


def agree_on_manifest(manifest: Sequence[Mapping[str, Any]]) -> None:
    """Compare what leaves a party with what the others say of it; alone, do nothing.

    Raises:
        PeersDifferError: An entry differs.
    """
    rows = {f"manifest entry {row['name']}": json.dumps(dict(row), default=str) for row in manifest}
    agree("manifest", rows)


def as_texts(
    values: Mapping[str, Any], model: Mapping[str, Any], parameters: Mapping[str, Any]
) -> dict[str, str]:
    """Return settings as parties show them to each other, a text by name.

    Args:
        values: Of the run.
        model: Of the network.
        parameters: Of the strategy; those that describe a party's own machine are left out.
    """
    common = {name: value for name, value in parameters.items() if name not in _LOCAL}
    network = {f"model.{name}": value for name, value in model.items()}
    return {k: _text(k, v) for k, v in {**values, **network, **common}.items()}


def _text(name: str, value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    if name in _SECRET:
        return f"(sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"
    return text
