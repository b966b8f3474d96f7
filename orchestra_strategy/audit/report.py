"""The audit on paper: ``audit.json`` for programs, ``audit.html`` for a data-protection officer."""

from collections.abc import Sequence
from pathlib import Path

from orchestra_strategy.audit.objectives import OBJECTIVES
from orchestra_strategy.audit.pictures import draw_replies
from orchestra_strategy.audit.results import Audit, Reply, SettingResult, Utility, plain
from orchestra_strategy.audit.scores import MARGIN
from orchestra_strategy.evaluation import (
    HtmlPicture,
    HtmlSection,
    HtmlTable,
    write_html,
    write_json,
)

__all__ = ["limits", "summary_table", "write_report"]

SCHEMA = 1
_HOW = (
    "The server is honest but curious: it keeps to the protocol and knows the model, the loss, the "
    "number of samples and the training plan. It knows neither the samples nor which random "
    "views were drawn; what counts as recovered is a view that the network saw. The attack knows "
    "nothing of the defence.\n"
    "PSNR: how near a reconstruction is, in dB; SSIM: how alike it looks, 1 is equal. Both stand "
    "beside what is guessed without any reply: the mean of other samples, and other samples at "
    "random. A sample counts as leaked if one of its views is at least "
    f"{MARGIN:g} dB nearer than both guesses.\n"
    "Membership: the probability that a sample of the training looks more like one than a sample "
    "that was not trained on; 50 % is guessing. It counts as leaked if the 95 % interval is above "
    "50 %.\n"
    "Epsilon: the bound of differential privacy that clip and noise give, lower is stronger, and "
    "above about 10 it says little; it assumes what README.md lists. Without clip and noise there "
    "is none."
)


def limits(audit: Audit) -> list[str]:
    """Return what the audit does not cover, in sentences."""
    found = [
        "Where an attack succeeds there is a leak; where it fails only this attack has failed. A "
        "guarantee comes from epsilon alone.",
        "Replies are attacked in the first round, with an untrained network, when they tell most; "
        "a server that sends crafted weights is not covered.",
        f"{audit.config.images} samples are behind a reply: more of them hide each other better.",
    ]
    if "span" in audit.config.attacks and audit.config.strategy in OBJECTIVES:
        found.append(
            "The span attack reads the projector's first layer, whose gradient spans the features "
            f"of the batch as long as the batch is below its width ({audit.config.hidden_dim})."
        )
    if audit.config.strategy == "orchestra":
        found.append(
            "Orchestra's local centroids leave too, each a mean of several samples' projections, "
            "without noise: epsilon does not cover them and no attack here reads them."
        )
    return found


def write_report(audit: Audit, folder: Path) -> list[Path]:
    """Write ``audit.json`` and ``audit.html``, with pictures where the plots extra is installed.

    Args:
        audit: The outcome.
        folder: Where to; it is made where missing.

    Returns:
        The two files.
    """
    json_path, html_path = folder / "audit.json", folder / "audit.html"
    write_json(
        json_path,
        {
            "schema": SCHEMA,
            "data": audit.data,
            "sample_shape": list(audit.sample_shape),
            "members": audit.members,
            "config": audit.config.model_dump(mode="json"),
            "untrained": vars(audit.untrained),
            "results": [plain(result) for result in audit.results],
            "limits": limits(audit),
            "seconds": audit.seconds,
        },
    )
    pictures: list[str | HtmlTable | HtmlPicture] = []
    try:
        for index, user_type in enumerate(audit.config.user_types):
            path = folder / f"replies_{user_type}.png"
            draw_replies([(r.setting.name, r.replies[index]) for r in audit.results], path)
            pictures.append(HtmlPicture(path, f"{user_type}: what the network saw, and what came"))
    except ImportError as error:
        pictures = [f"No pictures: {error}"]
    sections = [
        HtmlSection("In short", [_subject(audit), _verdict(audit), summary_table(audit)]),
        HtmlSection("Replies", [_replies_table(audit)]),
        HtmlSection("Reconstructions", pictures),
        HtmlSection("Membership", [_membership_table(audit)]),
        HtmlSection("How to read this", [_HOW]),
        HtmlSection("What this audit does not cover", limits(audit)),
    ]
    write_html(html_path, f"Privacy audit: {audit.config.strategy} on {audit.data}", sections)
    return [json_path, html_path]


