"""The base of all users: their own copy of the model, their settings, one private gradient."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestra_strategy.algorithms.frozen_parts import guard_group_norms
from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.errors import ModelError, ParameterError
from orchestra_strategy.privacy.local_privacy import add_noise, draw_noise
from orchestra_strategy.privacy.per_example.clipper import PerExampleClipper
from orchestra_strategy.privacy.per_example.loop import loss_gradients, scalar_loss
from orchestra_strategy.privacy.record_level import RecordLevelPrivacy
from orchestra_strategy.privacy.user_level import UserLevelPrivacy
from orchestra_strategy.rng import SeededStreams, Streams
from orchestra_strategy.users.messages import (
    Metadata,
    SharedData,
    TrueUserData,
    active_defences,
    load_payload,
    render,
    server_learns,
)
from orchestra_strategy.users.model_parts import ModelParts
from orchestra_strategy.users.objectives import as_objective
from orchestra_strategy.users.public_settings import PublicSettings
from orchestra_strategy.users.settings import UserSettings
from orchestra_strategy.users.user_batches import data_key, sorted_labels

__all__ = ["FederatedUser"]


class FederatedUser(PublicSettings, ABC):
    """A user: takes ``server_payload`` in, gives ``(shared_data, true_user_data)`` out.

    Args:
        model: The common model; a deep copy is taken.
        loss: A loss module or function (supervised), or an objective f(model, batch).
        setup: ``device`` and ``dtype`` for the model and the data.
        cfg_user: The configuration, by attribute.
        streaming: Whether the batches come from elsewhere, so that ``num_data_points`` is not read.
        generator: Source of the noise; by default a stream of its own for each user and query.
        streams: Where those and the draws of users come from; by default they follow from the
            configuration's ``seed``.

    Attributes:
        model: The user's own model.
        shares: Whether a gradient is shared, or the update after local steps.
        counted_queries: Calls of :meth:`compute_local_updates`, those that failed included.
        loss_means: After a call, the mean over its steps of ``total`` and of the loss's parts.
        steps_done: Steps of the last call.
        update_privacy: Clips and noises what is shared (user level), if its owner sets it.
        record_privacy: Makes each gradient private (DP-SGD), if its owner sets it.

    Raises:
        ParameterError: A configuration entry is missing or out of its range.
        ModelError: The model has nothing to train.
    """

    shares: Literal["gradient", "update"]
    update_privacy: UserLevelPrivacy | None = None
    record_privacy: RecordLevelPrivacy | None = None

    def __init__(
        self,
        model: nn.Module,
        loss: Any,
        setup: Mapping[str, Any],
        cfg_user: Any,
        *,
        streaming: bool = False,
        generator: torch.Generator | None = None,
        streams: Streams | None = None,
    ) -> None:
        if not any(p.requires_grad for p in model.parameters()):
            raise ModelError(
                f"Expected `model` to have trainable parameters, got {type(model).__name__} with "
                "none."
            )
        self.model = guard_group_norms(copy.deepcopy(model).to(**setup))
        self.parts = ModelParts(self.model)
        self.setup = dict(setup)
        self.objective = as_objective(loss)
        self.settings = UserSettings.read(cfg_user, streaming)
        self.generator = generator
        self.streams: Streams = SeededStreams(self.settings.seed) if streams is None else streams
        self.counted_queries = 0
        self.loss_means: dict[str, float] = {}
        self.steps_done = 0
        clip_norm = self.settings.privacy.per_example_clipping
        self._clipper = PerExampleClipper(self.model, clip_norm) if clip_norm else None

    @abstractmethod
    def compute_local_updates(
        self, server_payload: Mapping[str, Any]
    ) -> tuple[SharedData, TrueUserData]:
        """Answer one query of the server."""

    @contextmanager
    def _query(self, server_payload: Mapping[str, Any]) -> Iterator[None]:
        """Count the query and load the payload; if the query fails, leave nothing half done."""
        self.counted_queries += 1
        before = self._buffers()
        try:
            load_payload(self.model, server_payload)
            yield
        except BaseException:
            self.parts.set_buffers(before)
            raise

    def _noise_generator(self, idx: int) -> torch.Generator:
        """Return the stream of user ``idx`` in this query, independent of all other streams."""
        if self.generator is not None:
            return self.generator
        return self.streams.for_torch(f"user{idx}", self.counted_queries - 1, "noise")

    def _gradient(
        self, objective: Objective, batch: Batch, generator: torch.Generator
    ) -> tuple[list[Tensor | None], LossParts | None]:
        """Return one private gradient: noise on the inputs, clip, noise on the gradient.

        Returns:
            A tensor per parameter, None where there is none to be shared (a frozen parameter, or
            one that the loss does not use), and the loss, None for a Poisson sample of no record.
        """
        if self.record_privacy is not None:
            private, mean_loss = self.record_privacy.gradient(objective, batch)
            trains = (p.requires_grad for p in self.parts.parameters)
            return [g if t else None for g, t in zip(private, trains, strict=True)], mean_loss
        privacy = self.settings.privacy
        batch = self._with_input_noise(batch, generator)
        parameters = self.parts.parameters
        gradients: list[Tensor | None]
        if self._clipper is not None:
            clipped = self._clipper(objective, batch)
            gradients, loss = list(clipped.gradients), clipped.loss
        else:
            loss = scalar_loss(objective, self.model, batch)
            gradients = loss_gradients(loss.total, parameters)
        if privacy.gradient_noise:
            # Zeros get noise too: which parameters a loss uses may depend on the data.
            whole = filled(gradients, parameters)
            noisy = add_noise(whole, privacy.gradient_noise, privacy.distribution, generator)
            gradients = list(noisy)
        trained = [p.requires_grad for p in parameters]
        return [g if t else None for g, t in zip(gradients, trained, strict=True)], loss

    def _with_input_noise(self, batch: Batch, generator: torch.Generator) -> Batch:
        privacy = self.settings.privacy
        if not privacy.input_noise:
            return batch
        key = data_key(batch)
        if not batch[key].is_floating_point():
            raise ParameterError(
                f"Expected `input_noise` to be 0 for `{key}` of dtype {batch[key].dtype}, got "
                f"{privacy.input_noise:g}: noise on token ids has no meaning."
            )
        noise = draw_noise(batch[key], privacy.input_noise, privacy.distribution, generator)
        return {**batch, key: batch[key] + noise}

    def share_nothing(self) -> SharedData:
        """Share an update of zero, with the noise that any update gets.

        For a query that failed where a user as a whole is protected: that it did must not show.
        """
        zeros = [torch.zeros_like(p) for p in self.parts.parameters]
        self.loss_means, self.steps_done = {}, 0
        return self._share(
            self._protected(zeros),
            num_data_points=0,
            labels=None,
            local_hyperparams=None,
            key="inputs",
        )

    def _protected(self, update: Sequence[Tensor]) -> list[Tensor]:
        """Clip and noise what one user shares, where user-level privacy is on."""
        if self.update_privacy is None:
            return list(update)
        return self._noised(self.update_privacy.clip(update), 1, 1)

    def _noised(self, mean: Sequence[Tensor], users: int, expected: int) -> list[Tensor]:
        """Add noise to a mean of clipped updates; a frozen parameter's is zero, and stays so."""
        assert self.update_privacy is not None
        trains = [p.requires_grad for p in self.parts.parameters]
        moved = [u for u, t in zip(mean, trains, strict=True) if t]
        noisy = iter(self.update_privacy.noisy_mean(moved, users, expected))
        return [next(noisy) if t else u for u, t in zip(mean, trains, strict=True)]

    def _share(
        self,
        gradients: Sequence[Tensor],
        *,
        num_data_points: int,
        labels: Tensor | None,
        local_hyperparams: dict[str, Any] | None,
        key: str,
    ) -> SharedData:
        """Build what leaves the user: each flag hides or shows exactly its entry."""
        told = self.settings
        metadata = Metadata(
            num_data_points=num_data_points if told.provide_num_data_points else None,
            labels=sorted_labels(labels) if told.provide_labels else None,
            local_hyperparams=local_hyperparams if told.provide_local_hyperparams else None,
            data_key=key,
        )
        buffers = self._new_buffers() if told.provide_buffers else None
        return SharedData(gradients=list(gradients), buffers=buffers, metadata=metadata)

    def _buffers(self) -> list[Tensor]:
        return [b.detach().clone() for b in self.parts.buffers()]

    def _new_buffers(self) -> list[Tensor] | None:
        """Return the buffers after a query; None of a gradient in eval mode: they are the server's.

        After local steps the field's reference returns them in either mode.
        """
        if self.shares == "gradient" and not self.model.training:
            return None
        return self._buffers()

    @abstractmethod
    def _described(self) -> tuple[str, dict[str, Any], str, str]:
        """Return name, settings, what the update is, and what ``local_hyperparams`` holds."""

    def summary(self) -> dict[str, Any]:
        """Return settings, threat model and defences as plain types."""
        user, settings, update, hyperparams = self._described()
        points = self.settings.num_data_points
        common = {
            "model": type(self.model).__name__,
            "num_data_points": "all" if points is None else points,
            "seed": self.settings.seed,
            "counted_queries": self.counted_queries,
        }
        return {
            "user": user,
            "settings": common | settings,
            "server_learns": server_learns(self.settings, update, hyperparams),
            "defences": self._defences(),
        }

    def _defences(self) -> dict[str, str]:
        privacy = self.update_privacy or self.record_privacy
        told = {} if privacy is None else {"differential_privacy": privacy.describe()}
        return active_defences(self.settings.privacy) | told

    def __repr__(self) -> str:
        return render(self.summary())


@contextmanager
def exact_statistics(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm average its batches equally, from the first batch on.

    After one batch a new model's running statistics are the batch's own, as its momentum is None.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [module.momentum for module in norms]
    try:
        for module in norms:
            module.momentum = None
        yield
    finally:
        for module, momentum in zip(norms, before, strict=True):
            module.momentum = momentum


def filled(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Put zeros where there is no gradient."""
    return [
        torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)
    ]
