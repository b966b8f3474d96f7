"""One sentence for each audited setting, and what to do about it."""

from orchestra_strategy.audit.attacks.reply_attack import Reply
from orchestra_strategy.audit.results import Audit, Result
from orchestra_strategy.audit.user_kinds import KINDS

__all__ = ["advice", "setting_in_words", "verdict"]

_LITTLE_PROMISE = 10.0  # an epsilon above it bounds the odds of a guess by a factor of exp(10)
_NO_PROOF = "that is no proof that there is nothing to find"


def setting_in_words(result: Result) -> str:
    """Return what a party sends under a setting, and how it is protected."""
    return f"{KINDS[result.row.user_type].sends}; {result.name}"


def verdict(result: Result) -> str:
    """Return what was found of one setting, as a sentence for a reader without the field's words.

    It leaks, or nothing was found, or what can be found is bounded by epsilon.
    """
    found = _found(result)
    if result.epsilon is None:
        if found:
            return f"Leaks: {_joined(found)}."
        return f"Found nothing with these attacks; {_NO_PROOF}."
    bound = f"Bounded by epsilon = {result.epsilon:.3g} (delta {result.delta:g})"
    if found:
        return f"Leaks all the same: {_joined(found)}. {bound}, which does not rule it out."
    shown = "".join(f" {o.told}" for o in result.outcomes if o.attack == "canary")
    return f"{bound}; found nothing with these attacks.{shown}"


def advice(audit: Audit) -> list[str]:
    """Return what the verdicts ask for, in the order of their weight."""
    results = audit.results
    found = []
    if any(o.attack == "canary" and o.leaks for r in results for o in r.outcomes):
        found.append(
            "Do not train with these settings: the noise is weaker than its epsilon says, which is "
            "a fault of the software. Report it."
        )
    if any(r.leaks and r.epsilon is None for r in results):
        found.append(
            "Do not use a setting that leaks for data that may not leave the party: set `privacy` "
            "and a `target_epsilon`, or do without the server's view of single parties (the route "
            "`secure`, where it gets sums alone, which this audit does not cover)."
        )
    if any(r.leaks and r.epsilon is not None for r in results):
        found.append(
            "Where it leaks in spite of noise, ask for a smaller epsilon: with a large one the "
            "promise is too weak to keep an attack out."
        )
    if any(r.epsilon is not None and r.epsilon > _LITTLE_PROMISE for r in results):
        found.append(
            f"An epsilon above {_LITTLE_PROMISE:g} promises little: take a smaller one, with more "
            "samples or users if the encoder has become too weak."
        )
    if any(r.beats_untrained is False for r in results):
        found.append(
            "Where the encoder is not better than an untrained one, what does not leak from it "
            "says little of one that has learnt: audit again with more data, more rounds, or a "
            "larger epsilon."
        )
    if any(r.epsilon is None and not r.leaks for r in results):
        found.append(
            "Where nothing was found without noise, other attacks may find something: only epsilon "
            "is a promise."
        )
    return found or ["Nothing: what can leak is bounded, and the encoder has learnt."]


def _found(result: Result) -> list[str]:
    """Return what leaked: recovered samples of all replies together, then the rest."""
    leakage = result.leakage
    found = []
    if leakage is not None and leakage.leaked:
        found.append(f"{leakage.leaked} of {leakage.samples} attacked samples recovered")
    others = [o for o in result.outcomes if o.leaks and not isinstance(o, Reply)]
    return found + [outcome.told for outcome in others]


def _joined(parts: list[str]) -> str:
    return "; ".join(dict.fromkeys(part.rstrip(".") for part in parts))
