"""``orchestra-fl train``: a party's share of a job, or all of them for a trial."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from orchestra_strategy.commands.job_file import add_job, read_job_as, resolved_yaml
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.commands.quiet_import import load_host
from orchestra_strategy.errors import PeerLostError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "train as one party of a job; each party runs it on its own machine"


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    add_job(parser)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--party", help="which of the job's parties this is")
    who.add_argument(
        "--simulate", action="store_true", help="be all parties, in this process, for a trial"
    )
    parser.add_argument(
        "--local", type=Path, metavar="FILE", help="what is this party's own: data, folders, keys"
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="PARTY",
        help="go on without a party that is gone; may be repeated, and is the same at all others",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint that all have"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, and tell what came of it."""
    load_host()
    from orchestra_strategy.commands.cluster_job import ClusterJob, run_job, with_local_part
    from orchestra_strategy.commands.going_on import check_absent, with_all, without_lost

    common = read_job_as(ClusterJob, arguments)
    names = [arguments.party] if arguments.party else list(common.parties)
    jobs = {name: with_local_part(common, arguments.local, name) for name in names}
    job = jobs[names[0]]
    if arguments.print_config:
        print(resolved_yaml(job), end="")
        return 0
    # A job that is ended by its scheduler tells its peers, as one that is by its user.
    check_absent(job, arguments.without)
    on_term = signal.signal(signal.SIGTERM, _interrupt)
    try:
        results = run_job(job, arguments.party, arguments.resume, jobs, arguments.without)
    except PeerLostError as error:
        again = without_lost(job, arguments, error)
        if again is not None:
            print(f"{error} Going on without {error.party}.", file=sys.stderr)
            raise again from None
        if job.checkpoint_dir is not None:
            _tell_how_to_go_on(arguments, job.checkpoint_dir)
        raise
    except BaseException:
        if job.checkpoint_dir is not None:
            _tell_how_to_go_on(arguments, job.checkpoint_dir)
        raise
    finally:
        signal.signal(signal.SIGTERM, on_term)
    if results is None:
        print(f"{', '.join(arguments.without)} is back. Going on with all parties.")
        raise with_all(arguments)
    _tell(results, job.out_dir)
    return 0


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _tell_how_to_go_on(arguments: argparse.Namespace, folder: str) -> None:
    who = f"--party {arguments.party}" if arguments.party else "--simulate"
    print(
        f"The training has stopped; its checkpoints are in {folder}. To go on, start every party "
        f"with `--resume`, here: orchestra-fl train {arguments.job} {who} --resume",
        file=sys.stderr,
    )


def _tell(results: Any, out_dir: str | None) -> None:
    numbers = [
        f"{name.removeprefix('train_')} {value:.4g}"
        for name, value in results.metrics.items()
        if name.startswith("train_")
    ]
    if results.epsilon is not None:  # losses have no noise, and then stay at the parties
        numbers.append(f"epsilon {results.epsilon:.3g} at delta {results.delta:g}")
    print(f"{results.rounds} rounds in {results.seconds:.0f} s: {', '.join(numbers)}")
    if results.stop_reason is not None:
        print(results.stop_reason)
    if out_dir is not None:
        print(f"Results and encoder are in {out_dir}.")
