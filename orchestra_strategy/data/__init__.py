"""A party's data: reading, partitions, checks, the order of batches, and random views."""

from orchestra_strategy.data.arrays import (
    PartyReport,
    as_samples,
    check_parties,
    describe_samples,
)
from orchestra_strategy.data.batches import batch_slices, num_batches, round_batches
from orchestra_strategy.data.csv_options import one_hot_columns
from orchestra_strategy.data.equal_parts import dirichlet_equal_parts
from orchestra_strategy.data.loading import load_local
from orchestra_strategy.data.local_data import LocalData
from orchestra_strategy.data.partition import (
    dirichlet_partition,
    iid_partition,
    shard_partition,
)
from orchestra_strategy.data.views import (
    VIEWS,
    ColourViews,
    SmallGreyViews,
    TableViews,
    Views,
    ViewSet,
    build_row_wise_views,
    build_views,
    to_model_input,
)

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
