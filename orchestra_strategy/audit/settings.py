"""The settings of an audit: strategy, kinds of user, privacy, attacks, sizes."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from orchestra_strategy.audit.user_kinds import KINDS
from orchestra_strategy.config import FrozenConfig, parse_config
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.settings import PrivacyFields

__all__ = [
    "PRIVACY_PARAMETERS",
    "AuditConfig",
    "UserType",
    "parse_audit",
    "setting_name",
]

UserType = Literal["local_gradient", "local_update", "multiuser_aggregate"]

PRIVACY_PARAMETERS = (*PrivacyFields.model_fields, "moments_share")
"""Parameters of a strategy that make up a privacy setting."""

_UNITS = ("none", "user", "record")
_SET_HERE = {
    "user_type": "`user_types` of the audit",
    "noise_seed": "`seed` of the audit, so that a report can be checked",
    "party": "the audit itself: it has one party",
    "streams": "`streams` of the audit",
    "route": "the audit itself: what leaves a party is attacked before any aggregator has seen it",
}


class AuditConfig(FrozenConfig):
    """What an audit needs.

    Attributes:
        strategy: A registered strategy of this package.
        parameters: Its parameters by name, as in ``FLModel(strategy_config=...)``; those that are
            not given are the strategy's own, but for :data:`TRAINING`. Privacy parameters among
            them are the one setting that is audited, unless ``privacy`` is given, too.
        user_types: The kinds of user; None is all that the strategy has.
        privacy: Privacy settings, each a dictionary of the strategy's privacy parameters (``{}`` is
            none); with ``target_epsilon``, ``planned_rounds`` are the audit's. None audits no
            privacy, and an epsilon of 8 by record, for an aggregate by user.
        attacks: Names of :data:`~orchestra_strategy.audit.attacks.table.ATTACKS`; of those that
            recover samples the nearest outcome counts.
        streams: Where the party's random draws come from without privacy: ``secret``, as deployed
            across companies, or ``seed``, as in a simulation, where the server can repeat them.
        images: Samples behind a reply that is attacked; two steps, or two users, share them.
        replies: How many replies of different samples are attacked for each row of the table.
        attack_steps: Length of each search.
        canary_runs: How often the planted record of ``canary`` is tried, and as often its absence.
        members: Samples that the encoder is trained on, and as many that it is not; fewer where the
            data are fewer.
        rounds: Federated rounds of the training; of ``local_gradient``, whose rounds are single
            steps, as many as make up the same number of steps.
        backbone: Name of the network's backbone; None is ``conv4`` for images, ``mlp`` for tables.
        norm: ``group``, ``group+batch``, or ``batch``, which no privacy setting can protect.
        hidden_dim: Width of projector and heads.
        projection_dim: Length of a projection.
        seed: Root of all random streams.
        threads: CPU threads of torch.
    """

    strategy: str = "orchestra"
    parameters: dict[str, Any] = Field(default_factory=dict)
    user_types: tuple[UserType, ...] | None = None
    privacy: tuple[dict[str, Any], ...] | None = None
    attacks: tuple[str, ...] = (
        *("span", "public_streams", "membership", "local_centroids", "crafted_weights", "canary"),
    )
    streams: Literal["secret", "seed"] = "secret"
    canary_runs: int = Field(100, ge=4)
    images: int = Field(4, ge=4, multiple_of=2)
    replies: int = Field(2, ge=1)
    attack_steps: int = Field(250, ge=1)
    members: int = Field(300, ge=8)
    rounds: int = Field(3, ge=1)
    backbone: str | None = None
    norm: Literal["group", "group+batch", "batch"] = "group"
    hidden_dim: int = Field(128, ge=1)
    projection_dim: int = Field(128, ge=1)
    seed: int = Field(0, ge=0)
    threads: int = Field(2, ge=1)

    @field_validator("user_types", "privacy", "attacks")
    @classmethod
    def _not_empty(cls, values: tuple[Any, ...] | None, info: ValidationInfo) -> Any:
        if values == ():
            raise ValueError(f"Expected `{info.field_name}` to name at least one, got none")
        return values

    def privacy_of(self, user_type: str) -> tuple[dict[str, Any], ...]:
        """Return the privacy settings that are audited for a kind of user."""
        if self.privacy is not None:
            return self.privacy
        return ({}, {"privacy": KINDS[user_type].unit, "target_epsilon": 8.0})


_SHORT = {"target_epsilon": "epsilon", "noise_multiplier": "noise", "clip_norm": "clip"}


def setting_name(privacy: Mapping[str, Any]) -> str:
    """Name a privacy setting.

    >>> setting_name({})
    'no privacy'
    >>> setting_name({"privacy": "user", "noise_multiplier": 1.0, "clip_norm": 0.5})
    'user level, noise 1, clip 0.5'
    """
    if privacy.get("privacy", "none") == "none":
        return "no privacy"
    words = [f"{privacy['privacy']} level"]
    for name, value in privacy.items():
        if name != "privacy":
            number = f"{value:g}" if isinstance(value, float) else str(value)
            words.append(f"{_SHORT.get(name, name)} {number}")
    return ", ".join(words)


def parse_audit(values: Mapping[str, Any]) -> AuditConfig:
    """Build the configuration from loose values, as they come from JSON or a command line.

    Raises:
        ParameterError: Unknown names, values out of range, or what the audit sets itself.

    >>> parse_audit({"user_types": ["local_update"]}).user_types
    ('local_update',)
    >>> parse_audit({"parameters": {"lr": 0.1, "privacy": "user", "noise_multiplier": 2.0}}).privacy
    ({'privacy': 'user', 'noise_multiplier': 2.0},)
    """
    lists = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    config = parse_config(AuditConfig, lists)
    for name, where in _SET_HERE.items():
        for given in (config.parameters, *(config.privacy or ())):
            if name in given:
                raise ParameterError(
                    f"Expected `{name}` not to be among the strategy's parameters, got "
                    f"{given[name]!r}: it is set by {where}."
                )
    return _privacy_apart(config)


def _privacy_apart(config: AuditConfig) -> AuditConfig:
    """Take privacy parameters out of the strategy's others, and check the names of settings."""
    given = {k: v for k, v in config.parameters.items() if k in PRIVACY_PARAMETERS}
    if given and config.privacy is not None:
        raise ParameterError(
            f"Expected privacy in `parameters` or in `privacy`, got `{next(iter(given))}` in "
            "`parameters`, and `privacy`, too."
        )
    settings = (given,) if given else config.privacy
    for setting in settings or ():
        others = [name for name in setting if name not in PRIVACY_PARAMETERS]
        if others:
            raise ParameterError(
                f"Expected `privacy` to hold privacy parameters, got `{others[0]}`; others belong "
                f"into `parameters`. Known: {', '.join(f'`{n}`' for n in PRIVACY_PARAMETERS)}."
            )
        if setting.get("privacy", "none") not in _UNITS:
            raise ParameterError(
                f"Expected `privacy` to be 'none', 'user' or 'record', got {setting['privacy']!r}."
            )
    names = [setting_name(setting) for setting in settings or ()]
    if len(set(names)) < len(names):
        raise ParameterError(f"Expected `privacy` to hold different settings, got {names}.")
    rest = {k: v for k, v in config.parameters.items() if k not in given}
    return config.model_copy(update={"parameters": rest, "privacy": settings})
