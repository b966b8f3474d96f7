"""``orchestra-fl plan``: steps, bytes and epsilon of a job, computed before anything runs."""

import argparse
import json
import math
from collections import Counter
from typing import Any

from orchestra_strategy.commands.job_file import add_job, job_to_use
from orchestra_strategy.commands.own_modules import add_import
from orchestra_strategy.commands.parser import SentenceParser
from orchestra_strategy.commands.plan_signal import in_words, party_by_hand, signal_of
from orchestra_strategy.errors import ParameterError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "compute steps, bytes and epsilon of a job before anything runs"


def add_arguments(parser: SentenceParser) -> None:
    """Declare the arguments."""
    add_job(parser)
    add_import(parser)
    parser.add_argument(
        "--samples",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=N",
        help="each party's number of samples, such as alice=1000 bob=800",
    )
    parser.add_argument(
        "--users",
        type=int,
        metavar="N",
        help="how large the noise on the mean of so many users' updates is, all parties together",
    )
    parser.add_argument(
        "--epsilon",
        type=float,
        metavar="E",
        help="with --users: for privacy='user' with this target (the job's noise without)",
    )
    parser.add_argument(
        "--parties", type=int, metavar="K", help="with --users: of so many parties (2)"
    )
    parser.add_argument(
        "--secure", action="store_true", help="route secure (the job's, or route server)"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    config = job_to_use(arguments)
    if config is None:
        return 0
    samples = _samples(arguments.samples)
    if not samples and arguments.users is None:
        raise ParameterError("Expected `--samples` or `--users`, got neither; give one of them.")
    if arguments.epsilon is not None and arguments.users is None:
        raise ParameterError(
            "Expected `--users` with `--epsilon`, got none: what its noise leaves of the signal "
            "depends on their number."
        )
    secure = arguments.secure or getattr(config, "aggregator", None) is not None
    route = "secure" if secure else "server"
    plan = _plan(config, samples, route) if samples else {}
    if arguments.users is not None:
        parties = arguments.parties or len(samples) or 2
        plan["signal"] = signal_of(config, route, arguments.users, parties, arguments.epsilon)
    if arguments.json:
        print(json.dumps(plan, indent=2))
    else:
        _show(plan)
    return 0


def _samples(given: list[str]) -> dict[str, int]:
    """Return the parties' numbers of samples."""
    found: dict[str, int] = {}
    for text in given:
        name, _, number = text.partition("=")
        if not name or not number.isdigit() or not int(number) or name in found:
            raise ParameterError(
                "Expected `--samples` to be name=number, 1 or more, once for each party, got "
                f"{text!r}; such as alice=1000."
            )
        found[name] = int(number)
    return found


def _plan(config: Any, samples: dict[str, int], route: str) -> dict[str, Any]:
    """Return what a job costs, as a party made by hand tells it."""
    from orchestra_strategy.party.user_types import USER_TYPES

    party = party_by_hand(config, config.parameters, route, len(samples))
    sizes = list(samples.values())
    rate, aggregate = USER_TYPES[party.config.user_type].host_steps(
        1.0, party.config.batch_size, sizes
    )
    rounds = config.rounds * math.ceil(math.ceil(1.0 / rate) / aggregate)
    sent = [row for row in party.manifest_rows() if row["to"] in ("server", "aggregator")]
    up = {
        when: sum(row["bytes"] for row in sent if row["when"] in (when, "both"))
        for when in ("start", "round")
    }
    return {
        "rounds": rounds,
        "weights": sum(p.numel() for p in party.model.parameters()),
        "bytes_per_round": up["round"],
        "bytes_in_all": up["start"] + rounds * up["round"],
        "parties": {name: _of_one(party, n, rounds) for name, n in samples.items()},
    }


def _of_one(party: Any, num_samples: int, rounds: int) -> dict[str, Any]:
    """Return a party's steps per round, and what it spends of privacy."""
    from orchestra_strategy.party.privacy import unit_of
    from orchestra_strategy.privacy.accounting import PrivacyLedger, epsilon_of

    config = party.config
    told: dict[str, Any] = {
        "samples": num_samples,
        "steps_per_round": party.user_type.steps_per_round(config, num_samples),
    }
    if unit_of(config).protected:
        costs = party.privacy.plan(num_samples).costs()
        allowed = rounds
        if config.budget is not None:
            ledger = PrivacyLedger(config.accountant)
            allowed = min(rounds, ledger.rounds_left(costs, config.budget, config.delta))
        all_rounds = Counter({release: n * allowed for release, n in costs.items()})
        told |= {
            "rounds_within_budget": allowed,
            "epsilon": epsilon_of(all_rounds, config.delta, config.accountant) if allowed else 0.0,
            "delta": config.delta,
        }
    return told


def _show(plan: dict[str, Any]) -> None:
    if "parties" in plan:
        _show_costs(plan)
    if "signal" in plan:
        print(in_words(plan["signal"]))


def _show_costs(plan: dict[str, Any]) -> None:
    print(f"{plan['rounds']} rounds, {plan['weights']:,} weights")
    print(
        f"sent by each party: {plan['bytes_per_round'] / 1e6:.3f} MB a round at most, "
        f"{plan['bytes_in_all'] / 1e6:.3f} MB in all"
    )
    for name, told in plan["parties"].items():
        line = f"{name}: {told['samples']} samples, {told['steps_per_round']} steps a round"
        if "epsilon" in told:
            line += f", epsilon {told['epsilon']:.3g} at delta {told['delta']:g}"
            if told["rounds_within_budget"] < plan["rounds"]:
                line += f" after {told['rounds_within_budget']} rounds, all that the budget allows"
        print(line)
