"""Evaluation of frozen features, always beside controls; labels are used here and nowhere else."""

from orchestra_strategy.evaluation.class_labels import class_numbers
from orchestra_strategy.evaluation.clustering_metrics import (
    ClusteringScores,
    cluster_class_table,
    cluster_features,
    clustering_scores,
)
from orchestra_strategy.evaluation.encoder_health import (
    Health,
    alignment,
    cluster_balance,
    collapse_reason,
    effective_rank,
    health_of,
    uniformity,
)
from orchestra_strategy.evaluation.features import extract_features
from orchestra_strategy.evaluation.fine_tuning import FineTuning
from orchestra_strategy.evaluation.html_report import (
    HtmlNote,
    HtmlPicture,
    HtmlRow,
    HtmlSection,
    HtmlTable,
    results_html_table,
    write_html,
)
from orchestra_strategy.evaluation.knn import knn_accuracy, knn_predict
from orchestra_strategy.evaluation.linear_probe import linear_probe_accuracy
from orchestra_strategy.evaluation.plots.accuracy_plots import plot_few_labels, plot_ranking
from orchestra_strategy.evaluation.plots.cluster_plots import (
    plot_cluster_balance,
    plot_cluster_confusion,
)
from orchestra_strategy.evaluation.plots.training_plots import (
    plot_embedding_map,
    plot_learning_curve,
)
from orchestra_strategy.evaluation.protocol import ProbeResult, probe_protocol, with_controls
from orchestra_strategy.evaluation.report import (
    measures_of,
    results_table,
    results_to_json,
    write_json,
)
from orchestra_strategy.evaluation.semi_supervised import fine_tune, semi_supervised_protocol
from orchestra_strategy.evaluation.sgd_probe import sgd_probe_accuracy
from orchestra_strategy.evaluation.splits import check_disjoint, labelled_fraction, labelled_subset

__all__ = [
    "ClusteringScores",
    "FineTuning",
    "Health",
    "HtmlNote",
    "HtmlPicture",
    "HtmlRow",
    "HtmlSection",
    "HtmlTable",
    "ProbeResult",
    "alignment",
    "check_disjoint",
    "class_numbers",
    "cluster_balance",
    "cluster_class_table",
    "cluster_features",
    "clustering_scores",
    "collapse_reason",
    "effective_rank",
    "extract_features",
    "fine_tune",
    "health_of",
    "knn_accuracy",
    "knn_predict",
    "labelled_fraction",
    "labelled_subset",
    "linear_probe_accuracy",
    "measures_of",
    "plot_cluster_balance",
    "plot_cluster_confusion",
    "plot_embedding_map",
    "plot_few_labels",
    "plot_learning_curve",
    "plot_ranking",
    "probe_protocol",
    "results_html_table",
    "results_table",
    "results_to_json",
    "semi_supervised_protocol",
    "sgd_probe_accuracy",
    "uniformity",
    "with_controls",
    "write_html",
    "write_json",
]
