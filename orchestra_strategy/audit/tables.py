"""The tables of the report."""

from orchestra_strategy.audit.results import Audit, Result
from orchestra_strategy.audit.scores import Leakage
from orchestra_strategy.audit.utility import LABELS_PER_CLASS, Utility
from orchestra_strategy.evaluation import HtmlTable

__all__ = ["membership_table", "refused_table", "replies_table", "summary_table"]


def summary_table(audit: Audit) -> HtmlTable:
    """Return setting -> utility -> leakage: a row per kind of user and setting, and the control."""
    headers = [
        *("user type", "privacy", "epsilon", "utility", "learnt"),
        *("images leaked", "PSNR gain", "member AUC, %"),
    ]
    rows = [[result.row.user_type, result.name, *_summary(result)] for result in audit.results]
    rows.append(["untrained (control)", "", "", _utility(audit.untrained), "", "", "", ""])
    kind = "effective rank of the features (no labels to measure by)"
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
        f"{leakage.leaked} of {leakage.samples}",
        f"{leakage.above_control:+.1f}",
        f"{100 * auc.value:.0f} [{100 * auc.low:.0f}, {100 * auc.high:.0f}]",
    ]


def _utility(utility: Utility) -> str:
    return f"{utility.effective_rank:.1f}" if utility.probe is None else utility.probe.percent()


def replies_table(audit: Audit) -> HtmlTable:
    """Return the scores of all attacked replies."""
    headers = ["user type", "privacy", "attack", "PSNR", "mean", "random", "SSIM", "mean", "random"]
    rows = [
        [result.row.user_type, result.name, reply.attack, *_numbers(reply.leakage)]
        for result in audit.results
        for reply in result.replies
    ]
    caption = "PSNR in dB and SSIM of the attack, of the mean of others, and of others at random"
    return HtmlTable([*headers, "leaked"], rows, caption)


def _numbers(scores: Leakage) -> list[str]:
    dbs = (scores.psnr, scores.control_mean_psnr, scores.control_random_psnr)
    likeness = (scores.ssim, scores.control_mean_ssim, scores.control_random_ssim)
    told = [*(f"{v:.1f}" for v in dbs), *(f"{v:.2f}" for v in likeness)]
    return [*told, f"{scores.leaked} of {scores.samples}"]


def membership_table(audit: Audit) -> HtmlTable:
    """Return all signals of membership inference."""
    rows = [
        [
            *(result.row.user_type, result.name, auc.signal, f"{auc.value:.3f}"),
            f"{auc.low:.3f} to {auc.high:.3f}",
            "yes" if auc.leaks else "no",
        ]
        for result in audit.results
        for auc in result.membership
    ]
    headers = ["user type", "privacy", "signal", "AUC", "95 % interval", "leaks"]
    return HtmlTable(headers, rows, f"{audit.members} members against {audit.members} others")


def refused_table(audit: Audit) -> HtmlTable:
    """Return what the strategy refuses."""
    return HtmlTable(
        ["user type", "privacy", "reason"],
        audit.refused,
        "Combinations that the strategy does not run, in its own words",
    )
