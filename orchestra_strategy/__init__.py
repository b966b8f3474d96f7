"""Unsupervised federated learning for SecretFlow: Orchestra (ICML 2022) as a plug-in.

Importing this package registers its strategies with SecretFlow, if that is installed, so that
``FLModel(strategy="orchestra", backend="torch", ...)`` finds them. Without SecretFlow the pure
layers (``algorithms``, ``data``, ``users``, ``privacy``, ``evaluation``) can still be imported.
"""

from importlib.util import find_spec

from orchestra_strategy.aggregation.weighted import weighted_mean
from orchestra_strategy.algorithms.model import OrchestraModel, orchestra_model
from orchestra_strategy.algorithms.objective import LossParts
from orchestra_strategy.errors import OrchestraError

__version__ = "0.1.0"

__all__ = [
    "LossParts",
    "OrchestraError",
    "OrchestraModel",
    "__version__",
    "orchestra_model",
    "weighted_mean",
]

if find_spec("secretflow") is not None:
    from orchestra_strategy.aggregation.server import server_aggregation
    from orchestra_strategy.data.sources import (
        fed_from_paths,
        fed_labelled_from_paths,
        fed_ndarray,
    )
    from orchestra_strategy.runtime.federated_probe import federated_linear_probe
    from orchestra_strategy.runtime.fl_model import OrchestraFLModel
    from orchestra_strategy.runtime.session import session
    from orchestra_strategy.strategies.base import FederatedStrategy
    from orchestra_strategy.strategies.baselines import (
        FedBYOLStrategy,
        FedRotPredStrategy,
        FedSimCLRStrategy,
        FedSimSiamStrategy,
        FedSpecLossStrategy,
    )
    from orchestra_strategy.strategies.orchestra import OrchestraStrategy
    from orchestra_strategy.strategies.private import OrchestraPrivateStrategy
    from orchestra_strategy.strategies.registry import register_strategy, registered_strategies
    from orchestra_strategy.strategies.self_supervised import SelfSupervisedStrategy
    from orchestra_strategy.strategies.simple import OrchestraSimpleStrategy
    from orchestra_strategy.strategies.variants import (
        OrchestraAdvancedStrategy,
        OrchestraAggregateStrategy,
        OrchestraSingleStepStrategy,
    )

    __all__ += [
        "FedBYOLStrategy",
        "FedRotPredStrategy",
        "FedSimCLRStrategy",
        "FedSimSiamStrategy",
        "FedSpecLossStrategy",
        "FederatedStrategy",
        "OrchestraAdvancedStrategy",
        "OrchestraAggregateStrategy",
        "OrchestraFLModel",
        "OrchestraPrivateStrategy",
        "OrchestraSimpleStrategy",
        "OrchestraSingleStepStrategy",
        "OrchestraStrategy",
        "SelfSupervisedStrategy",
        "fed_from_paths",
        "fed_labelled_from_paths",
        "fed_ndarray",
        "federated_linear_probe",
        "register_strategy",
        "registered_strategies",
        "server_aggregation",
        "session",
    ]
