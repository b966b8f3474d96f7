"""The sentences of the report."""

from orchestra_strategy.audit.results import Audit, Result
from orchestra_strategy.audit.scores import MARGIN

__all__ = ["HOW_TO_READ", "in_short", "limits", "subject"]

HOW_TO_READ = (
    "The server is honest but curious: it keeps to the protocol and knows the model, the loss, the "
    "number of samples and the training plan. It knows neither the samples nor which random "
    "views were drawn; what counts as recovered is a view that the network saw. The attack knows "
    "nothing of the defence.\n"
    "Learnt: whether the encoder is better than the untrained one, by more than chance.\n"
    "Epsilon: the bound of differential privacy on the whole training, lower is stronger; above "
    "about 10 it promises little. Without noise there is no bound.\n"
    "Images leaked: how many of the attacked samples have a view that was found at least "
    f"{MARGIN:g} dB nearer than by both guesses made without any reply, the mean of other samples "
    "and other samples at random. PSNR gain: by how many dB reconstructions are nearer than the "
    "better of these guesses, on average; 0 or less is nothing gained.\n"
    "Member AUC: the probability that a sample of the training looks more like one than a "
    "sample that was not trained on; 50 % is guessing. It counts as leaked if the 95 % interval "
    "is above 50 %."
)


def subject(audit: Audit) -> str:
    """Return what was audited, in sentences."""
    config = audit.config
    shape = "x".join(map(str, audit.sample_shape))
    return (
        f"Strategy {config.strategy} with backbone {config.backbone} ({config.norm} norm), "
        f"{audit.members} samples of {shape} for the training and as many held out, "
        f"{config.rounds} rounds (local_gradient: as many steps), {config.replies} replies of "
        f"{config.images} samples attacked per row by {', '.join(config.attacks)}, seed "
        f"{config.seed}. It took {audit.seconds:.0f} s."
    )


def in_short(audit: Audit) -> str:
    """Say in a sentence per row what was found."""
    return "\n".join(_verdict(result) for result in audit.results)


def _verdict(result: Result) -> str:
    leakage = result.leakage
    images = f"{leakage.leaked} of {leakage.samples} images recovered"
    if not leakage.leaked:
        images = "no image recovered"
    told = [auc.signal for auc in result.membership if auc.leaks]
    members = f"membership shows in the {' and the '.join(told)}" if told else "no membership told"
    if result.beats_untrained is None:
        use = "utility not compared, for want of labels"
    elif result.beats_untrained:
        use = "the encoder is better than an untrained one"
    else:
        use = (
            "THE ENCODER IS NOT BETTER THAN AN UNTRAINED ONE, so what does not leak from it says "
            "little of one that has learnt"
        )
    bound = "" if result.epsilon is None else f" Epsilon {result.epsilon:.3g}."
    return f"{result.row.user_type}, {result.name}: {images}; {members}; {use}.{bound}"


def limits(audit: Audit) -> list[str]:
    """Return what the audit does not cover, in sentences."""
    config = audit.config
    found = [
        "Where an attack succeeds there is a leak; where it fails only this attack has failed. A "
        "guarantee comes from epsilon alone.",
        "Replies are attacked in the first round, with an untrained network, when they tell most; "
        "a server that sends crafted weights is not covered.",
        f"{config.images} samples are behind a reply: more of them hide each other better.",
        "Membership is tested by thresholds on single samples; stronger tests train many models of "
        "their own.",
    ]
    if "span" in config.attacks:
        found.append(
            "The span attack reads the projector's first layer, whose gradient spans the features "
            f"of the batch as long as the batch is below its width ({config.hidden_dim})."
        )
    if config.norm != "group":
        found.append(
            "With BatchNorm the features of a batch depend on each other. The span attack knows "
            "the mean of the batches' statistics alone, from the buffers that are sent, so that it "
            "fails more often; a stronger one need not."
        )
    if any(r.strategy.startswith("orchestra") and r.epsilon is None for r in audit.results):
        found.append(
            "Without privacy Orchestra's local centroids leave as they are, each a mean of several "
            "samples' projections; no attack here reads them."
        )
    return found
