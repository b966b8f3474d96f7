"""Pixels of another scale: refused before training by every door, and trained on by an option."""

from functools import partial

import numpy as np
import pytest

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import OrchestraFLModel, fed_from_paths, fed_ndarray, host, orchestra_model
from orchestra_strategy.aggregation.server import server_aggregation
from orchestra_strategy.errors import DataError, ParameterError
from tests.federated import toy
from tests.test_trainer import CONFIG

OTHERS = [
    lambda x: x * 16,
    lambda x: (x * 255).astype(np.float64),
    lambda x: (x * 255).astype(np.int64),
    lambda x: (x * 65535).astype(np.uint16),
    lambda x: (x - x.mean()) / x.std(),
]


@pytest.mark.parametrize("other", OTHERS)
def test_others_are_refused_before_training_and_in_embed(devices, other):
    data = {d: other(toy.images(d.party)) for d in devices}
    trainer = FederatedOrchestraTrainer({**CONFIG, "rounds": 1}, devices)
    with pytest.raises(DataError, match=r"`alice` has pixels .*`bob` has pixels .*`value_range="):
        trainer.train(fed_ndarray(data))
    trainer.train(toy.data(devices))
    with pytest.raises(DataError, match=r"\[0, 1\], got .*`value_range`"):
        trainer.embed(data[devices[0]])


def test_the_hosts_own_class_does_not_train_on_them_either(devices):
    data = fed_ndarray({d: toy.images(d.party) * 16 for d in devices})
    model = host.FLModel(
        server=devices[0],
        device_list=devices,
        model=toy.MODEL,
        strategy="orchestra",
        backend="torch",
        server_agg_method=server_aggregation(num_global_clusters=4),
        random_seed=7,
        **toy.PARAMETERS,
    )
    with pytest.raises(DataError, match=r"uint8 or in \[0, 1\], got float32 outside of it"):
        model.fit(data, data, epochs=1, verbose=0)


def test_with_privacy_the_dtype_alone_is_looked_at(devices):
    model = OrchestraFLModel(
        server=devices[0],
        device_list=devices,
        model=partial(orchestra_model, "conv4", in_channels=1, norm="group+batch", heads=()),
        strategy="fed_simclr",
        privacy="user",
        noise_multiplier=1.0,
    )
    whole = fed_ndarray({d: (toy.images(d.party) * 255).astype(np.int64) for d in devices})
    with pytest.raises(DataError, match="`bob` has pixels of int64 that are neither"):
        model.check_data(whole)
    model.check_data(fed_ndarray({d: toy.images(d.party) * 16 for d in devices}))


def test_value_range_of_arrays_federated_arrays_and_paths_trains_as_scaled_images(
    devices, tmp_path
):
    raw = {d: (toy.images(d.party) * 4095).astype(np.uint16) for d in devices}
    for device, x in raw.items():
        np.save(tmp_path / f"{device.party}.npy", x)
    options = {"data_options": {"value_range": (0, 4095)}}

    def trained(data, config):
        trainer = FederatedOrchestraTrainer({**CONFIG, **config, "rounds": 1}, devices)
        return trainer, trainer.train(data).history["train_loss"]

    scaled = {d: (x / 4095).astype(np.float32) for d, x in raw.items()}
    plain, want = trained(fed_ndarray(scaled), {})
    for data in (raw, fed_ndarray(raw), {d: tmp_path / f"{d.party}.npy" for d in devices}):
        trainer, got = trained(data, options)
        assert got == want
    for read in (fed_ndarray(raw, value_range=(0, 4095)),):
        assert trained(read, {})[1] == want
    alice = devices[0]
    np.testing.assert_allclose(trainer.embed(raw[alice]), plain.embed(scaled[alice]), atol=1e-6)
    probes = trainer.evaluate(
        raw[alice], np.arange(41) % 2, raw[devices[1]], np.arange(20) % 2, (1,), seeds=1
    )
    assert probes["pixels"]["1"].mean <= 1
    path = tmp_path / "alice.npy"
    x = fed_from_paths({alice: path}, value_range=(0, 4095)).partitions[alice]
    np.testing.assert_allclose(host.reveal(x), scaled[alice], atol=1e-7)


def test_value_range_is_refused_where_it_means_nothing(devices):
    table = fed_ndarray({d: np.ones((5, 3)) for d in devices})
    options = {"data_options": {"value_range": (0, 4095)}}
    with pytest.raises(DataError, match=r"images at party `alice` for `value_range`, got a table"):
        FederatedOrchestraTrainer({**CONFIG, **options}, devices).train(table)
    with pytest.raises(ParameterError, match=r"`value_range` alone is for arrays, too\), got \['i"):
        FederatedOrchestraTrainer(
            {**CONFIG, "data_options": {"image_size": 3, "value_range": (0, 1)}}, devices
        ).train(table)
    with pytest.raises(ParameterError, match="two finite numbers"):
        fed_ndarray({devices[0]: np.ones((5, 3, 3))}, value_range=(1, 0))
