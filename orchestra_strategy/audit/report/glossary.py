"""The report's words, and what the audit does not cover."""

from orchestra_strategy.audit.attacks.scores import MARGIN
from orchestra_strategy.audit.attacks.table import ATTACKS
from orchestra_strategy.audit.results import Audit
from orchestra_strategy.audit.user_kinds import KINDS
from orchestra_strategy.evaluation import HtmlTable

__all__ = ["glossary", "limits", "subject"]

_WORDS = (
    ("server", "who combines what the parties send; here it is curious, and tries what it can"),
    ("encoder", "the network that is trained together; it turns a sample into a row of numbers"),
    ("sample, record", "one image, or one row of a table; a record is one that is to be protected"),
    ("gradient, update", "how the network would change, or has changed, by a party's samples"),
    ("reply", "what a party sends in a round; it is attacked in the first one, when it tells most"),
    (
        "epsilon, delta",
        "the promise of differential privacy: whether any one record (or user) took part changes "
        "the odds of whatever the server sees by a factor of at most exp(epsilon), but for a "
        "probability of delta. Lower is stronger; without noise there is no bound",
    ),
    ("record level, user level", "what is promised for one sample, or for one user with all of it"),
    (
        "recovered",
        f"found at least {MARGIN:g} dB nearer than by both guesses made without any reply: the "
        "mean of other samples, and other samples at random",
    ),
    ("dB", "a measure of likeness, higher is nearer; 0 dB gained is nothing gained"),
    (
        "membership",
        "whether a sample was part of the training. The AUC is the probability that a sample of "
        "the training looks more like one than another does; 50 % is guessing, and it counts as "
        "a leak where it is above 50 % with a chance of error of 1 in 1000",
    ),
    ("canary", "a planted record, the easiest to find that there can be, to try the noise itself"),
    ("learnt", "whether the encoder is better than an untrained one, by more than chance"),
)


def glossary() -> HtmlTable:
    """Return the words of the report, with the names of settings and attacks."""
    kinds = [(f"`{name}`", kind.sends) for name, kind in KINDS.items()]
    attacks = [(f"attack `{a.name}`", f"uses {a.sees}. {a.limits}") for a in ATTACKS.values()]
    rows = [list(row) for row in (*_WORDS, *kinds, *attacks)]
    return HtmlTable(["word", "meaning"], rows, "")


def subject(audit: Audit) -> str:
    """Return what was audited, in sentences."""
    config = audit.config
    shape = "x".join(map(str, audit.sample_shape))
    streams = "drawn from a secret of the party"
    if config.streams == "seed":
        streams = "drawn from a seed that the server knows, as in a simulation"
    return (
        f"Strategy {config.strategy}, {audit.members} samples of {shape} for the training and as "
        f"many held out, {config.rounds} rounds, {config.replies} replies of {config.images} "
        f"samples attacked per setting; without privacy the party's random choices were {streams}. "
        f"Attacks: {', '.join(config.attacks)}. Seed {config.seed}. It took {audit.seconds:.0f} s."
    )


def limits(audit: Audit) -> list[str]:
    """Return what the audit does not cover, in sentences."""
    config = audit.config
    found = [
        "Where an attack succeeds there is a leak; where it fails only this attack has failed. A "
        "guarantee comes from epsilon alone.",
        f"{config.images} samples are behind an attacked reply: more of them hide each other "
        "better.",
        *(f"{name}: {ATTACKS[name].limits}" for name in config.attacks),
    ]
    if config.norm != "group":
        found.append(
            "With BatchNorm the features of a batch depend on each other, so that attacks on a "
            "single reply fail more often; a stronger one need not."
        )
    return found
