"""The parameters of differential privacy, which every strategy has."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["PrivacyFields"]

_BUDGET = ("noise_multiplier", "target_epsilon", "planned_rounds", "max_epsilon", "noise_seed")


class PrivacyFields(BaseModel):
    """Differential privacy of what leaves a party; off by default.

    Attributes:
        privacy: The unit that is protected: ``none``; ``user``, a federated user with all its data
            (the party, or each of its virtual users); ``record``, one sample of a party.
        clip_norm: C, the largest L2 norm of a user's update, or of one example's gradient.
        clip_quantile: In place of a fixed clip, at user level: C follows this quantile of the norms
            of users' updates, from ``clip_norm`` on. None keeps it fixed.
        clip_rate: How fast it follows: a round changes C by a factor of exp(rate x (quantile -
            share of the users below C)).
        clip_share: Share of a round's privacy loss that goes into counting those users.
        noise_multiplier: Standard deviation of the noise over the sensitivity: of a whole round
            (``user``), or of one local step (``record``).
        noise: ``local``, where each party adds all of its noise and trusts nobody; or ``shared``,
            at user level on route ``secure``, where three parties or more add a part each, so that
            their sum carries the noise once.
        max_colluding: With shared noise, how many of the parties may pool what they know; epsilon
            holds against so many and the aggregator together.
        noise_sampler: ``gaussian``, in float64; or ``discrete``, at user level, in whole numbers
            and exact to the last bit, by the library of the extra ``discrete``; slower, and without
            a ``noise_seed``.
        target_epsilon: In place of ``noise_multiplier``: the noise is found with which
            ``planned_rounds`` rounds cost so much.
        planned_rounds: See ``target_epsilon``.
        delta: The probability with which epsilon may fail; below 1 / (number of units).
        max_epsilon: The budget: a round that would exceed it is not begun. ``target_epsilon`` where
            that is given, else without limit.
        accountant: ``rdp``, or ``pld``, which is tighter and slower.
        noise_seed: For tests alone: makes the noise and the party's other randomness repeat, and
            so removable. None draws both from the operating system's cryptographic generator.
        log_unprotected: Whether losses and health, which no noise protects, go to the driver's log
            nevertheless; the guarantee does not cover them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    privacy: Literal["none", "user", "record"] = "none"
    clip_norm: float = Field(1.0, gt=0, allow_inf_nan=False)
    clip_quantile: float | None = Field(None, gt=0, lt=1)
    clip_rate: float = Field(0.2, gt=0, allow_inf_nan=False)
    clip_share: float = Field(0.01, gt=0, lt=1)
    noise_multiplier: float | None = Field(None, gt=0, allow_inf_nan=False)
    noise: Literal["local", "shared"] = "local"
    max_colluding: int = Field(1, ge=1)
    noise_sampler: Literal["gaussian", "discrete"] = "gaussian"
    target_epsilon: float | None = Field(None, gt=0, allow_inf_nan=False)
    planned_rounds: int | None = Field(None, ge=1)
    delta: float = Field(1e-5, gt=0, lt=1)
    max_epsilon: float | None = Field(None, gt=0)
    accountant: Literal["rdp", "pld"] = "rdp"
    noise_seed: int | None = Field(None, ge=0)
    log_unprotected: bool = False

    @property
    def budget(self) -> float | None:
        """The epsilon that must not be exceeded, or None."""
        return self.target_epsilon if self.max_epsilon is None else self.max_epsilon

    @model_validator(mode="after")
    def _shared_noise_is_of_users(self) -> Any:
        if self.noise == "shared" and self.privacy != "user":
            raise ValueError(
                f"Expected `privacy` to be 'user' with `noise='shared'`, got {self.privacy!r}: "
                "the noise of local steps cannot be shared, since the next step builds on it"
            )
        return self

    @model_validator(mode="after")
    def _discrete_noise_is_of_users(self) -> Any:
        if self.noise_sampler == "discrete" and self.privacy != "user":
            raise ValueError(
                "Expected `privacy` to be 'user' with `noise_sampler='discrete'`, got "
                f"{self.privacy!r}"
            )
        if self.noise_sampler == "discrete" and self.noise_seed is not None:
            raise ValueError(
                "Expected no `noise_seed` with `noise_sampler='discrete'`, which draws from the "
                f"operating system and cannot repeat, got {self.noise_seed}"
            )
        return self

    @model_validator(mode="after")
    def _quantile_is_of_users(self) -> Any:
        if self.clip_quantile is not None and self.privacy != "user":
            raise ValueError(
                f"Expected `privacy` to be 'user' with `clip_quantile`, got {self.privacy!r}: it "
                "is a quantile over users"
            )
        share = self.clip_share + getattr(self, "moments_share", 0.0)
        if self.clip_quantile is not None and share >= 1:
            raise ValueError(
                "Expected `clip_share` and `moments_share` to leave something for the updates, got "
                f"{share:g} together"
            )
        return self

    @model_validator(mode="after")
    def _privacy_is_whole(self) -> Any:
        if self.privacy == "none":
            given = [name for name in _BUDGET if getattr(self, name) is not None]
            if given:
                raise ValueError(
                    f"Expected `privacy` to be 'user' or 'record' where `{given[0]}` is given, got "
                    "'none': without it nothing is protected"
                )
            return self
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            got = "neither" if self.noise_multiplier is None else "both"
            raise ValueError(
                "Expected either `noise_multiplier` or `target_epsilon` with `privacy="
                f"{self.privacy!r}`, got {got}"
            )
        if (self.target_epsilon is None) != (self.planned_rounds is None):
            raise ValueError(
                "Expected `target_epsilon` and `planned_rounds` together, since the noise depends "
                f"on both, got {self.target_epsilon} and {self.planned_rounds}"
            )
        return self
