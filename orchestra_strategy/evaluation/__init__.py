"""Evaluation of frozen features, always beside controls; labels are used here and nowhere else."""

from orchestra_strategy.evaluation.features import extract_features
from orchestra_strategy.evaluation.knn import knn_accuracy, knn_predict
from orchestra_strategy.evaluation.linear_probe import linear_probe_accuracy
from orchestra_strategy.evaluation.plots import plot_embedding_map, plot_learning_curve
from orchestra_strategy.evaluation.protocol import ProbeResult, probe_protocol, with_controls
from orchestra_strategy.evaluation.report import results_table, results_to_json, write_json
from orchestra_strategy.evaluation.splits import check_disjoint, labelled_subset

__all__ = [
    "ProbeResult",
    "check_disjoint",
    "extract_features",
    "knn_accuracy",
    "knn_predict",
    "labelled_subset",
    "linear_probe_accuracy",
    "plot_embedding_map",
    "plot_learning_curve",
    "probe_protocol",
    "results_table",
    "results_to_json",
    "with_controls",
    "write_json",
]
