"""Choosing parameters without labels: train each point of a small grid, keep the best-spread one.

The score is alignment + uniformity (T. Wang, P. Isola, ICML 2020, arXiv 2005.10242), by which
Orchestra's authors chose their parameters where no party has labels: two views of a sample should
be near each other, and different samples evenly spread. Lower is better. It compares points of one
grid; between methods, or projections of different lengths, it says nothing.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestra_strategy.errors import DataError, ParameterError, PrivacyError
from orchestra_strategy.evaluation import write_json
from orchestra_strategy.files import parse_json
from orchestra_strategy.party.privacy import unit_of
from orchestra_strategy.runtime.fl_model import OrchestraFLModel

__all__ = ["Trial", "Tuning", "grid_points", "refuse_private", "tune"]


@dataclass(frozen=True)
class Trial:
    """One point of the grid.

    Attributes:
        parameters: The point.
        alignment: Mean squared distance of two views, averaged over the parties' samples.
        uniformity: Log of the mean Gaussian kernel between samples, averaged likewise.
        effective_rank: For the person who reads the table.
        collapsed: Why the encoder counts as collapsed, or None.
    """

    parameters: dict[str, Any]
    alignment: float
    uniformity: float
    effective_rank: float
    collapsed: str | None = None

    @property
    def score(self) -> float:
        """Return alignment + uniformity; infinite if the encoder collapsed."""
        return math.inf if self.collapsed else self.alignment + self.uniformity


@dataclass(frozen=True)
class Tuning:
    """What :func:`tune` returns: all trials, the best first."""

    trials: tuple[Trial, ...]

    @property
    def best(self) -> dict[str, Any]:
        """Return the parameters of the best trial.

        Raises:
            DataError: Every trial collapsed.
        """
        if self.trials[0].collapsed:
            raise DataError(
                f"Expected a trial whose encoder did not collapse, got none of {len(self.trials)}; "
                f"{self.trials[0].collapsed} Try a grid with lower `lr`."
            )
        return dict(self.trials[0].parameters)


def grid_points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of a grid's values, the last name varying fastest.

    Raises:
        ParameterError: The grid is empty, or a name has no list of values.

    >>> grid_points({"lr": [0.1, 0.2], "temperature": [0.5]})
    [{'lr': 0.1, 'temperature': 0.5}, {'lr': 0.2, 'temperature': 0.5}]
    """
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ParameterError(
                f"Expected `grid` to have a list of values for `{name}`, got {values!r}."
            )
    if not grid:
        raise ParameterError("Expected `grid` to name a parameter, got none.")
    return [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]


def tune(
    build: Callable[[dict[str, Any]], OrchestraFLModel],
    x: Any,
    grid: Mapping[str, Sequence[Any]],
    rounds: int,
    out_dir: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Tuning:
    """Train one model per point of the grid and rank the points by their score.

    Args:
        build: Makes a fresh model from the parameters of a point; called once per point.
        x: The parties' samples, as for ``fit``; the score is measured on them too.
        grid: Values to try, by the parameter's name.
        rounds: Of each trial.
        out_dir: Folder with a file per finished trial: an interrupted search goes on from there.
        identity: What else decides a trial (seed, model, other parameters); trials of another
            identity in ``out_dir`` are not reused.
        tell: Takes a line per trial.

    Raises:
        ParameterError: The grid cannot be used, or a point is out of range; nothing is trained.
        PrivacyError: A model has ``privacy``.
        DataError: A file in ``out_dir`` is no finished trial.
    """
    points = grid_points(grid)
    key = {"rounds": rounds, "identity": dict(identity or {})}
    trials = []
    for i, point in enumerate(points, start=1):
        file = None if out_dir is None else Path(out_dir) / f"{_name(point, key)}.json"
        if file is not None and file.is_file():
            trial = _finished(file)
        else:
            trial = _run(build, x, point, rounds)
            if file is not None:
                write_json(file, asdict(trial))
        trials.append(trial)
        if tell is not None:
            tell(f"trial {i}/{len(points)} {point}: score {trial.score:.3f}")
    return Tuning(tuple(sorted(trials, key=lambda trial: trial.score)))


def refuse_private(config: Any) -> None:
    """Refuse to search with privacy: each trial would release of the data, and none is counted.

    Raises:
        PrivacyError: ``privacy`` is not ``"none"``.
    """
    if unit_of(config).protected:
        raise PrivacyError(
            f"Expected `privacy` to be 'none' for a search, got {config.privacy!r}: every trial "
            "is a training of its own, and what it spends would be in nobody's ledger. Search on "
            "public data, or without privacy on data of one's own, and train with what was found."
        )


def _name(point: Mapping[str, Any], key: Mapping[str, Any]) -> str:
    text = json.dumps({"point": dict(point), **key}, sort_keys=True, default=str)
    return f"trial-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _finished(file: Path) -> Trial:
    try:
        return Trial(**parse_json(file.read_bytes()))
    except (OSError, TypeError, ValueError) as error:
        raise DataError(
            f"Expected `{file}` to be a finished trial, got {type(error).__name__}: {error}; "
            "remove it, and the trial is run again."
        ) from None


def _run(
    build: Callable[[dict[str, Any]], OrchestraFLModel], x: Any, point: dict[str, Any], rounds: int
) -> Trial:
    model = build(point)
    refuse_private(model.strategy_config)
    model.fit(x, epochs=rounds)
    overall, _ = model.evaluate(x, return_dict=True)
    found = {name: float(metric.result()) for name, metric in overall.items()}
    return Trial(
        point,
        found["alignment"],
        found["uniformity"],
        found["effective_rank"],
        collapsed=model.collapse_reason,
    )
