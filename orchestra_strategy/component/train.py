"""``ml.train/orchestra_train``: tables or images of several parties -> an encoder and a report."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from federated_orchestra import FederatedOrchestraTrainer, TrainerConfig
from orchestra_strategy import host
from orchestra_strategy.component.forms import (
    Images,
    Network,
    Run,
    Samples,
    Waiting,
    limits_from,
    network_from,
    run_from,
    views_for,
)
from orchestra_strategy.component.input_tables import chosen_samples, one_of_each_party, readers_of
from orchestra_strategy.component.model_file import (
    MODEL_TYPE,
    About,
    describe_model,
    write_at_party,
)
from orchestra_strategy.component.platform_job import platform_job
from orchestra_strategy.component.strategy_forms import Common, Strategy, parameters_from
from orchestra_strategy.component.training_report import training_report
from orchestra_strategy.config import parse_config
from orchestra_strategy.data.sources import fed_from_readers
from orchestra_strategy.host_component import (
    Component,
    DistDataType,
    Field,
    Input,
    Interval,
    Output,
    register,
)
from orchestra_strategy.runtime.cluster_session import agree
from orchestra_strategy.runtime.combiner import combiner
from orchestra_strategy.runtime.training import TrainingResults

__all__ = ["OrchestraTrain"]


class _Progress(host.Callback):  # type: ignore[misc]
    """FLModel callback: tells the platform what share of the rounds is done.

    Args:
        tell: Gets a number from 0 to 1.
        rounds: Of the whole training.
    """

    def __init__(self, tell: Callable[[float], None], rounds: int) -> None:
        super().__init__()
        self._tell, self._rounds, self._done = tell, rounds, 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Start where a resumed training stands."""
        self._done = self._rounds - int(self.params["epochs"])

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Tell of a round; not of the end, before which the model has to be written."""
        self._done += 1
        self._tell(0.99 * self._done / self._rounds)


@register(domain="ml.train", version="0.0.1", name="orchestra_train")
class OrchestraTrain(Run, Common, Component):  # type: ignore[misc]
    """Train one encoder over several parties' unlabelled tables or images, which stay with them.

    Parties send the weights that they have trained, and clusters of their own samples; the report
    lists all that left a party, and who saw it.
    """

    strategy: Strategy = Field.union_attr(desc="Method of training.")
    network: Network = Field.struct_attr(desc="The network that is trained.")
    images: Images = Field.struct_attr(desc="How images are read, where there are some.")
    standardise: bool = Field.attr(
        desc="Whether a party scales each column of numbers by its own mean and deviation, which "
        "stay with it; without it, numbers are taken as they are.",
        default=True,
    )
    combiner: str = Field.attr(
        desc="Who combines the parties' weights: a party as server, which sees each party's, or "
        "SecretFlow's SecureAggregator (secure), which gives out their sum alone.",
        default="server",
        choices=["server", "secure"],
    )
    server: list[str] = Field.party_attr(
        desc="The party that combines; by default the first.", list_limit=Interval.closed(0, 1)
    )
    resume: bool = Field.attr(
        desc="Whether to go on from the newest checkpoint that all parties have.", default=False
    )
    waiting: Waiting = Field.struct_attr(desc="How long a party waits for the others.")
    features: list[str] = Field.table_column_attr(
        "input_ds",
        desc="Columns of numbers to train on, the same at all parties; by default all features.",
        limit=Interval.closed(0, None),
    )
    image_column: list[str] = Field.table_column_attr(
        "input_ds",
        desc="Column of paths of images, below the folder of a party's storage; by default the "
        "tables hold numbers.",
        limit=Interval.closed(0, 1),
    )
    input_ds: list[Input] = Field.input(
        desc="A table of each party: the same features, other samples.",
        types=[DistDataType.INDIVIDUAL_TABLE],
        list_limit=Interval.closed(2, None),
    )
    output_model: Output = Field.output(desc="The trained encoder.", types=[MODEL_TYPE])
    report: Output = Field.output(
        desc="Losses, health and costs by round, and all that left a party.",
        types=[DistDataType.REPORT],
    )

    def evaluate(self, ctx: Any) -> None:
        """Train; SecretFlow calls it at every party."""
        with platform_job(ctx, limits_from(self.waiting)), ctx.trace_running():
            parts = one_of_each_party(self.input_ds)
            samples = chosen_samples(parts, self.features, self.image_column, self.images)
            agree("tables", {k: str(v) for k, v in {**asdict(samples), "of": [*parts]}.items()})
            sources = readers_of(parts, samples, self.standardise, ctx.storage, ctx.data_dir)
            trainer = self._trainer(ctx, list(parts), samples)
            results = self._train(ctx, trainer, sources)
            self._write(ctx, trainer, sources, samples, results)

    def _trainer(self, ctx: Any, parties: list[str], samples: Samples) -> FederatedOrchestraTrainer:
        strategy, parameters = parameters_from(self)
        parameters["views"] = views_for(parameters["views"], samples)
        values = {
            **run_from(self, ctx.data_dir),
            **{"strategy": strategy, "parameters": parameters},
            "model": network_from(self.network, samples),
        }
        config = parse_config(TrainerConfig, values, "orchestra_train")
        devices = [host.PYU(party) for party in parties]
        centre = host.PYU(self.server[0]) if self.server else devices[0]
        aggregator = None if self.combiner == "server" else self.combiner
        how = combiner(aggregator, centre, devices)
        return FederatedOrchestraTrainer(config, devices, **how)

    def _train(
        self, ctx: Any, trainer: FederatedOrchestraTrainer, sources: Mapping[str, Any]
    ) -> TrainingResults:
        data = fed_from_readers({host.PYU(party): read for party, read in sources.items()})
        act = trainer.resume if self.resume else trainer.train
        return act(data, callbacks=[_Progress(ctx.update_progress, trainer.config.rounds)])

    def _write(
        self,
        ctx: Any,
        trainer: FederatedOrchestraTrainer,
        sources: Mapping[str, Any],
        samples: Samples,
        results: TrainingResults,
    ) -> None:
        """Have each party write its copy of the model, and make the report."""
        config = trainer.config
        options = trainer.network.options((samples.channels,))
        width = trainer.untrained_encoder().feature_dim
        about = About(config.strategy, results.rounds, width, samples)
        uris = {party: f"{self.output_model.uri}/{i}" for i, party in enumerate(sources)}
        written = {
            device.party: device(write_at_party)(
                worker.averaged_weights(),
                *(ctx.storage, uris[device.party], sources[device.party]),
                *(options, config.seed, about),
            )
            for device, worker in trainer.setup_model().workers.items()
        }
        host.reveal(written)
        system_info = self.input_ds[0].system_info
        self.output_model.data = describe_model(self.output_model.uri, uris, about, system_info)
        facts = {"strategy": config.strategy, "parties": ", ".join(sources), "features": width}
        self.report.data = training_report(self.report.uri, results, facts)
