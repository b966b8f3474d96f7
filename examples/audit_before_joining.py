"""Audit before joining: what would a curious server find in this party's replies?

A party measures on its own data (scikit-learn's digits, or ``--data``) before it takes part, with
and without differential privacy by record. Nothing leaves the process. The last line is the answer
to "may we join like this?", for the attacks that were tried.

Run: ``python examples/audit_before_joining.py [--data my_images/]``.
"""

import argparse
import logging

from orchestra_strategy.audit import parse_audit, read_data, run_audit


def main(argv: list[str] | None = None) -> None:
    """Attack the replies under both settings, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="digits", help="images, .csv, .npz; or digits")
    parser.add_argument("--epsilon", type=float, default=8.0, help="of the whole training")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--members", type=int, default=200, help="samples of the training")
    parser.add_argument("--attack-steps", type=int, default=250, help="of a reconstruction")
    parser.add_argument("--attacks", nargs="+", default=["span", "crafted_weights", "canary"])
    arguments = parser.parse_args(argv)
    config = parse_audit(
        {
            "user_types": ["local_gradient"],
            "privacy": [{}, {"privacy": "record", "target_epsilon": arguments.epsilon}],
            "attacks": arguments.attacks,
            "attack_steps": arguments.attack_steps,
            "rounds": arguments.rounds,
            "members": arguments.members,
            "seed": 0,
        }
    )
    # That memories are scaled down is no news here: few samples are the audit's own choice.
    logging.getLogger("orchestra_strategy.strategies").setLevel(logging.ERROR)
    audit = run_audit(read_data(arguments.data), config)
    for result in audit.results:
        bound = "no bound" if result.epsilon is None else f"epsilon {result.epsilon:.2f}"
        print(f"{result.name} ({bound})")
        for attack in dict.fromkeys(outcome.attack for outcome in result.outcomes):
            leaks = any(o.leaks for o in result.outcomes if o.attack == attack)
            print(f"  {attack:16} {'LEAKS' if leaks else 'found nothing'}")
        for attack, reason in result.not_tried:
            print(f"  {attack:16} not tried: {reason}")
        if result.leakage is not None:
            gain = result.leakage.psnr - result.leakage.control_mean_psnr
            of = audit.config.images * audit.config.replies
            found = f"{result.leakage.leaked} of {of}"
            print(f"  samples recovered: {found}, {gain:+.1f} dB beside a guess")
    plain, private = audit.results
    print(
        "Join without privacy? "
        + ("No: samples or presence leak. " if plain.leaks else "Nothing was found. ")
        + f"With epsilon {arguments.epsilon:g}? "
        + ("No." if private.leaks else "Nothing was found, and epsilon bounds the rest.")
    )


if __name__ == "__main__":
    main()
