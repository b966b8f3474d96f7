"""The audit: a party trains under every setting, answers queries, and is attacked.

The encoder that membership inference and utility are about is the trained one; replies are attacked
in the first round, see :mod:`~orchestra_strategy.audit.answer`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from orchestra_strategy.algorithms.ema import frozen_copy
from orchestra_strategy.algorithms.model import parts_of
from orchestra_strategy.audit.answer import answer_of
from orchestra_strategy.audit.attacks.reply_attack import ReplyAttack
from orchestra_strategy.audit.attacks.scene import FirstCentroids, Outcome, Scene
from orchestra_strategy.audit.attacks.table import ATTACKS
from orchestra_strategy.audit.attacks.with_breaching import require_breaching
from orchestra_strategy.audit.audited_party import Row, new_party, strategy_of, train, user_types_of
from orchestra_strategy.audit.report.columns import column_errors
from orchestra_strategy.audit.results import Audit, Result
from orchestra_strategy.audit.samples import Split, split_of
from orchestra_strategy.audit.settings import AuditConfig, parse_audit, setting_name
from orchestra_strategy.audit.utility import Utility, utility_of
from orchestra_strategy.data.readers.local_data import LocalData
from orchestra_strategy.errors import OrchestraError, ParameterError, did_you_mean
from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy
from orchestra_strategy.threads import torch_threads

__all__ = ["audit_setting", "run_audit"]


def run_audit(
    data: LocalData,
    config: AuditConfig,
    name: str = "data",
    tell: Callable[[str], None] | None = None,
) -> Audit:
    """Audit a strategy on a party's own data; nothing leaves this process.

    Args:
        data: Images or a table, perhaps with labels.
        config: What is audited.
        name: What the data are called in the report.
        tell: Called with a line of progress now and then.

    Raises:
        ParameterError: The configuration contradicts itself, or the strategy refuses all of it.
        DataError: The data cannot be audited.
    """
    begun = time.perf_counter()
    _check_attacks(config)
    split = split_of(data, config)
    config = _with_categories(config, split)
    with torch_threads(config.threads):
        rows, refused = _possible(config, split)
        results: list[Result] = []
        control = _untrained(config, rows[0], split)
        for row in rows:
            results.append(_audit_row(config, row, split, control))
            if tell is not None:
                done = f"{len(results)} of {len(rows)}: {row.user_type}, {results[-1].name}"
                tell(f"{done}, {results[-1].seconds:.0f} s")
    return Audit(
        config=config,
        data=name,
        sample_shape=tuple(split.members.shape[1:]),
        members=len(split.members),
        untrained=control,
        results=tuple(results),
        refused=refused,
        seconds=time.perf_counter() - begun,
    )


def audit_setting(
    data: LocalData,
    parameters: Mapping[str, Any],
    user_type: str = "local_update",
    **audit: Any,
) -> Result:
    """Return the leakage of one strategy configuration: one row of the table.

    Args:
        data: Images or a table, perhaps with labels.
        parameters: The strategy's parameters, privacy among them.
        user_type: The kind of user.
        **audit: Other fields of :class:`~orchestra_strategy.audit.settings.AuditConfig`.

    Returns:
        ``leakage`` (PSNR of the best matches in dB, beside the controls'), ``worst_membership``
        (AUC with its 95 % interval), ``epsilon`` at ``delta``, ``utility`` and ``beats_untrained``.

    Raises:
        OrchestraError: The strategy refuses the configuration, or the data cannot be audited.
    """
    values = {**audit, "parameters": dict(parameters), "user_types": [user_type]}
    if "privacy" not in parameters:
        values.setdefault("privacy", [{}])
    config = parse_audit(values)
    if len(config.privacy_of(user_type)) != 1:
        raise ParameterError(
            f"Expected `privacy` to be one setting, got {len(config.privacy_of(user_type))}; use "
            "`run_audit` for several."
        )
    (result,) = run_audit(data, config).results
    return result


def _possible(
    config: AuditConfig, split: Split
) -> tuple[list[Row], tuple[tuple[str, str, str], ...]]:
    """Return the rows that the strategy takes, and the others with its reasons.

    Raises:
        OrchestraError: The strategy takes none of the rows of a privacy setting: its first reason.
    """
    rows, refused = [], []
    reasons: dict[str, OrchestraError] = {}
    for user_type in user_types_of(config):
        for privacy in config.privacy_of(user_type):
            row, name = Row(user_type, privacy), setting_name(privacy)
            try:
                new_party(config, row, split.members, config.seed)
            except OrchestraError as error:
                refused.append((user_type, name, str(error)))
                reasons.setdefault(name, error)
            else:
                rows.append(row)
    for name, reason in reasons.items():
        asked_for = config.privacy is not None or name == setting_name({})
        if asked_for and name not in {setting_name(row.privacy) for row in rows}:
            raise reason
    return rows, tuple(refused)


def _check_attacks(config: AuditConfig) -> None:
    """Refuse attacks that there are not, or whose package is not installed."""
    for name in config.attacks:
        if name not in ATTACKS:
            raise ParameterError(
                f"Expected `attacks` to be names of attacks, got {name!r}; "
                f"{did_you_mean(name, ATTACKS)}."
            )
    if "breaching" in config.attacks:
        require_breaching()  # now, and not after minutes of training


def _with_categories(config: AuditConfig, split: Split) -> AuditConfig:
    """Tell a table's views which columns hold one category together, as a training does."""
    options = config.parameters.get("view_options", {})
    own_views = config.parameters.get("views", "table") != "table"
    if not split.one_hot or own_views or "one_hot" in options:
        return config
    options = {**options, "one_hot": split.one_hot}
    return config.model_copy(update={"parameters": {**config.parameters, "view_options": options}})


def _untrained(config: AuditConfig, row: Row, split: Split) -> Utility:
    party = new_party(config, row, split.members, config.seed)
    return utility_of(party.model, split, party.views_for(party.config), config.seed)


def _audit_row(config: AuditConfig, row: Row, split: Split, control: Utility) -> Result:
    begun = time.perf_counter()
    party = new_party(config, row, split.members, config.seed)
    centroids = _FirstCentroids(party)
    rounds = train(party, config.rounds, centroids.watch)
    spent = party.privacy_spent()
    views = party.views_for(party.config)
    utility = utility_of(party.model, split, views, config.seed)
    scene = Scene(config, row, split, party, views, centroids=centroids.found)
    if any(isinstance(ATTACKS[name], ReplyAttack) for name in config.attacks):
        scene.answers = [answer_of(config, row, split, i) for i in range(config.replies)]
    outcomes, not_tried = _attacked(scene)
    result = Result(
        row=row,
        strategy=strategy_of(config, row),
        rounds=rounds,
        epsilon=spent.get("epsilon"),
        delta=spent.get("delta"),
        utility=utility,
        untrained=control,
        beats_untrained=utility.beats(control),
        outcomes=outcomes,
        not_tried=not_tried,
        columns=(),
        seconds=time.perf_counter() - begun,
    )
    return replace(result, columns=column_errors(result.replies, split))


def _attacked(scene: Scene) -> tuple[tuple[Outcome, ...], tuple[tuple[str, str], ...]]:
    """Return what the attacks found, and which could not be tried, with the reasons."""
    outcomes: list[Outcome] = []
    not_tried = []
    for name in scene.config.attacks:
        reason = ATTACKS[name].reason_against(scene)
        if reason is None:
            outcomes += ATTACKS[name].run(scene)
        else:
            not_tried.append((name, reason))
    return tuple(outcomes), tuple(not_tried)


class _FirstCentroids:
    """Keeps the first local centroids that leave a party, with the encoder that made them."""

    def __init__(self, party: SelfSupervisedStrategy) -> None:
        self.encoder = frozen_copy(parts_of(party.model).encoder)
        self.found: FirstCentroids | None = None

    def watch(self, wire: Any) -> None:
        """Look into a payload."""
        rows = wire["arrays"].get("local_centroids")
        if self.found is None and rows is not None and len(rows):
            self.found = FirstCentroids(Tensor(rows.copy()), self.encoder)
