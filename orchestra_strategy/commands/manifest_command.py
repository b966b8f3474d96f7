"""``orchestra-fl manifest``: all that would leave a party in a job, before anything runs."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from orchestra_strategy.commands.job_file import add_job, read_job, resolved_yaml
from orchestra_strategy.commands.own_modules import add_import, import_modules
from orchestra_strategy.commands.parser import SentenceParser

if TYPE_CHECKING:
    from federated_orchestra import TrainerConfig

__all__ = ["HELP", "add_arguments", "manifest_of", "run"]

HELP = "show all that leaves a party in a job, and who sees it"


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    add_job(parser)
    add_import(parser)
    parser.add_argument(
        "--parties",
        nargs="+",
        default=["alice", "bob"],
        metavar="NAME",
        help="names of the parties (alice bob)",
    )
    parser.add_argument("--server", metavar="NAME", help="who aggregates (the first party)")
    parser.add_argument(
        "--secure",
        action="store_true",
        help="route secure: sums by SecretFlow's SecureAggregator, which the server runs",
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON, an object per entry")


def run(arguments: argparse.Namespace) -> int:
    """Print the manifest; nothing is trained, and no data are read."""
    from rich.console import Console

    from orchestra_strategy.runtime.manifest_table import manifest_table

    import_modules(arguments.modules)
    config = read_job(arguments)
    if arguments.print_config:
        print(resolved_yaml(config), end="")
        return 0
    rows = manifest_of(config, arguments.parties, arguments.server, arguments.secure)
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    console = Console()
    console.width = max(console.width, 120)  # for its columns, in a pipe, too
    console.print(manifest_table(rows))
    return 0


def manifest_of(
    config: "TrainerConfig", parties: list[str], server: str | None, secure: bool
) -> list[dict[str, Any]]:
    """Return the manifest of a job as it is across companies, where streams are secret.

    Args:
        config: The job.
        parties: Names, at least two, each once.
        server: Who aggregates; the first party if None.
        secure: Whether by SecretFlow's SecureAggregator.

    Raises:
        OrchestraError: The job cannot be run in that way.
    """
    from federated_orchestra import FederatedOrchestraTrainer
    from orchestra_strategy import host
    from orchestra_strategy.runtime.session import session

    names = list(parties) if server is None or server in parties else [*parties, server]
    parameters = dict(config.parameters)
    if parameters.get("streams", "auto") == "auto":
        parameters["streams"] = "secret"
    job = config.model_copy(update={"parameters": parameters, "progress": False})
    with session(names, mode="debug") as everyone:
        by_name = dict(zip(names, everyone, strict=True))
        devices, centre = everyone[: len(parties)], by_name[server or parties[0]]
        how = (
            {"aggregator": host.SecureAggregator(centre, devices)} if secure else {"server": centre}
        )
        return FederatedOrchestraTrainer(job, devices, **how).setup_model().manifest()
