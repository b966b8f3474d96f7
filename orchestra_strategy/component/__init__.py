"""Components for platforms that run SecretFlow: Kuscia, SecretPad, ``secretflow component run``.

``orchestra_train`` makes an encoder of several parties' tables or images, ``orchestra_embed`` turns
a party's table into a table of features, from which SecretFlow's own components go on.
"""

import logging
from importlib import import_module

from packaging.version import InvalidVersion, Version

from orchestra_strategy.host_find import installed_version

__all__ = ["plugin"]

_LOG = logging.getLogger(__name__)
_FIRST = Version("1.12.0.dev0")  # with a variable number of tables


def plugin() -> None:
    """Register the components; SecretFlow calls it, see the entry points of the package."""
    try:
        too_old = Version(installed_version()) < _FIRST
    except InvalidVersion:  # a build of one's own
        too_old = False
    if too_old:
        _LOG.warning(
            "orchestra_train and orchestra_embed need secretflow>=1.12, got %s: they are not "
            "registered; the rest of orchestra-strategy works.",
            installed_version(),
        )
        return
    for name in ("train", "embed"):
        import_module(f"{__name__}.{name}")
