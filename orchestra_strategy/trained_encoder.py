"""The trained encoder in use: samples to features, also as a step of a scikit-learn pipeline."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from orchestra_strategy.algorithms.backbones import BACKBONES
from orchestra_strategy.algorithms.model import OrchestraModel, orchestra_model
from orchestra_strategy.algorithms.own_network import fresh_network
from orchestra_strategy.data.pixels import check_value_range, to_unit_range
from orchestra_strategy.errors import DataError, ModelError
from orchestra_strategy.evaluation.features import extract_features
from orchestra_strategy.global_randomness import first_weights_of

__all__ = ["TrainedEncoder"]


class TrainedEncoder(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]  # scikit-learn has no types
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """A trained model with all that is needed to use it; a scikit-learn transformer.

    Args:
        model: The network; it is put on the CPU, in evaluation mode.
        options: Arguments of :func:`~orchestra_strategy.orchestra_model` that made it, of a file of
            first weights its digest; for a network of its owner's ``backbone`` is None, and what it
            was is told.
        seed: Root seed of its training.
        strategy: Name of the strategy that trained it.
        rounds: Rounds of its training.
        data_options: How its training read the data, as
            :func:`~orchestra_strategy.data.load_local` takes them.
        sample_shape: Of the training's samples, (F,), (H, W) or (C, H, W); None where it is not
            known.
        builder: What builds the network before training; by default ``options`` do.

    The arguments are attributes, too.

    >>> model = orchestra_model("conv4", in_channels=1)
    >>> encoder = TrainedEncoder(model, {"backbone": "conv4", "in_channels": 1}, 0, "orchestra", 1)
    >>> encoder.transform(np.zeros((3, 8, 8))).shape
    (3, 512)
    """

    def __init__(
        self,
        model: OrchestraModel,
        options: dict[str, Any],
        seed: int,
        strategy: str,
        rounds: int,
        data_options: dict[str, Any] | None = None,
        sample_shape: tuple[int, ...] | None = None,
        builder: Any = None,
    ) -> None:
        # scikit-learn's `clone` wants the very objects back: nothing is copied or filled in here.
        self.model = model.cpu().eval()
        self.options = options
        self.seed = seed
        self.strategy = strategy
        self.rounds = rounds
        self.data_options = data_options
        self.sample_shape = sample_shape
        self.builder = builder

    @property
    def of_tables(self) -> bool:
        """Whether it takes tables, not images."""
        if self.options["backbone"] is None:
            return self.sample_shape is not None and len(self.sample_shape) == 1
        return bool(self.options["backbone"] == "mlp")

    @property
    def any_size(self) -> bool:
        """Whether it takes images of any size, as the backbones of this package do."""
        return self.options["backbone"] in BACKBONES

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Black and white of its images, None where these are uint8 or in [0, 1]."""
        return check_value_range((self.data_options or {}).get("value_range"))

    @property
    def feature_dim(self) -> int:
        """Length of a feature vector."""
        return self.model.feature_dim

    @property
    def _n_features_out(self) -> int:
        """Number of columns that ``get_feature_names_out`` names."""
        return self.feature_dim

    def __sklearn_is_fitted__(self) -> bool:
        """It has been trained already."""
        return True

    def fit(self, x: Any, y: Any = None) -> "TrainedEncoder":
        """Learn nothing: the encoder is trained, and stays what it is.

        Args:
            x: As of :meth:`transform`.
            y: Labels, which are not looked at.

        Raises:
            DataError: The samples have another form than those of the training.
        """
        self.check(np.asarray(x))
        return self

    def transform(self, x: Any) -> npt.NDArray[np.float32]:
        """Return the features of samples.

        Args:
            x: Images (n, H, W) or (n, C, H, W), uint8 or floats in [0, 1], or in the
                :attr:`value_range` of the training; or a table (n, F) of numbers, whose columns are
                those of the training as it read them.

        Returns:
            Shape (n, d), float32.

        Raises:
            DataError: The samples cannot be used, or have another form than those of the training.
        """
        return self.features(self.in_unit_range(np.asarray(x)))

    def features(self, samples: Any) -> npt.NDArray[np.float32]:
        """Return the features (n, d) of samples in the scale that they have after they are read.

        Args:
            samples: As of :meth:`transform`, images in [0, 1] whatever the ``value_range``.

        Raises:
            DataError: As there.
        """
        self.check(samples)
        return extract_features(self.model, samples)

    def in_unit_range(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return samples in the scale that those of the training had after they were read."""
        window = self.value_range
        return x if window is None else to_unit_range(x, window)

    def check(self, x: Any, name: str = "x") -> None:
        """Refuse samples of another form than those of the training.

        Raises:
            DataError: Naming both forms.
        """
        shape, wanted = tuple(x.shape[1:]), self.options["in_channels"]
        channels = shape[0] if len(shape) == 3 or self.of_tables else 1
        if (len(shape) == 1) != self.of_tables or channels != wanted:
            kind = f"a table of {wanted} columns"
            kind = kind if self.of_tables else f"images of {wanted} channel(s)"
            raise DataError(
                f"Expected `{name}` to have {kind}, as the encoder was trained on, got samples of "
                f"shape {shape}."
            )

    def untrained(self) -> OrchestraModel:
        """Return the model as it was before training: the control.

        Raises:
            ModelError: It began with weights, or as a network, that only its owner has.
        """
        first = self.options.get("first_weights")
        if self.builder is None and (first is not None or self.options["backbone"] is None):
            raise ModelError(
                "Expected the network as it was before training, for the control, got an encoder "
                "that does not have it: "
                + (f"it began with the weights of SHA-256 {first}. " if first else "")
                + "Give it to `load_encoder(path, model=...)`, with those weights."
            )
        with first_weights_of(self.seed):
            network = fresh_network(self.builder or partial(orchestra_model, **self.options))
        assert isinstance(network, OrchestraModel)
        return network.eval()
