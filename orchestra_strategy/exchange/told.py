"""Numbers that a party tells the driver: each has to be declared, and each declared loss to come.

The manifest is the list of all that leaves a party, numbers in the log included. So a number that
it does not have is refused at the party, before anything of the round is sent; and so is a list of
losses of which some never come, since an auditor could not tell it from a full one.
"""

from collections.abc import Iterable, Mapping

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.exchange.received import listed

__all__ = ["check_losses", "check_told", "named_losses"]


def named_losses(means: Mapping[str, float]) -> dict[str, float]:
    """Return the means of a loss and its parts by the names under which they are logged.

    >>> named_losses({"total": 2.0, "pull": 0.5})
    {'train_loss': 2.0, 'train_pull': 0.5}
    """
    return {f"train_{'loss' if name == 'total' else name}": mean for name, mean in means.items()}


def check_losses(who: str, declared: Iterable[str], losses: Iterable[str]) -> None:
    """Refuse losses that are not exactly those that a strategy declares.

    Args:
        who: The strategy, named in the message.
        declared: Its ``metric_names``.
        losses: Names of those that came; none where there was no step.

    Raises:
        ReplyError: One is not declared, or a declared one did not come.

    >>> check_losses("Mine", ["train_loss"], ["train_loss", "train_pull"])
    Traceback (most recent call last):
    ...
    orchestra_strategy.errors.ReplyError: Expected the losses of `Mine` to be those of its \
`metric_names`; not declared: ['train_pull'], declared and not there: []. Nothing has been sent. \
Write `metric_names = ('train_loss', 'train_pull')` in the class.
    """
    got, known = list(losses), set(declared)
    if not got or known == set(got):
        return
    remedy = tuple(sorted(got, key=lambda name: (name != "train_loss", name)))
    raise ReplyError(
        f"Expected the losses of `{who}` to be those of its `metric_names`; not declared: "
        f"{listed(set(got) - known)}, declared and not there: {listed(known - set(got))}. Nothing "
        f"has been sent. Write `metric_names = {remedy}` in the class."
    )


def check_told(who: str, declared: Iterable[str], numbers: Iterable[str]) -> None:
    """Refuse a number for the driver that the manifest does not have.

    Args:
        who: The strategy, named in the message.
        declared: The manifest's names of numbers.
        numbers: Names of those to be told.

    Raises:
        ReplyError: One is not in the manifest.
    """
    undeclared = set(numbers) - set(declared)
    if undeclared:
        raise ReplyError(
            f"Expected all that `{who}` tells the driver to be in its manifest, got "
            f"{listed(undeclared)}, which is not. Nothing has been sent. Losses are declared in "
            "`metric_names`."
        )
