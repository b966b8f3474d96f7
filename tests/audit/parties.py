"""A tiny configuration, data, and an answered query, for the tests of the audit."""

from orchestra_strategy.audit.answer import answer_of
from orchestra_strategy.audit.attacks.reply_attack import ReplyAttack, nearest
from orchestra_strategy.audit.attacks.table import ATTACKS
from orchestra_strategy.audit.audited_party import Row
from orchestra_strategy.audit.samples import split_of
from orchestra_strategy.audit.settings import parse_audit
from orchestra_strategy.data.readers.local_data import LocalData
from tests.algorithms.tiny import images

SMALL = {
    "hidden_dim": 16,
    "projection_dim": 16,
    "members": 16,
    "attack_steps": 2,
    "replies": 1,
    "attacks": ["span", "membership"],
}
TINY = {
    **{"batch_size": 8, "local_epochs": 1, "num_virtual_users": 2, "clustering_steps": 5},
    **{"num_global_clusters": 4, "num_local_clusters": 2, "memory_size": 16},
}
"""Parameters of a training in a second; strategies without clusters take the first three."""

PLAIN = {"batch_size": 8, "local_epochs": 1, "num_virtual_users": 2}
GRADIENT = Row("local_gradient", {})
# Views that stay within [0, 1], so that pixels tell all that the network saw.
CLEAR = {"gain": 0.0, "offset": 0.0, "noise": 0.0}


def config_of(strategy="orchestra", parameters=None, **values):
    own = TINY if strategy.startswith("orchestra") and strategy != "orchestra_simple" else PLAIN
    parameters = {**own, **(parameters or {})}
    return parse_audit({**SMALL, "strategy": strategy, "parameters": parameters, **values})


def data(n=40, labels=None):
    return LocalData(images(n).numpy(), labels)


def split(config, n=40, labels=None):
    return split_of(data(n, labels), config)


def attacked(config, row, samples, index=0):
    """Attack one reply by the configuration's attacks; the nearest outcome counts."""
    answer = answer_of(config, row, samples, index)
    attacks = [ATTACKS[name] for name in config.attacks]
    own = [attack for attack in attacks if isinstance(attack, ReplyAttack)]
    return nearest([attack.on(config, answer, samples, index) for attack in own])
