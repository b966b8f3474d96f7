"""The user of federated SGD: one gradient per query."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orchestra_strategy.algorithms.objective import Batch, LossParts, Objective
from orchestra_strategy.errors import DataError
from orchestra_strategy.rng import Streams
from orchestra_strategy.users.federated_user import FederatedUser, exact_statistics, filled
from orchestra_strategy.users.messages import SharedData, TrueUserData
from orchestra_strategy.users.showing import plot_images, print_texts
from orchestra_strategy.users.user_batches import (
    as_batch,
    data_key,
    mean_losses,
    num_rows,
    read_samples,
)

__all__ = ["UserSingleStep"]


class UserSingleStep(FederatedUser):
    """Shares the gradient of the loss on ``num_data_points`` samples (``local_gradient``).

    H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", AISTATS 2017, https://arxiv.org/abs/1602.05629 (FedSGD). The form of the messages is that
    of J. Geiping et al., NeurIPS 2020, https://arxiv.org/abs/2003.14053.

    Args:
        model: The common model; a deep copy is taken, the caller's stays as it is.
        loss: A loss module such as ``CrossEntropyLoss`` or a function ``loss(outputs, labels)``; or
            an objective ``f(model, batch)``. Functions are told apart by their parameters' names.
        dataloader: Yields the user's batches: named tensors, ``(x, y)``, ``(x,)`` or ``x``. It is
            read from its beginning in each query.
        setup: ``device`` and ``dtype``.
        idx: The user's number.
        cfg_user: By attribute: ``num_data_points`` (or ``"all"``); optional: ``provide_*`` flags
            (False), ``local_diff_privacy`` (none), ``seed`` (0).
        generator: Source of the noise; by default derived from ``streams``, idx and query.
        streams: The user's random streams; by default they follow from ``seed``.
        keep_true_data: Whether ``true_user_data`` holds data and labels.
        exact_statistics: Whether BatchNorm's running statistics become those of the batch in train
            mode (over several queries their mean, each batch counting the same), as in the field's
            reference. False: they move by the module's momentum, which a model that is trained over
            many rounds needs.

    Raises:
        ParameterError: A configuration entry is missing or out of its range.
    """

    shares: Literal["gradient", "update"] = "gradient"

    def __init__(
        self,
        model: nn.Module,
        loss: Any,
        dataloader: Iterable[Any] | None,
        setup: Mapping[str, Any],
        idx: int,
        cfg_user: Any,
        *,
        generator: torch.Generator | None = None,
        streams: Streams | None = None,
        keep_true_data: bool = True,
        exact_statistics: bool = True,
    ) -> None:
        super().__init__(
            model,
            loss,
            setup,
            cfg_user,
            streaming=dataloader is None,
            generator=generator,
            streams=streams,
        )
        self.dataloader = dataloader
        self.user_idx = idx
        self.keep_true_data = keep_true_data
        self.exact_statistics = exact_statistics

    def compute_local_updates(
        self, server_payload: Mapping[str, Any]
    ) -> tuple[SharedData, TrueUserData]:
        """Answer one query of the server with a gradient.

        Args:
            server_payload: ``dict(parameters=[...], buffers=[...] or None)``; only read. Buffers
                are loaded and put the model into eval mode; without them it is in train mode.

        Returns:
            ``shared_data``, with the gradient of the mean loss by parameter (zeros for a parameter
            that is frozen or unused) and ``local_hyperparams`` always None, for there are none; and
            ``true_user_data`` for analysis, always the clean data. ``buffers`` of both are None if
            the server sent some.

        Raises:
            ReplyError: The payload does not fit the model.
            DataError: The user owns too few samples, or lacks labels that the loss needs.
        """
        with self._query(server_payload):
            samples = self._read(self.dataloader, self.user_idx)
            gradients, loss = self._one_gradient(self.objective, samples, self.user_idx)
        self.loss_means, self.steps_done = mean_losses([] if loss is None else [loss]), 1
        shared = self._share(
            self._protected(gradients),
            num_data_points=num_rows(samples),
            labels=samples.get("labels"),
            local_hyperparams=None,
            key=data_key(samples),
        )
        return shared, self._truth(samples)

    def print(self, user_data: Mapping[str, Any]) -> None:
        """Print user data as text: this user's own or what an attack made of them.

        Args:
            user_data: ``data`` (N, T), token ids; the data set's ``tokenizer`` decodes them.

        Raises:
            ParameterError: The data set has no tokenizer.
            DataError: ``data`` is None.
        """
        print_texts(self._dataset(), user_data)

    def plot(
        self, user_data: Mapping[str, Any], scale: bool = False, print_labels: bool = False
    ) -> None:
        """Draw user data as images with pyplot; see :func:`~.showing.plot_images`.

        Args:
            user_data: ``data`` (N, H, W) or (N, C, H, W), ``labels`` (N,) or None.
            scale: Stretch each image to its own range, in place of the data set's mean and std.
            print_labels: Write each image's label above it, by the data set's ``classes``.

        Raises:
            DataError: The data are no images, or None.
            ImportError: Matplotlib is not installed.
        """
        plot_images(self._dataset(), user_data, scale, print_labels)

    def _dataset(self) -> Any:
        return getattr(self.dataloader, "dataset", None)

    def _one_gradient(
        self, objective: Objective, samples: Batch, idx: int
    ) -> tuple[list[Tensor], LossParts | None]:
        """Return the private gradient of user ``idx``, a tensor per parameter, and the loss."""
        generator = self._noise_generator(idx)
        with exact_statistics(self.model) if self.exact_statistics else nullcontext():
            found, loss = self._gradient(objective, samples, generator)
        return [g.detach() for g in filled(found, self.parts.parameters)], loss

    def _read(self, dataloader: Iterable[Any] | None, idx: int) -> Batch:
        if dataloader is None:
            raise DataError(f"Expected a `dataloader` for user {idx}, got None.")
        if self.record_privacy is not None:  # a Poisson sample is one batch, and may be empty
            return as_batch(next(iter(dataloader)), self.setup)
        return read_samples(
            dataloader, self.settings.num_data_points, self.setup, owner=f"user {idx}"
        )

    def _truth(self, samples: Batch | None) -> TrueUserData:
        kept = samples if samples is not None and self.keep_true_data else None
        return TrueUserData(
            data=None if kept is None else kept[data_key(kept)],
            labels=None if kept is None else kept.get("labels"),
            buffers=self._new_buffers(),
        )

    def _described(self) -> tuple[str, dict[str, Any], str, str]:
        update = "the gradient of the mean loss over the user's samples, one tensor per parameter"
        settings = {"user_idx": self.user_idx, "user_type": "local_gradient"}
        return f"{type(self).__name__} {self.user_idx}", settings, update, "nothing: there are none"
