"""A job over several machines: who is there, what they agree on, and who is alive.

Every party runs its own process; :class:`~orchestra_strategy.cluster.members.Members` is what it
knows of the others. SecretFlow's traffic goes over the same port, see ``host_cluster.py``.
"""

from orchestra_strategy.cluster.certificates import make_certificates
from orchestra_strategy.cluster.members import Members
from orchestra_strategy.cluster.settings import ClusterSettings, PartyAddress, TlsFiles

__all__ = ["ClusterSettings", "Members", "PartyAddress", "TlsFiles", "make_certificates"]
