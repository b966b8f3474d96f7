"""The names that ``from orchestra_strategy import ...`` gives, and the module of each.

They are looked up here when they are asked for, so that the package alone imports in no time: the
command's help does not wait for torch and SecretFlow.
"""

__all__ = ["FORMER", "ROOMS", "WITHOUT_HOST", "WITH_HOST"]

ROOMS = ("audit", "data", "errors", "evaluation", "host", "users")
"""Modules that are attributes of the package without an import of their own."""

WITHOUT_HOST = {
    "LossParts": "algorithms.objective",
    "OrchestraConfig": "strategies.orchestra_config",
    "OrchestraError": "errors",
    "OrchestraModel": "algorithms.model",
    "RowwiseObjective": "algorithms.objective_bases",
    "SelfSupervisedObjective": "algorithms.objective_bases",
    "StrategyConfig": "config",
    "TrainedEncoder": "trained_encoder",
    "load_encoder": "encoder_file",
    "orchestra_model": "algorithms.model",
    "weighted_mean": "aggregation.weighted",
}
"""Names that need no SecretFlow, with their module."""

WITH_HOST = {
    "FedBYOLStrategy": "strategies.baselines",
    "FedMaskedStrategy": "strategies.baselines",
    "FedRotPredStrategy": "strategies.baselines",
    "FedSimCLRStrategy": "strategies.baselines",
    "FedSimSiamStrategy": "strategies.baselines",
    "FedSpecLossStrategy": "strategies.baselines",
    "FedSupervisedStrategy": "strategies.baselines",
    "FederatedStrategy": "strategies.base",
    "OrchestraAdvancedStrategy": "strategies.variants",
    "OrchestraAggregateStrategy": "strategies.variants",
    "OrchestraFLModel": "runtime.fl_model",
    "OrchestraPlusStrategy": "strategies.variants",
    "OrchestraPrivateStrategy": "strategies.private",
    "OrchestraSimpleStrategy": "strategies.simple",
    "OrchestraSingleStepStrategy": "strategies.variants",
    "OrchestraStrategy": "strategies.orchestra",
    "SelfSupervisedStrategy": "strategies.self_supervised",
    "agree_on_tables": "data.shared_tables",
    "fed_from_paths": "data.sources",
    "fed_labelled_from_paths": "data.sources",
    "fed_ndarray": "data.sources",
    "federated_linear_probe": "runtime.federated_probe",
    "register_strategy": "strategies.registry",
    "registered_strategies": "strategies.registry",
    "server_aggregation": "aggregation.server",
    "session": "runtime.session",
}
"""Names that only exist where SecretFlow is installed, with their module."""

FORMER = {
    "AdvancedOrchestraStrategy": "`OrchestraAdvancedStrategy`, registered as 'orchestra_advanced'",
    "OptimizedOrchestraStrategy": "`OrchestraStrategy`, which needs none of what it added; your "
    "own `train_step` calls `super().train_step(...)`",
    "PYUAdvancedOrchestraStrategy": "`OrchestraAdvancedStrategy`, registered as "
    "'orchestra_advanced'",
    "PYUOrchestraStrategy": "`OrchestraStrategy`, one class for FLModel and by hand, registered as "
    "'orchestra'",
    "PrivateOrchestraStrategy": "`OrchestraPrivateStrategy`, registered as 'orchestra_private'",
}
"""Names of the first published guide, and what they are now."""
