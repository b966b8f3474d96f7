"""Two runs on one folder: none is lost sight of in the budget, and only one goes on."""

import json

import pytest

from orchestra_strategy import host
from orchestra_strategy.checkpoints.party import party_folder
from orchestra_strategy.errors import CheckpointError
from tests.federated import toy
from tests.federated.checkpoint_runs import PRIVATE, trainer


def released(folder, party="alice"):
    """How many updates the journal says have been released."""
    path = party_folder(str(folder), party) / "privacy.json"
    spent = json.loads(path.read_text())["ledger"]["spent"]
    return max(count for _, _, count in spent)


class During(host.Callback):
    """Does something in the middle of a training, once."""

    def __init__(self, action):
        super().__init__()
        self.action, self.error = action, None

    def on_train_batch_end(self, batch=None, logs=None):
        if self.error is None:
            with pytest.raises(CheckpointError) as found:
                self.action()
            self.error = str(found.value)


def test_a_second_training_on_a_folder_in_use_is_refused_by_name(devices, tmp_path):
    first, second = (trainer(devices, 2, tmp_path, **PRIVATE) for _ in range(2))
    during = During(lambda: second.train(toy.data(devices)))
    results = first.train(toy.data(devices), callbacks=[during])
    assert "party `alice` to be ready for checkpoints" in during.error
    assert "is in use by process" in during.error
    assert released(tmp_path) == results.rounds == 2


def test_a_second_resume_is_refused_and_the_first_goes_on(devices, tmp_path):
    trainer(devices, 1, tmp_path, **PRIVATE).train(toy.data(devices))
    first, second = (trainer(devices, 3, tmp_path, **PRIVATE) for _ in range(2))
    during = During(lambda: second.resume(toy.data(devices)))
    results = first.resume(toy.data(devices), callbacks=[during])
    assert "is in use by process" in during.error
    assert released(tmp_path) == results.rounds == 3


def test_one_after_the_other_adds_up(devices, tmp_path):
    """The first trainer is still there when the second has gone on from its checkpoint."""
    first = trainer(devices, 1, tmp_path, **PRIVATE)
    first.train(toy.data(devices))
    trainer(devices, 3, tmp_path, **PRIVATE).resume(toy.data(devices))
    assert released(tmp_path) == 3
    with pytest.raises(CheckpointError, match=r"another training has gone on in .*`resume"):
        first.train(toy.data(devices))
    with pytest.raises(CheckpointError, match=r"another training has gone on"):
        first.save()
    results = trainer(devices, 3, tmp_path, **PRIVATE).resume(toy.data(devices), round_index=2)
    assert results.rounds == 3
    assert released(tmp_path) == 4  # round 3 was released twice


def test_after_refused_data_the_folder_is_free(devices, tmp_path):
    trainer(devices, 1, tmp_path, **PRIVATE).train(toy.data(devices))
    others = toy.fed_ndarray({d: toy.images(d.party)[::-1].copy() for d in devices})
    refused = trainer(devices, 2, tmp_path, **PRIVATE)
    with pytest.raises(Exception, match="to be those of the checkpoint"):
        refused.resume(others)
    assert trainer(devices, 2, tmp_path, **PRIVATE).resume(toy.data(devices)).rounds == 2


def test_a_folder_that_others_can_write_in_is_refused(devices, tmp_path):
    own = party_folder(str(tmp_path / "run"), "bob")
    own.mkdir(parents=True)
    own.chmod(0o777)
    with pytest.raises(CheckpointError, match=r"party `bob` .* this user alone can write in, got"):
        trainer(devices, 1, tmp_path / "run", **PRIVATE).train(toy.data(devices))


# ---- What the driver gets --------------------------------------------------------------------


class Encoders(host.Callback):
    """Asks for the encoder in the middle of each round."""

    def __init__(self, owner):
        super().__init__()
        self.owner, self.seen = owner, []

    def on_train_batch_end(self, batch=None, logs=None):
        weights = self.owner.encoder().state_dict()
        self.seen.append({k: v.numpy().copy() for k, v in weights.items()})


def test_in_the_middle_of_a_round_the_encoder_is_the_last_average(devices, tmp_path):
    """On route secure nobody may see one party's weights, the driver included."""
    run = trainer(devices, 2, None)
    run.aggregator, run.server = host.SecureAggregator(devices[0], list(devices)), None
    seen = Encoders(run)
    run.train(toy.data(devices), callbacks=[seen])
    own = [
        host.reveal(w.apply(lambda w: {k: v.numpy() for k, v in w.model.state_dict().items()}))
        for w in run.fl_model.workers.values()
    ]
    assert len(own) == len(seen.seen) == 2
    untrained = run.untrained_encoder().state_dict()
    name = next(iter(untrained))
    assert abs(seen.seen[0][name] - untrained[name].numpy()).max() < 1e-4  # 18 bits
    assert abs(seen.seen[1][name] - seen.seen[0][name]).max() > 1e-4


def test_the_middle_of_a_round_is_no_checkpoint(devices, tmp_path):
    run = trainer(devices, 3, tmp_path)

    class Stop(host.Callback):
        def on_train_batch_end(self, batch=None, logs=None):
            if len(run._checkpoints.ledger) == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(toy.data(devices), callbacks=[Stop()])
    with pytest.raises(CheckpointError, match="the middle of round 2: this party has trained"):
        run.save()
    assert trainer(devices, 3, tmp_path).resume(toy.data(devices)).rounds == 3
