"""The tables of a training's report: curves in words, manifest, rounds, settings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestra_strategy.evaluation import HtmlTable
from orchestra_strategy.runtime.manifest_groups import (
    bytes_by_time,
    manifest_groups,
    shape_in_words,
)

__all__ = [
    "UNIFORMITY",
    "curve_caption",
    "curves_table",
    "manifest_tables",
    "plain_settings",
    "rounds_table",
    "settings_table",
]

UNIFORMITY = (
    "Uniformity may rise in a training that goes well, and effective rank and cluster balance may "
    "fall (in the demo all three do): clustering gathers samples that belong together, which then "
    "spread less evenly. Where uniformity comes near 0 all features are one, and nothing is left "
    "of the encoder."
)
"""Why a curve that goes the wrong way may be a good one."""

_MANY_ROUNDS = 12
_WORDS = {
    "health_alignment": ("lower", "distance of two views of a sample: 0 the same, 2 unrelated"),
    "health_uniformity": (
        "lower, but it may rise",
        "how evenly features spread: 0 is all in one point",
    ),
    "health_effective_rank": ("higher", "directions that the features use"),
    "health_cluster_balance": ("higher", "how evenly the clusters are used: 1 is all alike"),
    "privacy_epsilon": ("lower", "what has been spent of the promise; it only rises"),
    "privacy_snr": ("higher", "a round's update over the noise on it"),
    "train_accuracy": ("higher", "accuracy on the samples that were trained on"),
}
_LOSS = ("lower", "a part of what is trained for; comparable within one setting alone")
_SUMMED = ("seconds", "samples", "rounds", "bytes_up_per_party", "bytes_down_per_party")


def curve_caption(name: str) -> str:
    """Return which direction of a curve is good.

    >>> curve_caption("health_effective_rank")
    'effective rank: better when higher'
    """
    return f"{_spoken(name)}: better when {_words(name)[0]}"


def curves_table(history: Mapping[str, Sequence[float]]) -> HtmlTable:
    """Return the first and the last value of each curve, and what it says."""
    rows = [
        [_spoken(name), f"{values[0]:.4g}", f"{values[-1]:.4g}", *_words(name)]
        for name, values in history.items()
        if len(values)
    ]
    headers = ["curve", "after round 1", "at the end", "better when", "what it is"]
    return HtmlTable(headers, rows, "Averaged over the parties' samples")


def manifest_tables(results: Mapping[str, Any]) -> list[Any]:
    """Return the manifest in groups with its totals, and entry by entry below.

    Args:
        results: Those of a training.
    """
    rows = results["manifest"]
    total = bytes_by_time(rows)
    groups = manifest_groups(rows)
    cells = [[g.name, f"{g.shape} {g.dtype}", g.size, g.when, g.combine, g.seen_by] for g in groups]
    headers = ["leaves a party", "what it is", "bytes at most", "when", "combined", "seen by"]
    totals = [
        [f"total {told}", "", f"{total[when]:,}", when, "", ""]
        for when, told in {"start": "before round 1", "round": "of a round"}.items()
    ]
    up = (results.get("traffic") or {}).get("up_per_party")
    if up is not None:
        totals.append(["total of the training", "", f"{up:,}", "", "", ""])
    single = [group.name for group in groups if group.per_sample == "yes"]
    caption = (
        "Of each party; both is at the start and in each round, and what is asked leaves where "
        f"somebody asks for it. Entries with a row per sample: {', '.join(single) or 'none'}."
    )
    entries = [[r["name"], shape_in_words(r), r["dtype"], f"{r['bytes']:,}"] for r in rows]
    folded = f"All {len(entries)} entries"
    return [
        HtmlTable(headers, cells, caption, totals),
        HtmlTable(["entry", "shape", "dtype", "bytes at most"], entries, folded=folded),
    ]


def rounds_table(ledger: Sequence[Mapping[str, Any]]) -> HtmlTable:
    """Return what each epoch of FLModel cost, and all together; folded where there are many."""
    hidden = ("train_", "health_", "privacy_", "val_")
    names = [n for n in ledger[0] if not n.startswith(hidden)] if ledger else []
    rows = [[i, *(_cell(row.get(n)) for n in names)] for i, row in enumerate(ledger, start=1)]
    sums = {n: sum(row.get(n) or 0 for row in ledger) for n in names if n in _SUMMED}
    totals = [["total", *(_cell(sums[n]) if n in sums else "" for n in names)]] if rows else []
    folded = f"All {len(rows)} rounds" if len(rows) > _MANY_ROUNDS else ""
    headers = ["epoch", *(name.replace("_", " ") for name in names)]
    if folded:
        total = ", ".join(
            f"{name.replace('_', ' ')} {_cell(value)}" for name, value in sums.items()
        )
        folded = f"{folded}, in all {total}"
    return HtmlTable(headers, rows, totals=totals, folded=folded)


def settings_table(settings: Mapping[str, Any]) -> HtmlTable:
    """Return settings, those within others by their path.

    >>> settings_table({"seed": 1, "model": {"backbone": "conv4", "weights": None}}).rows
    [['seed', '1'], ['model.backbone', 'conv4'], ['model.weights', 'not set']]
    """
    return HtmlTable(["setting", "value"], [[k, v] for k, v in _flat(settings)])


def plain_settings(value: Any) -> Any:
    """Return a setting as JSON has it: what JSON does not know, such as a function, as text.

    >>> plain_settings({"lr": 0.1, "seen": (1, math.inf)})
    {'lr': 0.1, 'seen': [1, 'inf']}
    """
    if isinstance(value, Mapping):
        return {str(k): plain_settings(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_settings(v) for v in value]
    if isinstance(value, bool | int | str | None):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", _setting(value)


def _setting(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value)) or "none"
    return "none" if value == {} else str(value)


def _words(name: str) -> tuple[str, str]:
    return _WORDS.get(name, _LOSS)


def _spoken(name: str) -> str:
    return name.removeprefix("health_").replace("_", " ")


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool | str) or value is None:
        return f"{value}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
