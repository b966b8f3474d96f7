"""A training's results as SecretFlow's report, which a platform shows as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestra_strategy.host_component import Reporter
from orchestra_strategy.runtime.training import TrainingResults

__all__ = ["training_report"]

_COST = ("seconds", "samples", "images_per_second", "bytes_up_per_party", "left_out")


def training_report(name: str, results: TrainingResults, facts: Mapping[str, Any]) -> Any:
    """Return the report, a DistData.

    Args:
        name: Of the report.
        results: What the training returned.
        facts: What else stands on the first page, by name.
    """
    report = Reporter(name=name, desc="Training of an encoder by Orchestra")
    report.add_tab(dict(facts) | _outcome(results), name="summary", desc="What has been trained")
    pages = {
        "losses": ("train_", "Losses by round, averaged over the parties' samples"),
        "health": ("health_", "The encoder's health by round: is it about to collapse?"),
        "privacy": ("privacy_", "Epsilon by round, the largest of the parties'"),
    }
    for page, (prefix, meaning) in pages.items():
        curves = {k.removeprefix(prefix): v for k, v in results.history.items() if _is(k, prefix)}
        if curves and results.rounds:
            _add(report, page, meaning, curves, results.ledger)
    costs = {key: [_plain(row[key]) for row in results.ledger] for key in _COST}
    if results.ledger:
        _add(report, "cost", "What each round cost", costs, results.ledger)
    entries = {key: [_plain(row[key]) for row in results.manifest] for key in _keys(results)}
    table = Reporter.build_table(entries, desc="All that left a party, and who saw it")
    report.add_tab(table, name="manifest", desc="What leaves a party")
    return report.to_distdata()


def _outcome(results: TrainingResults) -> dict[str, Any]:
    """Return how the training ended; what there is none of is left out."""
    found = {
        "rounds": results.rounds,
        "seconds": results.seconds,
        "stop_reason": results.stop_reason,
        "epsilon": results.epsilon,
        "delta": results.delta,
        "checkpoint": results.checkpoint,
        **{f"final_{key}": value for key, value in results.metrics.items()},
    }
    return {key: value for key, value in found.items() if value is not None}


def _is(name: str, prefix: str) -> bool:
    return name.startswith(prefix)


def _add(
    report: Any,
    page: str,
    meaning: str,
    curves: Mapping[str, Sequence[Any]],
    ledger: Sequence[Mapping[str, Any]],
) -> None:
    """Add a table with a row for each round."""
    rounds = [int(row["round"]) for row in ledger]
    table = Reporter.build_table(
        {"round": rounds, **curves}, desc=meaning, index=[str(r) for r in rounds]
    )
    report.add_tab(table, name=page, desc=meaning)


def _keys(results: TrainingResults) -> list[str]:
    return list(dict.fromkeys(key for row in results.manifest for key in row))


def _plain(value: Any) -> bool | int | float | str:
    """Return a value that a report can show."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return " x ".join("any" if one is None else str(one) for one in value)
    return "" if value is None else str(value)
