"""Features of samples that stay at their parties."""

import stat

import numpy as np
import pytest

from federated_orchestra import FederatedOrchestraTrainer
from orchestra_strategy import fed_ndarray, host
from orchestra_strategy.errors import DataError, ParameterError
from tests.federated import toy
from tests.test_trainer import CONFIG


@pytest.fixture
def trainer(devices):
    trainer = FederatedOrchestraTrainer({**CONFIG, "rounds": 1}, devices)
    trainer.train(toy.data(devices))
    return trainer


def test_embed_takes_what_train_takes_and_features_stay(trainer, devices, tmp_path):
    own = {d: trainer.embed(toy.images(d.party)) for d in devices}
    paths = {d: tmp_path / f"{d.party}.npy" for d in devices}
    for device, path in paths.items():
        np.save(path, toy.images(device.party))
    arrays = {d: toy.images(d.party) for d in devices}
    for data in (toy.data(devices), paths, arrays):
        found = trainer.embed(data)
        assert isinstance(found, host.FedNdarray)
        assert found.partition_shape() == {d: own[d].shape for d in devices}
        for device, part in found.partitions.items():
            assert part.device == device
            np.testing.assert_allclose(host.reveal(part), own[device], atol=1e-6)
    alone = trainer.embed({devices[1]: paths[devices[1]]})
    np.testing.assert_allclose(
        host.reveal(alone.partitions[devices[1]]), own[devices[1]], atol=1e-6
    )


def test_features_are_written_at_the_party_for_its_owner_alone(trainer, devices, tmp_path):
    out = {d: tmp_path / f"{d.party}.npy" for d in devices}
    found = trainer.embed(toy.data(devices), out=out)
    for device, path in out.items():
        assert np.array_equal(np.load(path), host.reveal(found.partitions[device]))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    trainer.embed(toy.data(devices), out={devices[0]: tmp_path / "alone.npy"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alice.npy", "alone.npy", "bob.npy"]


def test_what_is_read_with_options_is_embedded_with_them(devices, tmp_path):
    config = {**CONFIG, "rounds": 1, "data_options": {"samples_key": "raw", "value_range": (0, 16)}}
    paths = {d: tmp_path / f"{d.party}.npz" for d in devices}
    for device, path in paths.items():
        np.savez(path, raw=toy.images(device.party) * 16)
    trainer = FederatedOrchestraTrainer(config, devices)
    trainer.train(paths)
    bob = devices[1]
    found = host.reveal(trainer.embed(paths).partitions[bob])
    np.testing.assert_allclose(found, trainer.embed(toy.images("bob") * 16), atol=1e-6)


def test_all_parties_problems_come_in_one_message(trainer, devices, tmp_path):
    alice, bob = devices
    wrong = {alice: toy.images("alice") * 16, bob: np.repeat(toy.images("bob")[:, None], 3, axis=1)}
    with pytest.raises(DataError) as caught:
        trainer.embed(fed_ndarray(wrong))
    told = str(caught.value)
    assert "party `alice`: Expected the pixels in `x` to be uint8 or in [0, 1], got float32" in told
    assert "15.9" not in told  # the brightest pixel is alice's
    assert "party `bob`: RuntimeError on samples of shape (3, 8, 8)" in told
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"party `bob`: `.*bob.npy` cannot be written: File exists"):
        trainer.embed(toy.data(devices), out={bob: tmp_path / "file" / "bob.npy"})


def test_bad_places_are_refused_before_anything_is_computed(trainer, devices):
    x = toy.data({devices[0]: 0})
    with pytest.raises(
        ParameterError, match=r"`out` to have parties with samples, \['alice'\], go"
    ):
        trainer.embed(x, out={devices[1]: "a.npy"})
    with pytest.raises(
        ParameterError, match=r"`out` of party `alice` to be a .npy file, got 'a.csv"
    ):
        trainer.embed(x, out={devices[0]: "a.csv"})
    with pytest.raises(ParameterError, match="no `out` for an array of one's own"):
        trainer.embed(toy.images("alice"), out={devices[0]: "a.npy"})


def test_the_manifest_tells_of_it(trainer):
    rows = {row["name"]: row for row in trainer.fl_model.manifest()}
    assert "features stay" in rows["reading and embedding"]["meaning"]
