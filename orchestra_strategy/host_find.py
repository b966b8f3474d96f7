"""The installed SecretFlow, found without importing it."""

from importlib import metadata, util
from pathlib import Path

from packaging.version import InvalidVersion, Version

from orchestra_strategy.errors import HostError

__all__ = ["NAME", "check_versions", "find_root", "installed_version", "is_installed"]

NAME = "secretflow"
_LOWEST, _BELOW = Version("1.11.0b0"), Version("1.14.0.dev0")  # 1.14.0b0 is below 1.14
_DISTRIBUTIONS = (NAME, "secretflow-lite")


def is_installed() -> bool:
    """Whether SecretFlow can be imported at all."""
    return util.find_spec(NAME) is not None


def check_versions(secretflow_version: str, has_secretflow_fl: bool, has_sfl: bool) -> str:
    """Decide which package carries FLModel, or refuse the combination in a sentence.

    Args:
        secretflow_version: The installed version of ``secretflow``.
        has_secretflow_fl: Whether there is a ``secretflow_fl.ml``; ``sfl`` brings a
            ``secretflow_fl`` without one.
        has_sfl: Whether ``sfl`` can be imported.

    Returns:
        ``"secretflow_fl"`` or ``"sfl"``.

    Raises:
        HostError: Both or neither are there, or the version is not supported.

    >>> check_versions("1.13.0b0", has_secretflow_fl=True, has_sfl=False)
    'secretflow_fl'
    """
    if has_secretflow_fl and has_sfl:
        raise HostError(
            "Expected one of `secretflow_fl` and `sfl` to be installed, got both: SecretFlow "
            "refuses to start with both. Uninstall one of them."
        )
    if has_sfl:
        return "sfl"
    try:
        version = Version(secretflow_version)
    except InvalidVersion as error:
        raise HostError(
            f"Expected a version of SecretFlow that can be read, got {secretflow_version!r}."
        ) from error
    if version >= _BELOW:
        raise HostError(
            f"Expected secretflow>={_LOWEST},<1.14 or the package `sfl`, got secretflow {version} "
            "alone, whose federated learning has moved to `sfl`: install a supported release, "
            "`pip install secretflow==1.13.0b0`, or `sfl` from its sources beside it."
        )
    if version < _LOWEST:
        raise HostError(
            f"Expected secretflow>={_LOWEST},<1.14 (or the package `sfl`), got {version}: "
            "install a supported release, `pip install secretflow==1.13.0b0`."
        )
    if not has_secretflow_fl:
        raise HostError(
            f"Expected secretflow {version} to carry `secretflow_fl`, which cannot be found: "
            "reinstall it, `pip install --force-reinstall secretflow==1.13.0b0`."
        )
    return "secretflow_fl"


def installed_version() -> str:
    """Return the version of SecretFlow, of its full or its lite distribution; or ``unknown``."""
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def find_root() -> str:
    """Return the package that carries FLModel, see :func:`check_versions`.

    Raises:
        HostError: There is none that can be used.
    """
    if not is_installed():
        raise HostError(
            "Expected SecretFlow to be installed: `pip install 'orchestra-strategy[secretflow]'`, "
            "or `pip install secretflow==1.13.0b0`."
        )
    return check_versions(
        installed_version(), has_secretflow_fl=_has_ml("secretflow_fl"), has_sfl=_has_ml("sfl")
    )


def _has_ml(package: str) -> bool:
    """Whether a package is there and has its ``ml``; asked of the disk, importing none of it."""
    spec = util.find_spec(package)
    folders = [] if spec is None else spec.submodule_search_locations or []
    return any((Path(folder) / "ml").is_dir() for folder in folders)
