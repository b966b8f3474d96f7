"""A job's parties, all in this process: for commands that ask what would be, and train little."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from federated_orchestra import FederatedOrchestraTrainer, TrainerConfig
    from orchestra_strategy.commands.parser import SentenceParser

__all__ = ["add_parties", "parties_of", "trial_of"]


def add_parties(parser: SentenceParser) -> None:
    """Declare who takes part, where the job does not say so."""
    parser.add_argument(
        "--parties", nargs="+", metavar="NAME", help="names of the parties (the job's; alice bob)"
    )
    parser.add_argument(
        "--server", metavar="NAME", help="who aggregates (the job's; the first party)"
    )
    parser.add_argument(
        "--secure",
        action="store_true",
        help="route secure: sums by SecretFlow's SecureAggregator, which the server runs",
    )


def parties_of(config: TrainerConfig, arguments: argparse.Namespace) -> list[str]:
    """Return the names of the parties: those given, the job's, or two."""
    return list(arguments.parties or getattr(config, "parties", None) or ("alice", "bob"))


@contextmanager
def trial_of(
    config: TrainerConfig, arguments: argparse.Namespace, secret_streams: bool = True
) -> Iterator[FederatedOrchestraTrainer]:
    """Yield a trainer of a job, with all parties in this process.

    Args:
        config: The job.
        arguments: Of a parser with :func:`add_parties`.
        secret_streams: Whether ``streams="auto"`` is the parties' secret, as it is across
            companies, and not the seed.

    Raises:
        OrchestraError: The job cannot be run in that way.
    """
    from federated_orchestra import FederatedOrchestraTrainer
    from orchestra_strategy.runtime.combiner import combiner
    from orchestra_strategy.runtime.session import session

    parties = parties_of(config, arguments)
    server = arguments.server or getattr(config, "server", None) or parties[0]
    aggregator = getattr(config, "aggregator", None)
    names = parties if server in parties else [*parties, server]
    parameters = dict(config.parameters)
    if secret_streams and parameters.get("streams", "auto") == "auto":
        parameters["streams"] = "secret"
    own = {"progress": False, "out_dir": None, "checkpoint_dir": None, "parameters": parameters}
    job = config.model_copy(update=own)
    with session(names, mode="debug") as everyone:
        devices, centre = everyone[: len(parties)], everyone[names.index(server)]
        how = combiner("secure" if arguments.secure else aggregator, centre, devices)
        yield FederatedOrchestraTrainer(job, devices, **how)
