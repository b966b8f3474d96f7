"""The trained encoder through FLModel's methods: evaluate, predict, save, load."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from orchestra_strategy import host
from orchestra_strategy.errors import CheckpointError
from orchestra_strategy.party.privacy import unit_of
from orchestra_strategy.runtime.federated_input import federated_pair
from orchestra_strategy.runtime.fl_files import model_paths, refuse_saved_model
from orchestra_strategy.runtime.fl_parties import AskedParties
from orchestra_strategy.runtime.host_arguments import refuse_arguments

__all__ = ["HOST_MAX_BATCH", "EncoderCalls"]

HOST_MAX_BATCH = 1000
"""FLModel refuses a step of 1024 samples or more at any party; ours do not use its steps."""

# A distance, and so the encoder's health, needs two samples.
_LEAST_EVALUATED = 2


class EncoderCalls(AskedParties):
    """FLModel's methods on an encoder; see :class:`OrchestraFLModel`."""

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: Any = None,
        return_dict: bool = False,
        random_seed: int | None = None,
        dataset_builder: Mapping[Any, Callable[..., Any]] | None = None,
        **others: Any,
    ) -> Any:
        """Measure the encoder at the parties: its health, and with labels its clusters.

        Args:
            x: As in :meth:`fit`; at least 2 samples at every party.
            y: Class numbers, in the same form, the name of a column as in :meth:`fit`, or None;
                they stay at their parties.
            batch_size: Of no effect: a party looks at its samples together.
            return_dict: Whether metrics are given by name, and not as a list.
            random_seed: Of no effect: nothing is drawn by it.
            dataset_builder: As in :meth:`fit`; it is told ``stage="eval"``.
            **others: FLModel's other arguments, which are refused, see ``docs/flmodel.md``.

        Returns:
            FLModel's pair: the parties' numbers averaged by their samples, and each party's.

        Raises:
            DataError: The data cannot be used.
            PrivacyError: The samples are protected, see ``log_unprotected``.
            ParameterError: An argument of FLModel has no meaning here.
        """
        refuse_arguments("evaluate", others, signature(self.evaluate).parameters)
        x, y = federated_pair(x, y, dataset_builder, stage="eval")
        self._check_evaluation(x, y)
        if not self._in_call:  # in a fit, that of `validation_data`, the fit's parameters stay
            self._configure({})
        y = x if y is None else y
        return super().evaluate(x, y, batch_size=_any_batches(x), return_dict=return_dict)

    def predict(
        self,
        x: Any,
        output: str | None = None,
        *,
        batch_size: Any = None,
        random_seed: int | None = None,
        dataset_builder: Mapping[Any, Callable[..., Any]] | None = None,
        **others: Any,
    ) -> Any:
        """Return what the encoder makes of samples, which stays at the parties until revealed.

        Args:
            x: As in :meth:`fit`.
            output: ``"features"``, ``"projections"``, ``"clusters"`` or ``"classes"``; the
                parameter ``predict_output`` by default.
            batch_size: Of no effect, as in :meth:`evaluate`.
            random_seed: Of no effect.
            dataset_builder: As in :meth:`evaluate`.
            **others: FLModel's other arguments, which are refused, see ``docs/flmodel.md``.

        Returns:
            ``{PYU: PYUObject}``: of features (n, d), projections (n, p) or ids of clusters or
            classes (n,).

        Raises:
            DataError: The data cannot be used.
            ParameterError: There is no such output, or an argument has no meaning here.
        """
        refuse_arguments("predict", others, signature(self.predict).parameters)
        x, _ = federated_pair(x, None, dataset_builder, stage="eval")
        self._described(x, min_samples=1)
        overrides = {} if output is None else {"predict_output": output}
        self._parsed(overrides)
        with self._configured(overrides):
            return super().predict(x, batch_size=_any_batches(x))

    def save_model(self, model_path: Any, is_test: bool = False, saved_model: bool = False) -> None:
        """Let each party write its model on its own disk, with all that it keeps.

        Args:
            model_path: The path of a file as each party sees it, or ``{PYU: path}``.
            is_test: Whether the party's name becomes a folder in the path; needed where all parties
                are on one machine.
            saved_model: Refused.

        Raises:
            CheckpointError: The paths are none, or the same file.
            ParameterError: ``saved_model`` is True.
        """
        refuse_saved_model(saved_model)
        paths = model_paths(model_path, list(self.workers), is_test, self.simulation)
        host.reveal([worker.save_model(paths[d]) for d, worker in self.workers.items()])

    def load_model(
        self,
        model_path: Any,
        is_test: bool = False,
        saved_model: bool = False,
        force_all_participate: bool = False,
        **others: Any,
    ) -> None:
        """Let each party read its model: it goes on from where it was saved.

        From a file with weights alone (SecretFlow's own, or of another strategy) target network and
        memory start anew, which a warning says.

        Args:
            model_path: As in :meth:`save_model`.
            is_test: As there.
            saved_model: Refused.
            force_all_participate: Whether all parties must have done the same number of rounds.
            **others: Refused.

        Raises:
            CheckpointError: A file is missing or no model's, or the rounds differ.
            ModelError: The weights are those of another model.
            ParameterError: ``saved_model`` is True, or an argument is unknown.
        """
        refuse_arguments("load_model", others, signature(self.load_model).parameters)
        refuse_saved_model(saved_model)
        paths = model_paths(model_path, list(self.workers), is_test, self.simulation)
        rounds: dict[str, int] = host.reveal(
            {d.party: worker.load_model(paths[d]) for d, worker in self.workers.items()}
        )
        if force_all_participate and len(set(rounds.values())) > 1:
            raise CheckpointError(
                f"Expected the models of all parties to have the same rounds, got {rounds}."
            )

    def _check_evaluation(self, x: Any, y: Any) -> None:
        """Refuse to evaluate what cannot be, or must not."""
        unit_of(self.strategy_config).check_telling(self.strategy_config)
        self._described(x, y, min_samples=_LEAST_EVALUATED)


def _any_batches(x: Any) -> dict[Any, float]:
    """Return batch sizes that FLModel takes, whatever the sizes of the parties' data.

    The workers look at all their samples at once. FLModel takes the largest share of a batch in a
    party's data for all, and refuses 1024 samples and more at any.
    """
    sizes = {device: shape[0] for device, shape in x.partition_shape().items()}
    rate = min(1.0, HOST_MAX_BATCH / max(sizes.values()))
    return {device: rate * size for device, size in sizes.items()}
