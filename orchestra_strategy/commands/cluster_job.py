"""A job of several parties: a training, who takes part, and what each keeps to itself."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from federated_orchestra import FederatedOrchestraTrainer, TrainerConfig, TrainingResults
from orchestra_strategy.aggregation.fields import AggregationFields
from orchestra_strategy.cluster.ray_settings import Backend, RaySettings, check_ray
from orchestra_strategy.cluster.settings import ClusterSettings, Limits, PartyAddress, TlsFiles
from orchestra_strategy.commands.yaml_file import read_yaml
from orchestra_strategy.config import FrozenConfig, parse_config
from orchestra_strategy.errors import ParameterError, did_you_mean
from orchestra_strategy.runtime.checks import our_strategy
from orchestra_strategy.runtime.combiner import combiner
from orchestra_strategy.runtime.coming_back import PartiesBack
from orchestra_strategy.runtime.common_settings import as_texts
from orchestra_strategy.runtime.session import session
from orchestra_strategy.runtime.trained_network import settings_of

__all__ = [
    "ClusterJob",
    "LocalPart",
    "combining_of",
    "common_settings",
    "party_settings",
    "run_job",
    "server_of",
    "with_local_part",
]


class LocalPart(FrozenConfig):
    """What may be another at each party; ``{party}`` in a text stands for the party's name.

    Attributes:
        data: Path of the party's own data.
        out_dir: Its folder for results.
        log_dir: Its folder for what it says while it runs.
        checkpoint_dir: Its folder for checkpoints; that there is one is agreed on.
        tls: Its key files.
        listen: The address that it binds to.
        num_gpus: GPUs that it uses.
        ray: Its Ray, where ``backend`` is ``ray``.
        progress: Whether it draws the progress.
    """

    data: str | None = None
    out_dir: str | None = None
    log_dir: str | None = None
    checkpoint_dir: str | None = None
    tls: TlsFiles | None = None
    listen: str | None = None
    num_gpus: int | None = Field(None, ge=0)
    ray: RaySettings | None = None
    progress: bool | None = None


class ClusterJob(TrainerConfig):
    """A training by several parties, the same file at each.

    Attributes:
        parties: Address of each by name.
        server: Which of them aggregates; the first, if there is no ``aggregator``.
        aggregator: SecretFlow's, in place of a server: ``secure`` (masks between the parties) or
            ``plain``, which is for trials.
        data: Path of a party's own data; with ``{party}`` for its name, or in its local part.
        tls: Key files, likewise.
        backend: ``ray`` has each party's work done on a Ray of its own, ``threads`` in its process.
        ray: Each party's Ray, or in its local part.
        cluster: Limits on waiting.
    """

    parties: dict[str, PartyAddress]
    server: str | None = None
    aggregator: Literal["secure", "plain"] | None = None
    data: str | None = None
    tls: TlsFiles | None = None
    backend: Backend = "threads"
    ray: RaySettings | None = None
    cluster: Limits = Field(default_factory=Limits)

    @model_validator(mode="after")
    def _one_combines(self) -> "ClusterJob":
        if self.server is not None and self.aggregator is not None:
            raise ValueError(
                f"Expected `server` or `aggregator`, got both ({self.server!r}, "
                f"{self.aggregator!r}); leave one out"
            )
        if self.server is not None and self.server not in self.parties:
            raise ValueError(
                f"Expected `server` to be one of {sorted(self.parties)}, got {self.server!r}"
            )
        check_ray(self.backend, self.ray)
        return self


def with_local_part(job: ClusterJob, path: Path | None, party: str) -> ClusterJob:
    """Return the job as one party runs it.

    Args:
        job: As in the file that all have.
        path: The party's own YAML file with fields of :class:`LocalPart`; None if it has none.
        party: Its name.

    Raises:
        ParameterError: The party is unknown, or the file says what is for all parties to say.
    """
    if party not in job.parties:
        hint = did_you_mean(party, job.parties)
        raise ParameterError(f"Expected `--party` to be a party of the job, got {party!r}; {hint}.")
    own: dict[str, Any] = {}
    if path is not None:
        of = f"the local part {path} (all else is the same at every party, in the job's file)"
        local = parse_config(LocalPart, read_yaml(path).values, of)
        own = {name: getattr(local, name) for name in local.model_fields_set}
    listen = own.pop("listen", None)
    if listen is not None:
        at = PartyAddress(address=job.parties[party].address, listen=listen)
        own["parties"] = {**job.parties, party: at}
    changed = job.model_copy(update=own)
    paths = ("data", "out_dir", "log_dir", "checkpoint_dir")
    filled = {name: _filled(getattr(changed, name), party) for name in (*paths, "tls")}
    if job.backend == "ray":  # a Ray that is joined has its workers in another folder
        filled |= {
            p: os.path.abspath(os.path.expanduser(filled[p]))
            for p in paths
            if filled[p] is not None
        }
    return changed.model_copy(update=filled)


def server_of(job: ClusterJob) -> str | None:
    """Return the party that aggregates; None where an aggregator does."""
    if job.aggregator is not None:
        return None
    return job.server or next(iter(job.parties))


def combining_of(job: ClusterJob) -> AggregationFields:
    """Return how the job's replies are combined."""
    config = parse_config(our_strategy(job.strategy).config_class, job.parameters)
    assert isinstance(config, AggregationFields)
    return config


