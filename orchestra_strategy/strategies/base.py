"""The template of every strategy here: one ``train_step``, which calls the federated user.

A strategy is a thin shell around an objective and a user. Subclasses override hooks:
``make_objective`` or ``loss_terms`` for the loss, ``aggregate_weights`` for the server's mean,
``after_local_training`` for what happens at the end of a round, and the ``extra`` hooks for what
travels beside the weights.

This module must not import annotations from the future: SecretFlow reads ``train_step``'s.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Tuple  # noqa: UP035

import numpy as np
import torch
from torch import Tensor, nn

from orchestra_strategy.aggregation.weighted import FloatArray, weighted_mean
from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.payload import Entry, Manifest, Payload, meta_entries, pack, unpack
from orchestra_strategy.strategies.weights import (
    PREFIX,
    read_weights,
    weight_entries,
    write_weights,
)
from orchestra_strategy.strategies.worker import PartyWorker
from orchestra_strategy.threads import torch_threads
from orchestra_strategy.users import UserMultiStep

__all__ = ["FederatedStrategy"]


class FederatedStrategy(PartyWorker):
    """One party of a federated run.

    Args:
        builder_base: SecretFlow's ``TorchModel``, or a callable that returns the model. An
            ``optim_fn`` in it replaces our SGD.
        random_seed: Root seed; None means 42, so that all parties start from the same model.
        **kwargs: See :class:`PartyWorker`.

    Attributes:
        rounds_done: Rounds of training done; round 0 (no training) does not count.
        round_index: The round under way, 0 for the one without training.
        user: The federated user that does the local steps.
    """

    metric_names: ClassVar[tuple[str, ...]] = ("train_loss",)

    def __init__(self, builder_base: Any, random_seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(builder_base, random_seed, **kwargs)
        self.rounds_done = 0
        self.round_index = 0
        self._epoch = -1
        self._host_steps = (0, 1)
        self._optim_fn = getattr(builder_base, "optim_fn", None)
        self.objective: Objective = self.make_objective()
        self.user = self._make_user()

    # ---- Hooks -----------------------------------------------------------------------------

    def make_objective(self) -> Objective:
        """Return the objective; called once, after the model has been built."""
        raise NotImplementedError(f"{type(self).__name__} must define `make_objective`.")

    def loss_terms(self, model: nn.Module, batch: Batch) -> LossParts | Tensor:
        """Return the loss of one local step; by default the objective's."""
        return self.objective(model, batch)

    @staticmethod
    def aggregate_weights(
        weights_list: Sequence[Sequence[FloatArray]], sample_counts: Sequence[int]
    ) -> list[FloatArray]:
        """Combine the parties' weights on the server; by default the mean by sample count."""
        return weighted_mean(weights_list, sample_counts)

    def start_round(self) -> None:
        """Run before the local steps of a round (fresh random streams); by default nothing."""

    def after_local_training(self) -> None:
        """Run at the party after the local steps of a round; by default nothing."""

    def needs_initial_pass(self) -> bool:
        """Whether round 0 (no training) is still to be done; by default never."""
        return False

    def initial_pass(self, batches: Iterable[Batch]) -> None:
        """Do round 0 on the party's data."""

    def extra_entries(self) -> tuple[Entry, ...]:
        """Return the manifest's entries for what travels to the server beside the weights."""
        return ()

    def extras(self) -> dict[str, FloatArray]:
        """Return the arrays for :meth:`extra_entries`."""
        return {}

    def reply_entries(self) -> tuple[Entry, ...]:
        """Return the entries that the server sends back beside the weights."""
        return ()

    def receive_extras(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take the arrays of :meth:`reply_entries`."""

    # ---- What FLModel calls ----------------------------------------------------------------

    def train_step(
        self, weights: Any, cur_steps: int, train_steps: int, **kwargs: Any
    ) -> Tuple[np.ndarray, int]:  # type: ignore[type-arg]  # noqa: UP006
        """Do one federated round at this party.

        Args:
            weights: The server's reply, or None to go on from the present state.
            cur_steps: FLModel's count of steps so far.
            train_steps: How many of FLModel's steps this call covers.
            **kwargs: FLModel's; parameters came in through the constructor or ``configure``.

        Returns:
            The payload and the party's number of samples.
        """
        data = self.require_data()
        if weights is not None:
            self.apply_weights(weights)
        if self.needs_initial_pass():
            return self.get_weights(), len(data)
        step = cur_steps % data.steps_per_epoch
        self._epoch += step == 0
        self._host_steps = (step, train_steps)
        self.round_index = self.rounds_done + 1
        with torch_threads(self.config.torch_threads):
            self.start_round()
            self._train()
            self.rounds_done = self.round_index
            self.after_local_training()
            return self._send("round"), len(data)  # type: ignore[return-value]

    def get_weights(self, return_numpy: bool = True) -> Any:
        """Return the payload without training; the first time this is round 0."""
        if self._data_error is not None:
            raise self._data_error
        if not self.needs_initial_pass():
            return self._send("sync")
        with torch_threads(self.config.torch_threads):
            if self._data is not None:
                self.start_round()
                size = self.config.batch_size
                self.initial_pass(self._data.inference_batches(size, self.exe_device))
            return self._send("init")

    def set_weights(self, weights: Any) -> None:
        """Take the server's reply."""
        self.apply_weights(weights)

    def apply_weights(self, weights: Any, **kwargs: Any) -> None:
        """Take the server's reply: weights, and what came beside them.

        Raises:
            ReplyError: It has another form than the manifest's.
        """
        arrays = unpack(weights, "the server").arrays
        Manifest((*weight_entries(self.model), *self.reply_entries())).check(arrays, "the server")
        write_weights(self.model, arrays)
        self.receive_extras({k: v for k, v in arrays.items() if not k.startswith(PREFIX)})

    # ---- What an auditor calls -------------------------------------------------------------

    def manifest(self) -> Manifest:
        """Return the list of all that leaves this party."""
        return Manifest(
            (*weight_entries(self.model), *self.extra_entries(), *meta_entries(self.metric_names))
        )

    def manifest_rows(self) -> list[dict[str, Any]]:
        """Return the manifest as plain dictionaries."""
        return self.manifest().rows()

    # ---- Inside ----------------------------------------------------------------------------

    def apply_config(self) -> None:
        """Hand changed parameters on to the optimizer."""
        if self._optim_fn is None:
            self.user.set_optimizer_options(**self._sgd_options())

    def _sgd_options(self) -> dict[str, float]:
        return {name: getattr(self.config, name) for name in ("lr", "momentum", "weight_decay")}

    def _sgd(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, **self._sgd_options())

    def _make_user(self) -> UserMultiStep:
        cfg_user = SimpleNamespace(
            num_data_points=self.config.batch_size,
            num_local_updates=1,
            num_data_per_local_update_step=self.config.batch_size,
            local_learning_rate=self.config.lr,
            provide_buffers=True,
        )
        return UserMultiStep(
            self.model,
            self.loss_terms,
            None,
            {"device": self.exe_device, "dtype": torch.float32},
            0,
            cfg_user,
            optimizer_fn=self._optim_fn or self._sgd,
            batches=self._local_batches,
        )

    def _local_batches(self) -> Iterator[Batch]:
        step, steps = self._host_steps
        return self.require_data().training_batches(
            step,
            steps,
            batch_size=self.config.batch_size,
            passes=self.config.local_epochs,
            seed=self.seed,
            party=self.party,
            epoch=self._epoch,
            device=self.exe_device,
        )

    @torch.no_grad()
    def _train(self) -> None:
        """Let the user train from the present weights, and take its update in."""
        self.user.model.load_state_dict(self.model.state_dict())
        payload = {"parameters": [p.detach() for p in self.model.parameters()], "buffers": None}
        with torch.enable_grad():  # type: ignore[no-untyped-call]
            shared, _ = self.user.compute_local_updates(payload)
        for parameter, update in zip(self.model.parameters(), shared["gradients"], strict=True):
            parameter.add_(update)
        for buffer, value in zip(self.model.buffers(), shared["buffers"], strict=True):
            buffer.copy_(value)
        means = {("loss" if k == "total" else k): v for k, v in self.user.loss_means.items()}
        self._metrics = {f"train_{name}": value for name, value in means.items()}

    def _send(self, phase: Any) -> dict[str, Any]:
        arrays = {**read_weights(self.model), **self.extras()}
        return pack(Payload(arrays, self.rounds_done, phase, self.num_samples()), self.manifest())
