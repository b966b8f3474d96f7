"""The strategies of this package: importing this module registers them all with SecretFlow."""

from orchestra_strategy.strategies import (  # noqa: F401 - each registers its own
    baselines,
    orchestra,
    private,
    simple,
    variants,
)
