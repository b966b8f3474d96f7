"""A party's samples on their way to a step: checks, partitions, the order of batches.

Files are read in :mod:`~orchestra_strategy.data.readers`, random views are drawn in
:mod:`~orchestra_strategy.data.augmentation`; nothing here knows a model or a server.
"""

from orchestra_strategy.algorithms.model_input import to_model_input
from orchestra_strategy.data.arrays import (
    PartyReport,
    as_samples,
    check_parties,
    describe_samples,
)
from orchestra_strategy.data.augmentation.views import (
    VIEWS,
    ColourViews,
    SmallGreyViews,
    TableViews,
    Views,
    ViewSet,
    build_row_wise_views,
    build_views,
)
from orchestra_strategy.data.batches import batch_slices, num_batches, round_batches
from orchestra_strategy.data.equal_parts import dirichlet_equal_parts
from orchestra_strategy.data.partition import (
    dirichlet_partition,
    iid_partition,
    shard_partition,
)
from orchestra_strategy.data.readers.csv_options import one_hot_columns
from orchestra_strategy.data.readers.loading import load_local
from orchestra_strategy.data.readers.local_data import LocalData

__all__ = [
    "VIEWS",
    "ColourViews",
    "LocalData",
    "PartyReport",
    "SmallGreyViews",
    "TableViews",
    "ViewSet",
    "Views",
    "as_samples",
    "batch_slices",
    "build_row_wise_views",
    "build_views",
    "check_parties",
    "describe_samples",
    "dirichlet_equal_parts",
    "dirichlet_partition",
    "iid_partition",
    "load_local",
    "num_batches",
    "one_hot_columns",
    "round_batches",
    "shard_partition",
    "to_model_input",
]
