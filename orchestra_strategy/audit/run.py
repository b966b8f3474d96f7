"""The audit: a party trains under every setting, answers queries, and is attacked.

The encoder that membership inference and utility are about is the trained one; replies are attacked
in the first round, see :mod:`~orchestra_strategy.audit.reply`.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from orchestra_strategy.algorithms.objective_bases import RowwiseObjective
from orchestra_strategy.audit.losses_by_objective import known_loss
from orchestra_strategy.audit.membership import (
    Auc,
    alignment_scores,
    auc_with_interval,
    loss_scores,
)
from orchestra_strategy.audit.party import Row, new_party, strategy_of, train, user_types_of
from orchestra_strategy.audit.reply import attacked_reply
from orchestra_strategy.audit.results import Audit, Result
from orchestra_strategy.audit.samples import Split, split_of
from orchestra_strategy.audit.settings import AuditConfig, parse_audit, setting_name
from orchestra_strategy.audit.utility import Utility, utility_of
from orchestra_strategy.audit.with_breaching import require_breaching
from orchestra_strategy.data.augmentation.views import Views, build_views
from orchestra_strategy.data.readers.local_data import LocalData
from orchestra_strategy.errors import OrchestraError, ParameterError
from orchestra_strategy.rng import torch_generator
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
        data: Images, perhaps with labels.
        config: What is audited.
        name: What the data are called in the report.
        tell: Called with a line of progress now and then.

    Raises:
        ParameterError: The configuration contradicts itself, or the strategy refuses all of it.
        DataError: The data cannot be audited.
    """
    begun = time.perf_counter()
    split = split_of(data, config)
    if "breaching" in config.attacks:
        require_breaching()  # now, and not after minutes of training
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
        data: Images, perhaps with labels.
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


def _untrained(config: AuditConfig, row: Row, split: Split) -> Utility:
    party = new_party(config, row, split.members, config.seed)
    return utility_of(party.model, split, _views(party), config.seed)


def _audit_row(config: AuditConfig, row: Row, split: Split, control: Utility) -> Result:
    begun = time.perf_counter()
    party = new_party(config, row, split.members, config.seed)
    rounds = train(party, config.rounds)
    spent = party.privacy_spent()
    utility = utility_of(party.model, split, _views(party), config.seed)
    return Result(
        row=row,
        strategy=strategy_of(config, row),
        rounds=rounds,
        epsilon=spent.get("epsilon"),
        delta=spent.get("delta"),
        utility=utility,
        untrained=control,
        beats_untrained=utility.beats(control),
        membership=_membership(party, split, config.seed),
        replies=tuple(attacked_reply(config, row, split, i) for i in range(config.replies)),
        seconds=time.perf_counter() - begun,
    )


def _views(party: SelfSupervisedStrategy) -> Views:
    return build_views(party.config.views, **party.config.view_options)


def _membership(party: SelfSupervisedStrategy, split: Split, seed: int) -> tuple[Auc, ...]:
    """Threshold the loss, where it is a sample's own, and the likeness of two views."""
    model: nn.Module = party.model
    model.eval()
    known, views = known_loss(model, party.objective), _views(party)
    own_loss = isinstance(party.objective, RowwiseObjective)
    found = []
    for signal in ("loss", "alignment") if own_loss else ("alignment",):
        scores = []
        for who, samples in (("members", split.members), ("others", split.others)):
            stream = torch_generator(seed, "attacker", 0, f"{signal} {who}")
            if signal == "loss":
                scores.append(loss_scores(model, known, samples, None, views, stream))
            else:
                scores.append(alignment_scores(model, samples, views, stream))
        found.append(auc_with_interval(scores[0], scores[1], signal))
    return tuple(found)
