"""Unsupervised federated learning for SecretFlow: Orchestra (ICML 2022) as a plug-in.

Once this package is imported, ``FLModel(strategy="orchestra", backend="torch", ...)`` finds its
strategies, whichever of the two was imported first. Without SecretFlow the pure layers
(``algorithms``, ``data``, ``users``, ``privacy``, ``evaluation``) can still be imported.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from orchestra_strategy.host_hook import register_when_asked
from orchestra_strategy.public_names import FORMER, ROOMS, WITH_HOST, WITHOUT_HOST

if TYPE_CHECKING:
    from orchestra_strategy.aggregation.server import server_aggregation as server_aggregation
    from orchestra_strategy.aggregation.weighted import weighted_mean as weighted_mean
    from orchestra_strategy.algorithms.model import OrchestraModel as OrchestraModel
    from orchestra_strategy.algorithms.model import orchestra_model as orchestra_model
    from orchestra_strategy.algorithms.objective import LossParts as LossParts
    from orchestra_strategy.algorithms.objective_bases import RowwiseObjective as RowwiseObjective
    from orchestra_strategy.algorithms.objective_bases import (
        SelfSupervisedObjective as SelfSupervisedObjective,
    )
    from orchestra_strategy.config import StrategyConfig as StrategyConfig
    from orchestra_strategy.data.shared_tables import agree_on_tables as agree_on_tables
    from orchestra_strategy.data.sources import fed_from_paths as fed_from_paths
    from orchestra_strategy.data.sources import fed_labelled_from_paths as fed_labelled_from_paths
    from orchestra_strategy.data.sources import fed_ndarray as fed_ndarray
    from orchestra_strategy.encoder_file import load_encoder as load_encoder
    from orchestra_strategy.errors import OrchestraError as OrchestraError
    from orchestra_strategy.runtime.federated_probe import (
        federated_linear_probe as federated_linear_probe,
    )
    from orchestra_strategy.runtime.fl_model import OrchestraFLModel as OrchestraFLModel
    from orchestra_strategy.runtime.session import session as session
    from orchestra_strategy.strategies.base import FederatedStrategy as FederatedStrategy
    from orchestra_strategy.strategies.baselines import FedBYOLStrategy as FedBYOLStrategy
    from orchestra_strategy.strategies.baselines import FedMaskedStrategy as FedMaskedStrategy
    from orchestra_strategy.strategies.baselines import FedRotPredStrategy as FedRotPredStrategy
    from orchestra_strategy.strategies.baselines import FedSimCLRStrategy as FedSimCLRStrategy
    from orchestra_strategy.strategies.baselines import FedSimSiamStrategy as FedSimSiamStrategy
    from orchestra_strategy.strategies.baselines import FedSpecLossStrategy as FedSpecLossStrategy
    from orchestra_strategy.strategies.baselines import (
        FedSupervisedStrategy as FedSupervisedStrategy,
    )
    from orchestra_strategy.strategies.orchestra import OrchestraStrategy as OrchestraStrategy
    from orchestra_strategy.strategies.orchestra_config import OrchestraConfig as OrchestraConfig
    from orchestra_strategy.strategies.private import (
        OrchestraPrivateStrategy as OrchestraPrivateStrategy,
    )
    from orchestra_strategy.strategies.registry import register_strategy as register_strategy
    from orchestra_strategy.strategies.registry import (
        registered_strategies as registered_strategies,
    )
    from orchestra_strategy.strategies.self_supervised import (
        SelfSupervisedStrategy as SelfSupervisedStrategy,
    )
    from orchestra_strategy.strategies.simple import (
        OrchestraSimpleStrategy as OrchestraSimpleStrategy,
    )
    from orchestra_strategy.strategies.variants import (
        OrchestraAdvancedStrategy as OrchestraAdvancedStrategy,
    )
    from orchestra_strategy.strategies.variants import (
        OrchestraAggregateStrategy as OrchestraAggregateStrategy,
    )
    from orchestra_strategy.strategies.variants import (
        OrchestraPlusStrategy as OrchestraPlusStrategy,
    )
    from orchestra_strategy.strategies.variants import (
        OrchestraSingleStepStrategy as OrchestraSingleStepStrategy,
    )
    from orchestra_strategy.trained_encoder import TrainedEncoder as TrainedEncoder

__version__ = "0.1.0"

_NAMES = {**WITHOUT_HOST, **(WITH_HOST if find_spec("secretflow") is not None else {})}

__all__ = ["__version__", *sorted(_NAMES)]


def __getattr__(name: str) -> Any:
    if name in ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in FORMER:  # this error's text reaches `from orchestra_strategy import ...`
        raise ImportError(
            f"Expected a present name of orchestra_strategy, got `{name}`: it is {FORMER[name]}; "
            "see CUSTOM_STRATEGY_GUIDE.md."
        )
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *ROOMS})


register_when_asked()
