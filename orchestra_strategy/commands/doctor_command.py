"""``orchestra-fl doctor``: what is wrong with this machine for a job, and what to do."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestra_strategy.commands.finding import Finding
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.errors import OrchestraError, ParameterError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "look for what would stop a job on this machine, and say what to do"


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "job", type=Path, nargs="?", metavar="job.yaml", help="look at this job's part, too"
    )
    parser.add_argument("--party", help="which of the job's parties this machine is")
    parser.add_argument(
        "--local", type=Path, metavar="FILE", help="the party's own part, as for train"
    )
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="A.B=VALUE", help="as train's"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; 1 if one of them would stop the job."""
    if arguments.party is None and arguments.local is not None:
        raise ParameterError("Expected `--party` with `--local`, got none; name the party.")
    if arguments.job is None and arguments.party is not None:
        raise ParameterError("Expected a job with `--party`, got none; name its file.")
    found = []
    for finding in _findings(arguments):
        found.append(finding)
        if not arguments.json:
            print(f"{finding.grade:<5} {finding.what}: {finding.told}", flush=True)
    bad = sum(finding.grade == "bad" for finding in found)
    if arguments.json:
        print(json.dumps([finding._asdict() for finding in found], indent=2, ensure_ascii=False))
    elif bad:
        print(f"{bad} of {len(found)} checks found what would stop a job.")
    return 1 if bad else 0


def _findings(arguments: argparse.Namespace) -> Iterator[Finding]:
    from orchestra_strategy.commands import machine_checks as machine

    yield machine.check_python()
    secretflow = machine.check_secretflow()
    yield secretflow
    yield machine.check_cpus()
    yield machine.check_clock()
    if arguments.job is None or secretflow.grade == "bad":  # which reading a job needs
        yield machine.check_folder(".", "disk")
        return
    try:
        job = _job(arguments)
    except OrchestraError as error:
        yield Finding("job", "bad", str(error))
        return
    yield Finding("job", "ok", str(arguments.job))
    yield machine.check_folder(job.out_dir or ".", "disk")
    if job.checkpoint_dir is not None:
        yield machine.check_folder(job.checkpoint_dir, "checkpoints")
    if arguments.party is not None:
        yield from _of_the_party(job, arguments.party)


def _job(arguments: argparse.Namespace) -> Any:
    """Return the job, with the party's own part if there is one."""
    from orchestra_strategy.commands.job_file import read_job, read_job_as

    if arguments.party is None:
        return read_job(arguments)
    from orchestra_strategy.commands.cluster_job import ClusterJob, with_local_part

    return with_local_part(read_job_as(ClusterJob, arguments), arguments.local, arguments.party)


def _of_the_party(job: Any, party: str) -> Iterator[Finding]:
    from orchestra_strategy.commands import party_checks
    from orchestra_strategy.commands.cluster_job import party_settings

    yield party_checks.check_data(job.data, job.data_options)
    try:
        settings = party_settings(job, party)
    except OrchestraError as error:
        yield Finding("cluster", "bad", str(error))
        return
    yield party_checks.check_keys(settings)
    yield party_checks.check_listen(settings.listen)
    yield from party_checks.check_own_ray(settings)
    yield from party_checks.check_peers(settings)
