"""The tables of the report."""

from collections.abc import Sequence

from orchestra_strategy.audit.attacks.scores import Leakage
from orchestra_strategy.audit.report.verdicts import verdict
from orchestra_strategy.audit.results import Audit, Result
from orchestra_strategy.audit.utility import LABELS_PER_CLASS, Utility
from orchestra_strategy.evaluation import HtmlTable

__all__ = [
    "columns_table",
    "membership_table",
    "refused_table",
    "replies_table",
    "summary_table",
    "verdicts_table",
]


def verdicts_table(audit: Audit) -> HtmlTable:
    """Return the verdicts, one per setting."""
    rows = [[result.row.user_type, result.name, verdict(result)] for result in audit.results]
    return HtmlTable(["what the party sends", "protection", "verdict"], rows, "")


def summary_table(audit: Audit) -> HtmlTable:
    """Return setting -> utility -> leakage: a row per kind of user and setting, and the control."""
    headers = [
        *("user type", "privacy", "epsilon", "utility", "learnt"),
        *("samples recovered", "dB gained", "member AUC, %"),
    ]
    rows = [[result.row.user_type, result.name, *_summary(result)] for result in audit.results]
    rows.append(["untrained (control)", "", "", _utility(audit.untrained), "", "", "", ""])
    kind = (
        f"effective rank of the features (no labels, or a class has fewer than {LABELS_PER_CLASS})"
    )
    if audit.untrained.probe is not None:
        kind = (
            f"linear probe with {LABELS_PER_CLASS} labels per class, accuracy in %, mean ± "
            "deviation over draws of the labels"
        )
    deltas = sorted({f"{r.delta:g}" for r in audit.results if r.delta is not None})
    bound = f" Epsilon: of all the training, at delta {', '.join(deltas)}." if deltas else ""
    caption = f"Utility: {kind}.{bound} AUC: the signal that tells most, with its 95 % interval."
    return HtmlTable(headers, rows, caption)


def _summary(result: Result) -> list[str]:
    leakage, auc = result.leakage, result.worst_membership
    beats = {True: "yes", False: "no", None: ""}[result.beats_untrained]
    return [
        "none" if result.epsilon is None else f"{result.epsilon:.3g}",
        _utility(result.utility),
        beats,
        "" if leakage is None else f"{leakage.leaked} of {leakage.samples}",
        "" if leakage is None else f"{leakage.above_control:+.1f}",
        "" if auc is None else f"{100 * auc.value:.0f} [{100 * auc.low:.0f}, {100 * auc.high:.0f}]",
    ]


def _utility(utility: Utility) -> str:
    return f"{utility.effective_rank:.1f}" if utility.probe is None else utility.probe.percent()


def replies_table(results: Sequence[Result]) -> HtmlTable:
    """Return the scores of the attacked replies of one kind of user; the first ones are pictured.

    Args:
        results: Of one kind of user.
    """
    headers = ["privacy", "reply", "attack", "dB", "mean", "random", "likeness", "mean", "random"]
    rows = [
        [result.name, reply.index + 1, reply.attack, *_numbers(reply.leakage)]
        for result in results
        for reply in result.replies
    ]
    caption = (
        "Likeness to what was searched for, in dB and as structural similarity (0 to 1): of the "
        "attack, of the mean of other samples, and of other samples at random. Reply 1 is pictured."
    )
    return HtmlTable([*headers, "recovered"], rows, caption)


def _numbers(scores: Leakage) -> list[str]:
    dbs = (scores.psnr, scores.control_mean_psnr, scores.control_random_psnr)
    likeness = (scores.ssim, scores.control_mean_ssim, scores.control_random_ssim)
    told = [*(f"{v:.1f}" for v in dbs), *(f"{v:.2f}" for v in likeness)]
    return [*told, f"{scores.leaked} of {scores.samples}"]


def columns_table(results: Sequence[Result]) -> HtmlTable:
    """Return for a table how near the attack came to each column, in the column's units.

    Args:
        results: Of one kind of user.
    """
    names = [column.name for column in results[0].columns]
    headers = ["column", "guess"]
    headers += [result.name for result in results]
    rows = []
    for i, name in enumerate(names):
        attacks = [f"{result.columns[i].attack:.3g}" for result in results]
        rows.append([name, f"{results[0].columns[i].guess:.3g}", *attacks])
    caption = (
        "Median absolute error of what was recovered, in each column's own units, beside that of "
        "guessing the mean of other rows."
    )
    return HtmlTable(headers, rows, caption)


def membership_table(results: Sequence[Result], members: int) -> HtmlTable:
    """Return all signals of membership inference of one kind of user."""
    rows = [
        [
            *(result.name, auc.signal, f"{auc.value:.3f}"),
            f"{auc.low:.3f} to {auc.high:.3f}",
            "yes" if auc.leaks else "no",
        ]
        for result in results
        for auc in result.membership
    ]
    headers = ["privacy", "signal", "AUC", "95 % interval", "leaks"]
    return HtmlTable(headers, rows, f"{members} members against {members} others")


def refused_table(audit: Audit) -> HtmlTable:
    """Return what the strategy refuses, and which attacks could not be tried."""
    not_tried = [
        (result.row.user_type, result.name, f"attack {name}: {reason}")
        for result in audit.results
        for name, reason in result.not_tried
    ]
    rows = [list(row) for row in (*audit.refused, *not_tried)]
    caption = "Settings that the strategy does not run, and attacks that could not be tried"
    return HtmlTable(["user type", "privacy", "reason"], rows, caption)
