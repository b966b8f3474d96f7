"""All attacks by name; a new one is an object more here, and a name more in the settings."""

from orchestra_strategy.audit.attacks.canary import Canary
from orchestra_strategy.audit.attacks.crafted_weights import CraftedWeights
from orchestra_strategy.audit.attacks.gradient_matching import GradientMatching
from orchestra_strategy.audit.attacks.local_centroids import LocalCentroids
from orchestra_strategy.audit.attacks.membership import Membership
from orchestra_strategy.audit.attacks.public_streams import PublicStreams
from orchestra_strategy.audit.attacks.scene import Attack
from orchestra_strategy.audit.attacks.span import SpanAttack
from orchestra_strategy.audit.attacks.with_breaching import Breaching

__all__ = ["ATTACKS"]

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        SpanAttack(),
        GradientMatching(),
        Breaching(),
        PublicStreams(),
        Membership(),
        LocalCentroids(),
        CraftedWeights(),
        Canary(),
    )
}
