"""A job over several machines: who is there, what they agree on, and who is alive.

Every party runs its own process; :class:`~orchestra_strategy.cluster.members.Members` is what it
knows of the others. SecretFlow's traffic goes over the same port, see ``host_cluster.py``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestra_strategy.cluster.certificates import make_certificates as make_certificates
    from orchestra_strategy.cluster.members import Members as Members
    from orchestra_strategy.cluster.settings import ClusterSettings as ClusterSettings
    from orchestra_strategy.cluster.settings import PartyAddress as PartyAddress
    from orchestra_strategy.cluster.settings import TlsFiles as TlsFiles

# Loaded when asked for: a party's actors on Ray import two light modules of this folder, and would
# have torch in each process besides.
_NAMES = {
    "ClusterSettings": "settings",
    "Members": "members",
    "PartyAddress": "settings",
    "TlsFiles": "settings",
    "make_certificates": "certificates",
}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
