"""A job that goes on without a party that is lost, and with it again when it is back.

Each of the others starts its command anew, in the same process of the operating system: nothing of
the broken session is left, and the state comes from the newest checkpoint that they all have.
"""

import argparse

from orchestra_strategy.commands.cluster_job import ClusterJob, combining_of, server_of
from orchestra_strategy.commands.start_again import StartAgain
from orchestra_strategy.errors import ParameterError, PeerLostError

__all__ = ["check_absent", "with_all", "without_lost"]


def check_absent(job: ClusterJob, absent: list[str]) -> None:
    """Refuse to go on without parties that the job cannot do without.

    Raises:
        ParameterError: It has no server, the server is among them, too few are left, or there are
            no checkpoints to go on from.
    """
    problem = _why_not(job, absent) if absent else None
    if problem is not None:
        raise ParameterError(f"Expected `--without` in a job that can do without, got {problem}.")


def without_lost(
    job: ClusterJob, arguments: argparse.Namespace, error: PeerLostError
) -> StartAgain | None:
    """Return how to go on without a lost party; None where the job's settings don't allow it.

    Args:
        job: The party's.
        arguments: Of ``orchestra-fl train``.
        error: Says who is lost.
    """
    if error.party is None or arguments.party is None:
        return None
    absent = [*arguments.without, error.party]
    if combining_of(job).on_bad_reply != "leave_out" or _why_not(job, absent) is not None:
        return None
    return StartAgain(_arguments(arguments, absent))


def with_all(arguments: argparse.Namespace) -> StartAgain:
    """Return how to go on with all parties."""
    return StartAgain(_arguments(arguments, []))


def _why_not(job: ClusterJob, absent: list[str]) -> str | None:
    left = [name for name in job.parties if name not in absent]
    needed = combining_of(job).min_parties
    if job.aggregator is not None:
        return "one whose parties sum among each other (`aggregator`), which takes all of them"
    if server_of(job) in absent:
        return f"one whose server is {server_of(job)}"
    if job.checkpoint_dir is None:
        return "one without `checkpoint_dir`, from which the others go on"
    if len(left) < needed:
        return f"{len(left)} parties left where `min_parties` is {needed}"
    return None


def _arguments(arguments: argparse.Namespace, absent: list[str]) -> list[str]:
    found = ["train", str(arguments.job), "--party", arguments.party, "--resume"]
    if arguments.local is not None:
        found += ["--local", str(arguments.local)]
    for change in arguments.changes:
        found += ["--set", change]
    for name in absent:
        found += ["--without", name]
    return found
