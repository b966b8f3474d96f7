"""A strategy's parameters: typed, validated once at the edge, immutable inside."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from orchestra_strategy.aggregation.fields import AggregationFields
from orchestra_strategy.aggregation.table import AGGREGATIONS
from orchestra_strategy.algorithms.precision import Precision
from orchestra_strategy.config_problems import checked
from orchestra_strategy.errors import ParameterError
from orchestra_strategy.exchange.rounded import BITS
from orchestra_strategy.exchange.routes import SERVER_ROUTE
from orchestra_strategy.privacy.settings import PrivacyFields

__all__ = ["FrozenConfig", "StrategyConfig", "parse_config"]


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _InWords(ModelMetaclass):
    """Refuses values in the package's words, and not in pydantic's."""

    def __call__(self, **values: Any) -> Any:
        """Build a configuration, as :func:`parse_config` does."""
        return parse_config(self, values, of=f"`{self.__name__}`")  # type: ignore[arg-type]


class FrozenConfig(BaseModel, metaclass=_InWords):
    """Immutable; strict about types; numbers are finite; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class StrategyConfig(FrozenConfig, PrivacyFields, AggregationFields):
    """Parameters that every strategy of this package has; defaults are the published ones.

    Those of differential privacy are :class:`~orchestra_strategy.privacy.settings.PrivacyFields`,
    those of the server :class:`~orchestra_strategy.aggregation.fields.AggregationFields`.

    Attributes:
        batch_size: Samples per local step, at every party, whatever the size of its data.
        local_epochs: Passes over the party's own data per FLModel epoch.
        lr: SGD learning rate.
        lr_rounds: Rounds over which ``lr`` falls along half a cosine, to next to nothing in the
            last of them; None leaves it as it is.
        momentum: SGD momentum; it survives from round to round, but not in virtual users.
        weight_decay: SGD weight decay.
        views: Name of the augmentation, see ``orchestra_strategy.data.VIEWS``.
        view_options: Options of the augmentation.
        user_type: Which kind of federated user a party is: ``local_update`` (several local epochs,
            weights averaged), ``local_gradient`` (one gradient on one batch a round) or
            ``multiuser_aggregate`` (a party hosts ``num_virtual_users``, their updates averaged).
        num_virtual_users: Users that a party hosts; its samples are dealt out to them equally.
        users_per_round: How many of them, drawn by seed, take part in a round; None is all.
        user_split: How samples are dealt out to virtual users: ``shuffled`` by seed, or in
            ``blocks`` of consecutive samples, for simulations that give each user its own mixture.
        user_workers: How many virtual users a party trains at a time, each in a process with
            ``torch_threads`` threads; the results are the same bits for any number. With the cores
            of the party's machine a round takes that much less time, and each process some memory.
        health_samples: After each round the encoder's health (alignment, uniformity, effective
            rank, balance of the clusters) is measured on so many of the party's samples; 0 is off.
        stop_on_collapse: Whether a collapsed encoder at a party votes to stop the training.
        predict_output: What ``predict`` returns: ``features`` of the backbone, unit-norm
            ``projections``, ids of ``clusters`` where the strategy has some, or ``classes`` where
            it learns from labels.
        route: How payloads are combined: by a ``server``, which sees each party's, or as sums
            through an aggregator of SecretFlow (``secure``). OrchestraFLModel sets it itself.
        payload_dtype: How trained weights travel on route ``server``, both ways: ``float32``, or
            rounded to ``float16`` in half the bytes. Parties compute in float32 and all adopt the
            same rounded average; running statistics and centroids stay float32.
        payload_bits: With ``privacy="user"`` on route ``server``, of how many bits each number of
            an update is on the way, both ways: 16, 8 or 4. It is rounded at random, right on
            average, after the noise, so that epsilon stays. None sends float32.
        streams: Where the party's randomness comes from (views, order of batches, which virtual
            users take part, and the like): from the ``seed``, so that all can repeat it; or from a
            ``secret`` of the party. ``auto`` is the seed in SecretFlow's simulation modes and by
            hand, the secret in cluster mode. With ``privacy`` it is always secret, unless
            ``noise_seed`` is given, and then follows from that.
        precision: What the networks compute in during local steps: ``fp32``, or ``bf16`` on
            processors and GPUs that have bfloat16; weights, losses, and all that leaves a party are
            float32 in both.
        torch_threads: CPU threads of torch during a call. The results depend on it in their last
            bits, so it must be the same wherever they are compared.
        ring_parties: On route ``secure``, how many parties an aggregator adds up in a ring, so that
            what would not fit is refused; 0 for an aggregator without one. Handed out by
            OrchestraFLModel; None counts as 64.
        ring_limit: What a sum of numbers times weights has to stay below to fit that ring. Handed
            out by OrchestraFLModel; None counts as 2**45, that of a SecureAggregator, which an SPU
            of field FM128 exceeds. With SecretFlow's own FLModel, give 2**25 for an SPU of FM64.
        parties: How many parties there are. Handed out by OrchestraFLModel; None is not known.
        party: The party's name, for its random streams. Handed out by OrchestraFLModel; where it is
            not given, a fingerprint of the party's data stands in (it stays at the party).
    """

    batch_size: int = Field(16, ge=2)
    local_epochs: int = Field(10, ge=1)
    lr: float = Field(0.003, gt=0)
    lr_rounds: int | None = Field(None, ge=1)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    views: str = "grey"
    view_options: dict[str, Any] = Field(default_factory=dict)
    user_type: Literal["local_gradient", "local_update", "multiuser_aggregate"] = "local_update"
    num_virtual_users: int = Field(8, ge=1)
    users_per_round: int | None = Field(None, ge=1)
    user_split: Literal["shuffled", "blocks"] = "shuffled"
    user_workers: int = Field(1, ge=1)
    health_samples: int = Field(256, ge=0)
    stop_on_collapse: bool = True
    predict_output: Literal["features", "projections", "clusters", "classes"] = "features"
    route: Literal["server", "secure"] = "server"
    payload_dtype: Literal["float32", "float16"] = "float32"
    payload_bits: int | None = Field(None, ge=min(BITS), le=max(BITS))
    streams: Literal["auto", "seed", "secret"] = "auto"
    precision: Precision = "fp32"
    torch_threads: int = Field(1, ge=1)
    ring_parties: int | None = Field(None, ge=0)
    ring_limit: float | None = Field(None, gt=0)
    parties: int | None = Field(None, ge=1)
    party: str | None = None

    sends_clusters: ClassVar[bool] = False

    def lr_of(self, round_index: int) -> float:
        """Return the learning rate of a round, the first one being 1.

        I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
        https://arxiv.org/abs/1608.03983, eq. 5 without restarts.
        """
        if self.lr_rounds is None:
            return self.lr
        done = min(max(round_index, 1), self.lr_rounds) - 1
        return self.lr * (1 + math.cos(math.pi * done / self.lr_rounds)) / 2

    @model_validator(mode="after")
    def _users_exist(self) -> "StrategyConfig":
        if self.users_per_round is not None and self.users_per_round > self.num_virtual_users:
            raise ValueError(
                "Expected `users_per_round` to be at most `num_virtual_users`, got "
                f"{self.users_per_round} > {self.num_virtual_users}"
            )
        return self

    @model_validator(mode="after")
    def _workers_have_users(self) -> "StrategyConfig":
        if self.user_workers > 1 and self.user_type != "multiuser_aggregate":
            raise ValueError(
                "Expected `user_workers` to be 1 with "
                f"user_type={self.user_type!r}, got {self.user_workers}: the party is one user; "
                "use 'multiuser_aggregate' for virtual users"
            )
        return self

    @model_validator(mode="after")
    def _replies_are_seen(self) -> "StrategyConfig":
        only = {"aggregation": "mean", "on_bad_reply": "fail"}
        only |= {n: type(self).model_fields[n].default for n in ("trim", "min_parties")}
        wrong = [name for name, value in only.items() if getattr(self, name) != value]
        if self.route == "secure" and wrong:
            raise ValueError(
                f"Expected `{wrong[0]}` to be {only[wrong[0]]!r} on `route='secure'`, got "
                f"{getattr(self, wrong[0])!r}: an aggregator gives out the mean alone, and nobody "
                f"sees a single reply; use {SERVER_ROUTE} for it"
            )
        return self

    @model_validator(mode="after")
    def _weights_can_be_halved(self) -> "StrategyConfig":
        if self.payload_dtype == "float32":
            return self
        if self.route == "secure":
            raise ValueError(
                "Expected `payload_dtype` to be 'float32' on `route='secure'`, got 'float16': an "
                "aggregator adds up in fixed-point numbers of their own width, so nothing would "
                f"get smaller; use {SERVER_ROUTE} for it"
            )
        if self.user_type == "local_gradient":
            raise ValueError(
                "Expected `payload_dtype` to be 'float32' with `user_type='local_gradient'`, got "
                "'float16': gradients are often below 6e-8, where a float16 is 0; use "
                "`user_type='local_update'` for it"
            )
        return self

    @field_validator("payload_bits")
    @classmethod
    def _bits_are_known(cls, given: int | None) -> int | None:
        if given is not None and given not in BITS:
            raise ValueError(f"Expected `payload_bits` to be 4, 8, 16 or None, got {given}")
        return given

    @model_validator(mode="after")
    def _updates_can_be_rounded(self) -> "StrategyConfig":
        got = self.payload_bits
        if got is None:
            return self
        if self.privacy != "user":
            raise ValueError(
                f"Expected `privacy` to be 'user' with `payload_bits`, got {self.privacy!r}: it "
                "rounds updates that carry their noise already; without `privacy` use "
                "`payload_dtype='float16'`"
            )
        if self.route == "secure":
            raise ValueError(
                f"Expected no `payload_bits` on `route='secure'`, got {got}: an aggregator adds up "
                "in whole numbers of 64 bits or more, so nothing would get smaller; use "
                f"{SERVER_ROUTE} for it"
            )
        if self.payload_dtype != "float32":
            raise ValueError(
                f"Expected `payload_dtype` to be 'float32' with `payload_bits`, got "
                f"{self.payload_dtype!r}: the updates travel in {got} bits already"
            )
        return self

    @model_validator(mode="after")
    def _streams_protect(self) -> "StrategyConfig":
        if self.privacy != "none" and self.streams == "seed":
            raise ValueError(
                f"Expected `streams` to be 'auto' or 'secret' with privacy={self.privacy!r}, got "
                "'seed': whoever knows the seed would know each sample's views; for tests give "
                "`noise_seed`, which they follow from then"
            )
        return self

    @model_validator(mode="after")
    def _clipping_is_exact(self) -> "StrategyConfig":
        if self.privacy == "record" and self.precision != "fp32":
            raise ValueError(
                "Expected `precision` to be 'fp32' with privacy='record', got "
                f"{self.precision!r}: a sample's gradient is clipped by a length that bfloat16 "
                "does not tell exactly; use 'fp32'"
            )
        return self

    @model_validator(mode="after")
    def _quality_is_known(self) -> "StrategyConfig":
        if self.combining.needs_quality and not self.sends_clusters:
            raise ValueError(
                f"Expected `aggregation` to be {_others()} for a strategy whose local clusters do "
                f"not leave the party, got {self.aggregation!r}"
            )
        return self


def _others() -> str:
    """Return the aggregations that need weights alone, for a message."""
    *names, last = [repr(n) for n, how in AGGREGATIONS.items() if not how.needs_quality]
    return f"{', '.join(names)} or {last}"


ConfigT = TypeVar("ConfigT", bound=FrozenConfig)


def parse_config(
    config_class: type[ConfigT], values: Mapping[str, Any], of: str = "this strategy"
) -> ConfigT:
    """Build a configuration from loose values, with every problem in one message.

    Args:
        config_class: The strategy's configuration class.
        values: Parameters by name; numpy scalars count as Python numbers.
        of: Whose parameters they are, for the message.

    Raises:
        ParameterError: Unknown names (with the nearest known one) or values out of range.

    >>> parse_config(StrategyConfig, {"lr": 0.5}).lr
    0.5
    >>> parse_config(StrategyConfig, {"lr": 0})
    Traceback (most recent call last):
    ...
    orchestra_strategy.errors.ParameterError: Expected `lr` to be greater than 0, got 0.
    """
    config, problems = checked(config_class, values, of)
    if config is None:
        raise ParameterError(" ".join(problem.sentence for problem in problems))
    return config
