"""The signal that a privacy budget leaves, for ``orchestra-fl plan --users``."""

import math
from typing import Any

from orchestra_strategy.errors import ParameterError

__all__ = ["in_words", "party_by_hand", "signal_of"]


def party_by_hand(config: Any, parameters: dict[str, Any], route: str, parties: int) -> Any:
    """Return a party of a job, without data.

    Args:
        config: The job.
        parameters: The strategy's, in place of the job's.
        route: ``"server"`` or ``"secure"``.
        parties: How many there are.

    Raises:
        OrchestraError: They cannot be used.
    """
    from orchestra_strategy.runtime.checks import our_strategy
    from orchestra_strategy.runtime.trained_network import TrainedNetwork

    cls = our_strategy(config.strategy)
    cls.check_route(route)
    heads = getattr(cls, "heads", ("degeneracy_head",))
    build = TrainedNetwork(config.model, heads).builder
    handed = {"route": route, "party": "plan", "parties": parties, "ring_parties": parties}
    return cls(build, random_seed=config.seed, **{**parameters, **handed})


def signal_of(
    config: Any, route: str, users: int, parties: int, epsilon: float | None
) -> dict[str, Any]:
    """Return how large the noise on the mean update is beside the clip, which bounds the signal.

    Args:
        config: The job.
        route: ``"server"`` or ``"secure"``.
        users: Of all parties, in a round.
        parties: How many add noise.
        epsilon: The target; None for the job's own noise.

    Raises:
        ParameterError: ``users`` are too few, ``epsilon`` is not positive, or the job protects
            records, or has neither a target nor noise.
    """
    from orchestra_strategy.privacy.accounting import epsilon_of
    from orchestra_strategy.privacy.signal import noise_over_clip

    if not 1 <= parties <= users:
        raise ParameterError(
            f"Expected `--users` to be at least the number of parties, got {users} users of "
            f"{parties} parties."
        )
    if epsilon is not None and not 0 < epsilon < math.inf:
        raise ParameterError(f"Expected `--epsilon` to be a positive number, got {epsilon:g}.")
    parameters = dict(config.parameters)
    if parameters.get("privacy") == "record":
        raise ParameterError(
            "Expected `--users` with a job that protects users, got one with privacy='record', "
            "whose noise is in each local step and not on users' updates; give `--samples`, which "
            "tells its epsilon, or `--set parameters.privacy=user`."
        )
    if epsilon is not None:
        parameters |= {"privacy": "user", "target_epsilon": epsilon, "noise_multiplier": None}
        parameters |= {"planned_rounds": config.rounds, "max_epsilon": None}
    if parameters.get("privacy") != "user":
        raise ParameterError(
            "Expected `--epsilon` with `--users` where the job itself has no privacy='user', got "
            "none; or set `parameters.privacy` and `parameters.noise_multiplier`."
        )
    party = party_by_hand(config, parameters, route, parties)
    plan = party.privacy.plan(1)
    costs = {release: config.rounds * n for release, n in plan.costs().items()}
    weights = sum(p.numel() for p in party.model.parameters() if p.requires_grad)
    z = plan.update.noise_multiplier
    over = noise_over_clip(z, weights, users, party.privacy.parts_of(parties))
    return {
        **{"users": users, "parties": parties, "rounds": config.rounds, "weights": weights},
        "epsilon": epsilon_of(costs, party.config.delta, party.config.accountant),
        "delta": party.config.delta,
        "noise_multiplier": z,
        "noise_over_clip": over,
        "snr_at_most": 1.0 / over,
        "users_for_1": round(users * over),
    }


def in_words(signal: dict[str, Any]) -> str:
    """Return the outcome of :func:`signal_of` in a few sentences."""
    over = signal["noise_over_clip"]
    verdict = (
        "longer than any signal: nothing but noise is learnt"
        if over > 1
        else "so that what all users agree on can stand out"
    )
    return (
        f"{signal['users']:,} users of {signal['parties']} parties, {signal['rounds']} rounds, "
        f"epsilon {signal['epsilon']:.3g} at delta {signal['delta']:g}: the noise on the mean of "
        f"{signal['weights']:,} weights is {over:.3g} times the clip, {verdict}; `privacy_snr` is "
        f"{signal['snr_at_most']:.2g} at most. It can reach 1 from {signal['users_for_1']:,} users "
        "on; a smaller model needs fewer."
    )
