"""The trained encoder as SecretFlow's kind of data: ``sf.model.orchestra``.

Each party has a copy in its own storage, and beside it the scales of its own columns, which stay
there. What all may know, such as the names of the columns, stands in the description of the data.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestra_strategy.component.forms import Samples
from orchestra_strategy.component.party_data import NumberColumns, Scales
from orchestra_strategy.encoder_file import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    pack_encoder,
    unpack_encoder,
)
from orchestra_strategy.errors import ModelError
from orchestra_strategy.files import parse_json
from orchestra_strategy.host_component import DistData, ObjectFile, Version
from orchestra_strategy.trained_encoder import TrainedEncoder

__all__ = ["MODEL_TYPE", "About", "about_of", "describe_model", "load_at_party", "write_at_party"]

MODEL_TYPE = "sf.model.orchestra"

_VERSION = Version(0, 1)
_SCALES = "scales.json"
_FILES = (WEIGHTS_FILE, CONFIG_FILE, _SCALES)
_MOST_BYTES = 2**26  # of the scales, enough for a million columns


@dataclass(frozen=True)
class About:
    """What every party and the platform may know of a trained encoder.

    Attributes:
        strategy: Which has trained it.
        rounds: Of its training.
        feature_dim: Length of a feature vector.
        samples: What it was trained on.
    """

    strategy: str
    rounds: int
    feature_dim: int
    samples: Samples


def write_at_party(
    weights: Mapping[str, Any],
    storage: Any,
    uri: str,
    source: Any,
    options: Mapping[str, Any],
    seed: int,
    about: About,
) -> int:
    """Write the model's files; called at each party.

    Args:
        weights: Of the model that all parties have.
        storage: The platform's, as this party sees it.
        uri: Of this party's files.
        source: What has read the party's data.
        options: Arguments of :func:`~orchestra_strategy.orchestra_model`.
        seed: Root seed of the training.
        about: What is written beside.

    Returns:
        How many bytes.
    """
    files = pack_encoder(weights, options, seed, about.strategy, about.rounds)
    scales = source.scales() if isinstance(source, NumberColumns) else {}
    files[_SCALES] = json.dumps(scales).encode()
    for name, data in files.items():
        with storage.get_writer(f"{uri}/{name}") as stream:
            stream.write(data)
    return sum(map(len, files.values()))


def describe_model(name: str, uris: Mapping[str, str], about: About, system_info: Any) -> Any:
    """Return the platform's description, a DistData.

    Args:
        name: Of the model.
        uris: Where each party's files are, by party.
        about: What all may know.
        system_info: Of the data that it was trained on.
    """
    files = [(party, f"{uri}/{n}", n) for party, uri in uris.items() for n in _FILES]
    return ObjectFile(
        name=name,
        type=MODEL_TYPE,
        data_refs=[
            DistData.DataRef(uri=uri, party=party, format=Path(n).suffix.removeprefix("."))
            for party, uri, n in files
        ],
        version=_VERSION,
        public_info=asdict(about),
        system_info=system_info,
    ).to_distdata()


def about_of(data: Any) -> tuple[About, dict[str, str]]:
    """Return what is known of a model, and where each party's files are, by party.

    Raises:
        ModelError: The description is none of a model of this version.
    """
    try:
        file = ObjectFile.from_distdata(data)
        file.check(MODEL_TYPE, _VERSION)
        values = dict(file.public_info)
        about = About(samples=Samples(**values.pop("samples")), **values)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"Expected `input_model` to be a model of orchestra_train, version {_VERSION} at most, "
            f"got: {error}."
        ) from None
    suffix = f"/{WEIGHTS_FILE}"
    uris = {r.party: r.uri.removesuffix(suffix) for r in file.data_refs if r.uri.endswith(suffix)}
    return about, uris


def load_at_party(storage: Any, uri: str) -> tuple[TrainedEncoder, Scales]:
    """Read the model's files; called at the party that embeds.

    Raises:
        ModelError: They are missing or broken.
    """
    try:
        with storage.get_reader(f"{uri}/{WEIGHTS_FILE}") as stream:
            weights = io.BytesIO(stream.read())
        with storage.get_reader(f"{uri}/{CONFIG_FILE}") as stream:
            encoder = unpack_encoder(stream, weights, uri)
        with storage.get_reader(f"{uri}/{_SCALES}") as stream:
            scales: Any = parse_json(stream.read(_MOST_BYTES))
        return encoder, {str(name): (float(a), float(b)) for name, (a, b) in scales.items()}
    except (OSError, AttributeError, TypeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"Expected the model's files in `{uri}`, got {type(error).__name__}; they are copied "
            "to no other party, and must be as orchestra_train has written them."
        ) from None