def party_settings(job: ClusterJob, party: str, absent: Sequence[str] = ()) -> ClusterSettings:
    """Return the settings of the cluster for one party.

    Args:
        job: The party's.
        party: Its name.
        absent: Parties that the others go on without.

    Raises:
        ParameterError: They contradict each other.
    """
    values = job.cluster.model_dump() | {
        name: getattr(job, name) for name in ("parties", "tls", "backend", "ray")
    }
    return parse_config(ClusterSettings, {**values, "self_party": party, "absent": tuple(absent)})


def common_settings(job: ClusterJob, action: str) -> dict[str, str]:
    """Return all that must be the same at every party, as texts by name.

    Compared before an aggregator is made, which would wait for the others already.
    """
    values = job.model_dump(
        exclude={*LocalPart.model_fields, "parties", "cluster", "model", "parameters"}, mode="json"
    )
    values |= {"action": action, "checkpoints": job.checkpoint_dir is not None}
    config_class = our_strategy(job.strategy).config_class
    parameters = parse_config(config_class, job.parameters).model_dump()
    return as_texts(values, settings_of(job.model), parameters)


def run_job(
    job: ClusterJob,
    party: str | None,
    resume: bool,
    locals_of: dict[str, ClusterJob],
    absent: Sequence[str] = (),
) -> TrainingResults | None:
    """Train as one party of a cluster; or, without a party, simulate all of them here.

    Args:
        job: With the party's local part.
        party: Who this process is; None simulates.
        resume: Whether to go on from the newest checkpoint that all have.
        locals_of: Of a simulation, the job of each party; else the party's own alone.
        absent: Parties that the others go on without.

    Returns:
        What came of it; None where it has ended at a checkpoint because all who were absent are
        back.

    Raises:
        OrchestraError: The job cannot start or go on.
    """
    missing = [name for name, one in locals_of.items() if one.data is None]
    if missing:
        raise ParameterError(
            f"Expected `data` to be the path of {missing[0]}'s data, got None; give it in the job "
            "(`data: data/{party}`) or in the party's local part (`--local`)."
        )
    # Another party's path is its own affair: nothing here reads it.
    paths = {name: locals_of[name].data if name in locals_of else "-" for name in job.parties}
    where: dict[str, Any] = (
        {"parties": list(job.parties), "mode": "debug"}
        if party is None
        else {
            "mode": "cluster",
            "cluster": party_settings(job, party, absent),
            "common": common_settings(job, "resume" if resume else "train"),
        }
    )
    with session(**where) as devices:
        (centre,) = [d for d in devices if d.party == (server_of(job) or devices[0].party)]
        how = combiner(job.aggregator, centre, devices)
        if len(devices) <= combining_of(job).min_parties:  # there is nobody left to leave out
            of_leaving_out = ("on_bad_reply", "min_parties")
            kept = {k: v for k, v in job.parameters.items() if k not in of_leaving_out}
            job = job.model_copy(update={"parameters": kept})
        trainer = FederatedOrchestraTrainer(job, devices, parties=list(job.parties), **how)
        act = trainer.resume if resume else trainer.train
        try:
            return act({device: paths[device.party] for device in devices})
        except PartiesBack:
            return None


def _filled(value: Any, party: str) -> Any:
    if isinstance(value, TlsFiles):
        return TlsFiles(**{name: _filled(v, party) for name, v in value.model_dump().items()})
    return value.replace("{party}", party) if isinstance(value, str) else value
