"""What is audited: the strategy, the kinds of user, the privacy settings, the size of it all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from orchestra_strategy.audit.objectives import rowwise
from orchestra_strategy.config import FrozenConfig, parse_config
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.privacy.local import LocalPrivacy
from orchestra_strategy.users.reading import local_privacy

__all__ = ["AuditConfig", "PrivacySetting", "parse_audit"]

UserType = Literal["local_gradient", "local_update", "multiuser_aggregate"]
_NOISES = (0.002, 0.03)


class AuditConfig(FrozenConfig):
    """What an audit needs; the defaults take about two minutes on two cores.

    Attributes:
        strategy: ``supervised``, or a strategy of
            :data:`~orchestra_strategy.audit.objectives.OBJECTIVES`.
        parameters: Hyper-parameters of its objective, by name.
        user_types: The kinds of user whose replies are attacked.
        privacy: Local privacy settings (see :class:`~orchestra_strategy.privacy.local.LocalPrivacy`
            for the names); none, clip, and clip with two strengths of noise by default.
        attacks: ``span`` (:mod:`~orchestra_strategy.audit.span`), ``matching``
            (:mod:`~orchestra_strategy.audit.attacks`) or both; the nearest outcome counts.
        images: Samples behind the reply that is attacked; two steps, or two users, share them.
        attack_steps: Length of each search.
        members: Samples that the encoder is trained on, and as many that it is not; fewer where the
            data are fewer.
        passes: Passes over the members.
        batch_size: Samples per training step.
        lr: Learning rate, of the training and of the attacked user's steps.
        momentum: Of the training.
        views: Name of the augmentation.
        view_options: Its options.
        backbone: Name of the network's backbone.
        norm: ``group``, or ``batch``, which cannot be clipped by example.
        hidden_dim: Width of projector and heads.
        projection_dim: Length of a projection.
        num_global_clusters: Of Orchestra.
        delta: Of differential privacy.
        seed: Root of all random streams.
        threads: CPU threads of torch.
    """

    strategy: str = "orchestra"
    parameters: dict[str, Any] = Field(default_factory=dict)
    user_types: tuple[UserType, ...] = Field(
        ("local_gradient", "local_update", "multiuser_aggregate"), min_length=1
    )
    privacy: tuple[dict[str, Any], ...] | None = Field(None, min_length=1)
    attacks: tuple[Literal["span", "matching"], ...] = Field(("span",), min_length=1)
    images: int = Field(4, ge=4, multiple_of=2)
    attack_steps: int = Field(250, ge=1)
    members: int = Field(200, ge=8)
    passes: int = Field(30, ge=1)
    batch_size: int = Field(32, ge=2)
    lr: float = Field(0.003, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    views: str = "grey"
    view_options: dict[str, Any] = Field(default_factory=dict)
    backbone: str = "conv4"
    norm: Literal["group", "batch"] = "group"
    hidden_dim: int = Field(128, ge=1)
    projection_dim: int = Field(128, ge=1)
    num_global_clusters: int = Field(32, ge=2)
    delta: float = Field(1e-5, gt=0, lt=1)
    seed: int = Field(0, ge=0)
    threads: int = Field(2, ge=1)

    def privacy_settings(self) -> list["PrivacySetting"]:
        """Return the privacy settings, checked and named.

        Raises:
            ParameterError: An entry is unknown or out of its range; clipping by example is asked of
                a loss that compares samples, or of a network with BatchNorm; one occurs twice.
        """
        clips = rowwise(self.strategy) and self.norm == "group"
        chosen: tuple[Mapping[str, Any], ...] | None = self.privacy
        if chosen is None:
            clip = {"per_example_clipping": 1.0} if clips else {}
            noisy = tuple({**clip, "gradient_noise": noise} for noise in _NOISES)
            chosen = ({}, *((clip,) if clip else ()), *noisy)
        settings = [PrivacySetting.read(entries) for entries in chosen]
        for setting in settings:
            if setting.privacy.per_example_clipping and not clips:
                reason = (
                    f"the loss of `{self.strategy}` compares samples with each other"
                    if not rowwise(self.strategy)
                    else "BatchNorm mixes the samples of a batch; use `norm` = 'group'"
                )
                raise ParameterError(
                    f"Expected `per_example_clipping` to be 0, got "
                    f"{setting.privacy.per_example_clipping:g}: {reason}."
                )
        names = [setting.name for setting in settings]
        if len(set(names)) < len(names):
            raise ParameterError(f"Expected `privacy` to hold different settings, got {names}.")
        return settings


@dataclass(frozen=True)
class PrivacySetting:
    """A local privacy setting and its name."""

    name: str
    privacy: LocalPrivacy

    @classmethod
    def read(cls, entries: Mapping[str, Any]) -> "PrivacySetting":
        """Check and name a setting.

        >>> PrivacySetting.read({"per_example_clipping": 1.0, "gradient_noise": 0.5}).name
        'clip 1, gaussian noise 0.5'
        >>> PrivacySetting.read({}).name
        'no defence'
        """
        privacy = local_privacy({"local_diff_privacy": dict(entries)})
        parts = []
        if privacy.per_example_clipping:
            parts.append(f"clip {privacy.per_example_clipping:g}")
        if privacy.gradient_noise:
            parts.append(f"{privacy.distribution} noise {privacy.gradient_noise:g}")
        if privacy.input_noise:
            parts.append(f"{privacy.distribution} input noise {privacy.input_noise:g}")
        return cls(", ".join(parts) or "no defence", privacy)


def parse_audit(values: Mapping[str, Any]) -> AuditConfig:
    """Build the configuration from loose values, as they come from JSON or a command line.

    Raises:
        ParameterError: Unknown names, values out of range, or settings that exclude each other.

    >>> parse_audit({"user_types": ["local_update"]}).user_types
    ('local_update',)
    """
    lists = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    config = parse_config(AuditConfig, lists)
    config.privacy_settings()
    return config