def _subject(audit: Audit) -> str:
    config = audit.config
    shape = "x".join(map(str, audit.sample_shape))
    return (
        f"Strategy {config.strategy} with backbone {config.backbone} ({config.norm} norm), "
        f"{audit.members} samples of {shape} for the training and as many held out, "
        f"{config.passes} passes in batches of {config.batch_size}, seed {config.seed}."
    )


def _verdict(audit: Audit) -> str:
    """Say in a sentence per setting what was found."""
    lines = []
    for result in audit.results:
        leaking = [
            f"{reply.user_type} ({reply.leakage.leaked} of {reply.leakage.samples})"
            for reply in result.replies
            if reply.leakage.leaked
        ]
        named = ", ".join(leaking)
        images = f"images recovered from {named}" if leaking else "no image recovered"
        told = [auc.signal for auc in result.membership if auc.leaks]
        members = f"membership shows in the {' and the '.join(told)}" if told else "no membership"
        lines.append(f"{result.setting.name}: {images}; {members}.")
    return "\n".join(lines)


def summary_table(audit: Audit) -> HtmlTable:
    """Return setting -> utility -> leakage, a row per privacy setting and one for the control."""
    headers = ["setting", "epsilon", "utility", "images leaked", "dB above guess", "membership AUC"]
    rows: list[Sequence[object]] = [_summary_row(result) for result in audit.results]
    rows.append(["untrained (control)", "", _utility(audit.untrained), "", "", ""])
    kind = "kNN accuracy, %" if audit.untrained.knn is not None else "effective rank"
    caption = (
        f"Utility: {kind}. Epsilon: of all the training, delta {audit.config.delta:g}. Images: of "
        "the kind of user that leaks most. AUC: the higher of its signals, with its 95 % interval."
    )
    return HtmlTable(headers, rows, caption)


def _summary_row(result: SettingResult) -> list[str]:
    worst = result.worst.leakage
    most = max(result.membership, key=lambda auc: auc.value)
    return [
        result.setting.name,
        _epsilon(result.epsilon_training),
        _utility(result.utility),
        f"{worst.leaked} of {worst.samples}",
        f"{worst.above_control:+.1f}",
        f"{100 * most.value:.0f} % [{100 * most.low:.0f}, {100 * most.high:.0f}]",
    ]


def _epsilon(value: float | None) -> str:
    if value is None:
        return "no bound"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _utility(utility: Utility) -> str:
    if utility.knn is None:
        return f"{utility.effective_rank:.1f}"
    return f"{100 * utility.knn:.1f}"


def _replies_table(audit: Audit) -> HtmlTable:
    headers = ["setting", "user type", "attack", "PSNR", "mean", "random", "SSIM", "mean", "random"]
    rows = [
        [result.setting.name, reply.user_type, reply.attack, *_numbers(reply), _leaked(reply)]
        for result in audit.results
        for reply in result.replies
    ]
    caption = "PSNR in dB and SSIM of the attack, of the mean of others, and of others at random"
    return HtmlTable([*headers, "leaked"], rows, caption)


def _numbers(reply: Reply) -> list[str]:
    scores = reply.leakage
    dbs = (scores.psnr, scores.control_mean_psnr, scores.control_random_psnr)
    likeness = (scores.ssim, scores.control_mean_ssim, scores.control_random_ssim)
    return [*(f"{v:.1f}" for v in dbs), *(f"{v:.2f}" for v in likeness)]


def _leaked(reply: Reply) -> str:
    return f"{reply.leakage.leaked} of {reply.leakage.samples}"


def _membership_table(audit: Audit) -> HtmlTable:
    rows = [
        [
            result.setting.name,
            auc.signal,
            f"{auc.value:.3f}",
            f"{auc.low:.3f} to {auc.high:.3f}",
            "yes" if auc.leaks else "no",
        ]
        for result in audit.results
        for auc in result.membership
    ]
    headers = ["setting", "signal", "AUC", "95 % interval", "leaks"]
    return HtmlTable(headers, rows, f"{audit.members} members against {audit.members} others")
