"""The groups of attributes beside the strategy's, and the settings that they stand for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from federated_orchestra import ModelConfig, TrainerConfig
from orchestra_strategy.algorithms.backbones import BACKBONES
from orchestra_strategy.algorithms.heads import NormKind
from orchestra_strategy.algorithms.model import orchestra_model
from orchestra_strategy.cluster.settings import Limits
from orchestra_strategy.component.attributes import (
    Changed,
    attributes_of,
    structure,
    values_from,
)
from orchestra_strategy.component.strategy_forms import AUTO
from orchestra_strategy.config import parse_config
from orchestra_strategy.data.readers.image_decoding import MODES
from orchestra_strategy.host_component import Field, Interval

__all__ = [
    "Images",
    "Network",
    "Run",
    "Samples",
    "Waiting",
    "limits_from",
    "network_from",
    "run_from",
    "views_for",
]

_RUN = (
    *("rounds", "seed", "num_gpus"),
    *("checkpoint_dir", "checkpoint_every", "keep_checkpoints"),
)
_WAITING = ("start_timeout", "heartbeat", "peer_timeout", "step_timeout")
_NOT_OF_A_FORM = ("in_channels", "num_classes", "weights")
_TABLE = "mlp"  # the backbone of tables


@dataclass(frozen=True)
class Samples:
    """What is read of each party's table.

    Attributes:
        columns: Names of the columns of numbers, in order; none of images.
        image_column: Name of the column of paths; empty of tables.
        mode: Of images, ``RGB`` or ``L``.
        image_size: Of images, the side in pixels.
    """

    columns: list[str] = field(default_factory=list)
    image_column: str = ""
    mode: str = ""
    image_size: int = 0

    @property
    def channels(self) -> int:
        """Channels of the images, or columns of the table."""
        return {"": len(self.columns), "L": 1, "RGB": 3}[self.mode]


Run: Any = structure(
    "Run",
    attributes_of(
        TrainerConfig,
        _RUN,
        changed={
            "checkpoint_dir": Changed(
                "Folder for checkpoints, of which each party writes its own; a relative one lies "
                "in the folder of the storage. (empty: none)"
            )
        },
    ),
)

Network: Any = structure(
    "Network",
    attributes_of(
        ModelConfig,
        [name for name in ModelConfig.model_fields if name not in _NOT_OF_A_FORM],
        documented=orchestra_model,
        changed={
            "backbone": Changed(
                "The body of the network; auto is mlp for tables and resnet18 for images.",
                [AUTO, *BACKBONES],
                AUTO,
            ),
            "norm": Changed(choices=list(get_args(NormKind))),
        },
    ),
)

Waiting: Any = structure("Waiting", attributes_of(Limits, _WAITING))

Images: Any = structure(
    "Images",
    {
        "mode": (
            str,
            Field.attr(
                desc="What images are converted to: colours (RGB) or grey (L).",
                default=MODES[0],
                choices=list(MODES),
            ),
        ),
        "image_size": (
            int,
            Field.attr(
                desc="Side in pixels of the square that images are scaled and cropped to.",
                default=32,
                bound_limit=Interval.closed(8, 1024),
            ),
        ),
    },
)


def run_from(component: Any, folder: str) -> dict[str, Any]:
    """Return the settings of the trainer that stand in a form by themselves.

    Args:
        component: With the attributes of :data:`Run`.
        folder: Of the storage.
    """
    values = values_from(component, TrainerConfig, _RUN)
    if values["checkpoint_dir"] is not None:
        values["checkpoint_dir"] = str(Path(folder, values["checkpoint_dir"]))
    return values


def network_from(network: Any, samples: Samples) -> dict[str, Any]:
    """Return the trainer's ``model``; the backbone follows from the samples, if it is not given."""
    names = [name for name in ModelConfig.model_fields if name not in _NOT_OF_A_FORM]
    values = values_from(network, ModelConfig, names)
    if values["backbone"] == AUTO:
        usual = ModelConfig.model_fields["backbone"].default
        values["backbone"] = usual if samples.image_column else _TABLE
    return {**values, "in_channels": samples.channels}


def views_for(views: str, samples: Samples) -> str:
    """Return the views' name; it follows from the samples, if it is not given."""
    return {"": "table", "L": "grey", "RGB": "colour"}[samples.mode] if views == AUTO else views


def limits_from(waiting: Any) -> Limits:
    """Return the limits on waiting of a job whose wire is the platform's.

    Raises:
        ParameterError: They contradict each other.
    """
    # The platform's gateway encrypts: whatever leaves this machine goes through it.
    values = {**values_from(waiting, Limits, _WAITING), "plain_text": True}
    return parse_config(Limits, values, "waiting")
