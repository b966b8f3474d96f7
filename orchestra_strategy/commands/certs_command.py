"""``orchestra-fl certs``: a test authority and certificates, to try mutual TLS with."""

import argparse
from pathlib import Path

from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.errors import ParameterError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "make a test authority, and a certificate and key for each party"


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    parser.add_argument("parties", nargs="+", metavar="PARTY", help="names of the job's parties")
    parser.add_argument("--out", type=Path, default=Path("certs"), help="folder (certs)")
    parser.add_argument("--days", type=int, default=90, help="how long they are valid (90)")


def run(arguments: argparse.Namespace) -> int:
    """Write the files, and say who gets which."""
    from orchestra_strategy.cluster.certificates import make_certificates

    if arguments.days < 1:
        raise ParameterError(f"Expected `--days` to be at least 1, got {arguments.days}.")
    if len(set(arguments.parties)) < len(arguments.parties):
        raise ParameterError(
            f"Expected `parties` to be different names, got {' '.join(arguments.parties)}."
        )
    make_certificates(arguments.out, arguments.parties, arguments.days)
    for party in arguments.parties:
        print(f"{party}: {arguments.out}/ca.pem, {party}.pem, {party}.key")
    print("Give each party its three files; the key is a secret. For trials, not for real use.")
    return 0
