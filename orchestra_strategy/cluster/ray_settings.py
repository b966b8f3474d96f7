"""Settings of a party that works on a Ray."""

from typing import Literal

from pydantic import Field, model_validator

from orchestra_strategy.config import FrozenConfig

__all__ = ["FEWEST_CPUS", "Backend", "RaySettings", "check_ray"]

# Logical ones: two for what sends and receives, the others for the party's worker and its tasks.
FEWEST_CPUS = 4

# Where a party's work is done: in threads of its own process, or in processes of a Ray.
Backend = Literal["threads", "ray"]


class RaySettings(FrozenConfig):
    """The Ray of one party, where ``backend`` is ``"ray"``.

    Attributes:
        address: ``"local"`` starts one for this job, that nobody outside of this machine reaches;
            ``host:port`` or ``"auto"`` joins one that runs, of which this machine is a node.
        num_cpus: Logical CPUs of one that is started here; 4 for each party and 8 more by default.
    """

    address: str = "local"
    num_cpus: int | None = Field(None, ge=FEWEST_CPUS)

    @model_validator(mode="after")
    def _can_be_called(self) -> "RaySettings":
        port = self.address.rpartition(":")[2]
        if self.address not in ("local", "auto") and not (
            ":" in self.address and port.isdigit() and 0 < int(port) < 65536
        ):
            raise ValueError(
                "Expected `ray.address` to be `local`, `auto` or `host:port`, got "
                f"{self.address!r}"
            )
        return self

    @model_validator(mode="after")
    def _has_its_own_cpus(self) -> "RaySettings":
        if self.address != "local" and self.num_cpus is not None:
            raise ValueError(
                "Expected `ray.num_cpus` with `ray.address: local` alone, got both "
                f"{self.num_cpus} and {self.address!r}: a Ray that runs has its own; leave it out"
            )
        return self


def check_ray(backend: Backend, ray: RaySettings | None) -> None:
    """Refuse settings of a Ray where there is none.

    Raises:
        ValueError: They contradict each other.
    """
    if ray is not None and backend != "ray":
        raise ValueError(
            f"Expected `ray` with `backend: ray` alone, got it with `backend: {backend}`; give "
            "both, or leave `ray` out"
        )
