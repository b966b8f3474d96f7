"""The upper reference: supervised FedAvg, by SecretFlow's own ``fed_avg_w``, on the same splits.

B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, arXiv 1602.05629. It sees every label of every party, which the other strategies do
not, and no augmentation. The host aggregates once an epoch, so an epoch is one pass here.
"""

import io
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.settings import Experiment
from orchestra_strategy import OrchestraModel, host, orchestra_model
from orchestra_strategy.exchange.weights import write_weights
from orchestra_strategy.threads import torch_threads

__all__ = ["Classifier", "train_supervised"]


class Classifier(nn.Module):
    """An encoder with a linear head; takes images as the host hands them on: floats in [0, 255]."""

    def __init__(self, num_classes: int, **model: Any) -> None:
        super().__init__()
        self.encoder = orchestra_model(**model)
        width: Any = self.encoder.backbone.out_dim
        # Nothing but the backbone is trained here, and the host averages all that is in the model.
        del self.encoder.projector, self.encoder.degeneracy_head
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                # The host's aggregator cannot write back an array without a dimension.
                module.num_batches_tracked = torch.zeros(1, dtype=torch.long)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        logits: Tensor = self.head(self.encoder(x.float() / 255))
        return logits


class _ClassLoss(nn.Module):
    """Cross entropy with the labels as the host hands them on: floats."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of logits (B, classes) and labels (B,)."""
        return F.cross_entropy(logits, labels.flatten().long())


def _classifier(seed: int, num_classes: int, **model: Any) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Classifier(num_classes, **model)


def train_supervised(
    setting: Experiment,
    devices: list[Any],
    x: Any,
    y: Any,
    num_classes: int,
    seed: int,
    note: Callable[[int, nn.Module], None],
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train the same network with labels, for as many passes over the data.

    Args:
        setting: The experiment.
        devices: The parties.
        x: FedNdarray of images.
        y: FedNdarray of classes.
        num_classes: Length of the head's output.
        seed: Of the initial network and the order of samples.
        note: Called with the round and the encoder when an evaluation is due.

    Returns:
        The encoder, and a row per pass: ``round``, ``seconds``, ``images_per_second``.
    """
    parameters = {**setting.parameters, **setting.supervised}
    model_options = setting.model.model_dump(exclude={"num_classes"})
    build = partial(_classifier, seed, num_classes, **model_options)
    optimizer = partial(
        torch.optim.SGD,
        lr=parameters["lr"],
        momentum=parameters.get("momentum", 0.9),
        weight_decay=parameters.get("weight_decay", 1e-4),
    )
    model = host.TorchModel(model_fn=build, loss_fn=_ClassLoss, optim_fn=optimizer)
    fl_model = host.FLModel(
        device_list=devices,
        model=model,
        aggregator=host.PlainAggregator(devices[0]),
        strategy="fed_avg_w",
        backend="torch",
        random_seed=seed,
    )
    passes = parameters.get("local_epochs", 1)
    images = setting.parties * setting.users_per_party * setting.samples_per_user

    def encoder() -> OrchestraModel:
        worker = next(iter(host.workers_of(fl_model).values()))
        weights = host.reveal(worker.apply(_encoder_weights))
        trained = build().encoder
        write_weights(trained, weights)
        return trained.eval()

    clock = _Clock(setting, passes, images, lambda done: note(done, encoder()))
    # The host prints every loss; and one thread, as the other strategies have.
    with redirect_stdout(io.StringIO()), torch_threads(1):
        fl_model.fit(
            x,
            y,
            batch_size=parameters["batch_size"],
            epochs=setting.rounds * passes,
            aggregate_freq=_steps(setting, parameters["batch_size"]),
            verbose=0,
            callbacks=[clock],
            random_seed=seed,
        )
    return encoder(), clock.ledger


def _encoder_weights(worker: Any) -> dict[str, Any]:
    from orchestra_strategy.exchange.weights import read_weights

    return read_weights(worker.model.encoder)


def _steps(setting: Experiment, batch_size: int) -> int:
    per_party = setting.users_per_party * setting.samples_per_user
    return -(-per_party // batch_size)


class _Clock(host.Callback):  # type: ignore[misc]
    """Times each round, and asks for an evaluation when one is due."""

    def __init__(
        self, setting: Experiment, passes: int, images: int, evaluate: Callable[[int], None]
    ) -> None:
        super().__init__()
        self.setting, self.passes, self.images = setting, passes, images
        self.evaluate = evaluate
        self.ledger: list[dict[str, Any]] = []
        self._begun = 0.0

    def on_epoch_begin(self, epoch: Any = None, logs: Any = None) -> None:
        """Start the clock with the first pass of a round."""
        if int(epoch) % self.passes == 0:
            self._begun = time.perf_counter()

    def on_epoch_end(self, epoch: Any = None, logs: Any = None) -> None:
        """Note the round after its last pass."""
        done, rest = divmod(int(epoch) + 1, self.passes)
        if rest:
            return
        seconds = time.perf_counter() - self._begun
        speed = self.images * self.passes / seconds
        self.ledger.append({"round": done, "seconds": seconds, "images_per_second": speed})
        if done % self.setting.eval_every == 0 or done == self.setting.rounds:
            self.evaluate(done)
