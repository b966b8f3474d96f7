"""The second of the four choices: which kind of federated user a party is.

Each kind builds its user, lets it answer one query a round, and says what travels: weights after
local steps, or a gradient. The strategy does not know which one it has: it calls ``run`` for the
local work, ``entries`` and ``arrays`` for what is sent (after training, or a copy of the state
before any), ``receive`` with the server's mean of it, and ``take_data`` and ``configure`` when data
or parameters have changed.
"""

from orchestra_strategy.party.local_gradient import LocalGradient
from orchestra_strategy.party.local_update import LocalUpdate
from orchestra_strategy.party.virtual_users import VirtualUsers

__all__ = ["USER_TYPES"]

USER_TYPES: dict[str, type[LocalUpdate]] = {
    "local_gradient": LocalGradient,
    "local_update": LocalUpdate,
    "multiuser_aggregate": VirtualUsers,
}
"""The kinds of user by ``user_type``, in the vocabulary of the gradient-leakage field."""
