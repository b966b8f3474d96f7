"""OrchestraFLModel and plain FLModel in process: what works, and what is refused and how."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from secretflow.data import partition as partition_frame
from torch import nn

from orchestra_strategy import OrchestraFLModel, host, orchestra_model, server_aggregation
from orchestra_strategy.data.sources import fed_ndarray
from orchestra_strategy.errors import DataError, HostError, ModelError, ParameterError
from tests.federated import toy


def partition(devices, **arrays):
    return fed_ndarray({d: arrays[d.party] for d in devices})


def workers(model):
    return {d.party: w for d, w in host.workers_of(model).items()}


def ask(worker, func):
    return host.reveal(worker.apply(func))


def test_history_has_the_loss_and_its_parts(devices):
    history = toy.build(devices).fit(toy.data(devices), epochs=2)
    losses = {name for name in history["global_history"] if name.startswith("train_")}
    assert losses == {"train_loss", "train_cluster", "train_degeneracy"}
    assert all(len(v) == 2 for v in history["global_history"].values())
    mine = history["local_history"]
    n = toy.SIZES
    mean = (n["alice"] * mine["alice_train_loss"][0] + n["bob"] * mine["bob_train_loss"][0]) / 61
    assert history["global_history"]["train_loss"][0] == pytest.approx(mean, rel=1e-6)


def test_plain_fl_model_works(devices):
    aggregation = server_aggregation(num_global_clusters=4, seed=7)
    model = host.FLModel(
        server=devices[0],
        device_list=devices,
        model=host.TorchModel(model_fn=toy.MODEL),
        strategy="orchestra",
        backend="torch",
        random_seed=7,
        server_agg_method=aggregation,
        strategy_config=toy.PARAMETERS,
    )
    x = toy.data(devices)
    history = model.fit(x, x, batch_size=8, epochs=2, aggregate_freq=2, verbose=0)
    assert len(history["global_history"]["train_loss"]) == 2
    # 41 and 20 rows at batch 8 are 3 steps for FLModel, so two aggregations an epoch.
    assert ask(workers(model)["alice"], lambda w: w.rounds_done) == 4


def count_batches(worker):
    seen = worker.seen = []
    original = worker.user_type.user.objective

    def counting(model, batch):
        seen.append(batch["ids"].tolist())
        return original(model, batch)

    worker.user_type.user.objective = counting


def test_parties_keep_the_batch_size_asked_for_and_see_all_their_data(devices):
    model = toy.build(devices, local_epochs=2)
    for worker in host.workers_of(model).values():
        worker.apply(count_batches)
    model.fit(toy.data(devices), epochs=1, batch_size=16)
    # Twice; the last two batches of a pass share what is left: 25 and 20.
    for party, sizes in {"alice": [16, 13, 12] * 2, "bob": [10, 10] * 2}.items():
        seen = ask(workers(model)[party], lambda w: w.seen)
        assert [len(ids) for ids in seen] == sizes
        n = toy.SIZES[party]
        assert sorted(i for ids in seen for i in ids) == sorted([*range(n), *range(n)])


@pytest.mark.parametrize("size", [4, 5, 9, 17])
def test_small_parties_and_a_last_batch_of_one(devices, size):
    alice, bob = toy.images("alice"), toy.images("bob", size)
    model = toy.build(devices, memory_size=8, num_local_clusters=2)
    model.fit(partition(devices, alice=alice, bob=bob), epochs=1)
    assert ask(workers(model)["bob"], lambda w: w.rounds_done) == 1


def test_more_rows_than_flmodel_takes_in_a_step(devices):
    alice = np.repeat(toy.images("alice"), 50, axis=0)
    model = toy.build(devices, local_epochs=1)
    x = partition(devices, alice=alice, bob=toy.images("bob"))
    model.fit(x, epochs=1, batch_size=512)
    assert ask(workers(model)["alice"], lambda w: w.rounds_done) == 1


def test_uint8_and_float_images_are_the_same(devices):
    images = {p: (toy.images(p) * 255).round().astype(np.uint8) for p in toy.PARTIES}
    floats = {p: x.astype(np.float32) / 255 for p, x in images.items()}
    histories = [
        toy.build(devices).fit(partition(devices, **x), epochs=1) for x in (images, floats)
    ]
    assert histories[0]["global_history"] == histories[1]["global_history"]


def test_strategy_kwargs_hold_for_one_fit(devices):
    model = toy.build(devices, temperature=0.5)
    temperature = lambda w: (w.config.temperature, w.objective.settings.temperature)  # noqa: E731
    during = []

    class Spy(host.Callback):
        def on_epoch_begin(self, epoch=None, logs=None):
            during.append(ask(workers(model)["bob"], temperature))

    model.fit(toy.data(devices), epochs=1, strategy_kwargs={"temperature": 0.2}, callbacks=[Spy()])
    assert during == [(0.2, 0.2)]
    assert ask(workers(model)["bob"], temperature) == (0.5, 0.5)


def test_learning_rate_of_a_later_fit_reaches_the_optimizer(devices):
    model = toy.build(devices)
    model.fit(toy.data(devices), epochs=1)
    before = ask(workers(model)["bob"], lambda w: w.model.state_dict())
    frozen = {"lr": 1e-12, "weight_decay": 0.0, "momentum": 0.0}
    model.fit(toy.data(devices), epochs=1, strategy_kwargs=frozen)
    after = ask(workers(model)["bob"], lambda w: w.model.state_dict())
    name = "backbone.body.0.weight"
    assert torch.allclose(before[name], after[name], atol=1e-6)


def test_sizes_are_for_the_constructor_alone(devices):
    model = toy.build(devices)
    with pytest.raises(ParameterError, match="`memory_size` to stay as in the constructor"):
        model.fit(toy.data(devices), epochs=1, strategy_kwargs={"memory_size": 12})
    worker = workers(model)["alice"]
    with pytest.raises(ParameterError, match="`num_virtual_users` to stay as in the constructor"):
        host.reveal(worker.configure({"num_virtual_users": 3}))


def test_group_norm_model_trains(devices):
    model = toy.build(devices, model=partial(toy.MODEL, norm="group"))
    model.fit(toy.data(devices), epochs=1)


def test_batch_norm_statistics_are_averaged_and_counters_are_not(devices):
    model = toy.build(devices)
    model.fit(toy.data(devices), epochs=1)
    states = {p: ask(w, lambda w: w.model.state_dict()) for p, w in workers(model).items()}
    names = [k for k in states["alice"] if k.endswith("running_mean")]
    assert names
    for name in names:
        assert torch.equal(states["alice"][name], states["bob"][name])
    counters = [k for k in states["alice"] if k.endswith("num_batches_tracked")]
    assert [int(states["alice"][k]) for k in counters] != [int(states["bob"][k]) for k in counters]


def test_predict_gives_features_and_moves_nothing(devices):
    model = toy.build(devices)
    x = toy.data(devices)
    model.fit(x, epochs=1)
    before = ask(
        workers(model)["bob"], lambda w: {k: v.clone() for k, v in w.model.state_dict().items()}
    )
    features = host.reveal(model.predict(x, batch_size=8))
    assert {d.party: f.shape for d, f in features.items()} == {"alice": (41, 512), "bob": (20, 512)}
    for name, value in ask(workers(model)["bob"], lambda w: w.model.state_dict()).items():
        assert torch.equal(value, before[name]), name


def test_predict_takes_few_rows_and_a_refused_one_blocks_nothing(devices):
    model = toy.build(devices)
    model.fit(toy.data(devices), epochs=1)
    few = partition(devices, alice=toy.images("alice", 3), bob=toy.images("bob", 2))
    shapes = {d.party: f.shape for d, f in host.reveal(model.predict(few, batch_size=2)).items()}
    assert shapes == {"alice": (3, 512), "bob": (2, 512)}
    broken = partition(devices, alice=bad(toy.images("alice"), np.nan), bob=toy.images("bob"))
    with pytest.raises(DataError, match="1 NaN or infinite"):
        model.predict(broken, batch_size=8)
    model.fit(toy.data(devices), epochs=1)


def test_global_random_generators_are_left_alone(devices):
    torch.manual_seed(3)
    np.random.seed(3)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    model = toy.build(devices)
    for worker in host.workers_of(model).values():
        worker.build_dataset(toy.data(devices).partitions[worker.device])
        worker.train_step(None, 0, 1)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_default_seed_gives_all_parties_the_same_model(devices):
    model = toy.build(devices, random_seed=None)
    first, second = (ask(w, lambda w: w.model.state_dict()) for w in workers(model).values())
    assert all(torch.equal(first[k], second[k]) for k in first)


# ---- Refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"temprature": 0.5}, ParameterError, "got `temprature`; did you mean `temperature`"),
        ({"temperature": 0}, ParameterError, "`temperature` to be greater than 0, got 0"),
        ({"temperature": "warm"}, ParameterError, "`temperature` to be a valid number, got 'warm'"),
        ({"batch_size": 1}, ParameterError, "`batch_size` to be greater than or equal to 2, got 1"),
        ({"num_local_clusters": 9}, ParameterError, r"got 9 \* 4 > 16; lower"),
        (
            {"strategy_config": {"lr": 0.1}},
            ParameterError,
            "`lr` to be given once, got 0.1 in `strategy_config` and 0.01 as a keyword",
        ),
        ({"strategy": "orchestrate"}, ParameterError, "did you mean `orchestra`"),
        ({"strategy": "fed_avg_w"}, ParameterError, "got 'fed_avg_w'; use SecretFlow's own"),
        ({"server": "alice"}, HostError, "`server` to be a PYU .* got 'alice'"),
        ({"backend": "tensorflow"}, HostError, "`backend` to be 'torch', got 'tensorflow'"),
        ({"skip_bn": True}, ParameterError, "`skip_bn` to be False"),
        ({"aggregator": object()}, HostError, "got `aggregator`"),
        ({"dp_strategy": object()}, ParameterError, "Expected no `dp_strategy`"),
        ({"model": None}, ParameterError, "`model` to be a network, a callable"),
        ({"server_agg_method": sum}, ParameterError, "to be `orchestra_strategy.server_agg"),
        ({"server_agg_method": server_aggregation()}, ParameterError, "to be equal, got 4 and 128"),
        (
            {"server_agg_method": server_aggregation(num_global_clusters=4, temperature=0.9)},
            ParameterError,
            "`temperature` of the strategy and of .* to be equal, got 0.1 and 0.9",
        ),
    ],
)
def test_bad_arguments_are_refused_on_the_driver(devices, kwargs, error, message):
    with pytest.raises(error, match=message):
        toy.build(devices, **kwargs)


def test_a_device_listed_twice_is_refused(devices):
    with pytest.raises(HostError, match=r"once in `device_list`, got \['alice'\] more than once"):
        toy.build(devices, device_list=[devices[0], *devices])


def test_too_few_or_strange_devices_are_refused(devices):
    with pytest.raises(HostError, match="at least two parties, got 1"):
        toy.build(devices, device_list=devices[:1])
    with pytest.raises(HostError, match="to hold PYUs, got 'carol'"):
        toy.build(devices, device_list=[*devices, "carol"])


def test_a_model_without_heads_is_refused(devices):
    with pytest.raises(ModelError, match=r"without `backbone` .* `projector` .* `degeneracy_head`"):
        toy.build(devices, model=lambda: nn.Linear(2, 2))
    with pytest.raises(ModelError, match="without `backbone`"):
        toy.build(devices, model=host.TorchModel(model_fn=lambda: nn.Linear(2, 2)))


def bad(array, value):
    array = array.copy()
    array[3, 2, 2] = value
    return array


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"bob": toy.images("bob", 3)}, "party `bob` has 3 samples, below `k_min`=4"),
        ({"bob": bad(toy.images("bob"), np.nan)}, "party `bob` has 1 NaN or infinite values"),
        (
            {"bob": np.zeros((20, 7, 7), np.float32)},
            r"sample shape differs: .*8.* `alice`.*7.*`bob`",
        ),
    ],
)
def test_bad_data_are_refused_before_training(devices, arrays, message):
    arrays = {"alice": toy.images("alice"), "bob": toy.images("bob"), **arrays}
    with pytest.raises(DataError, match=message):
        toy.build(devices).fit(partition(devices, **arrays), epochs=1)


def test_labels_of_another_length_are_refused(devices):
    y = partition(devices, alice=np.zeros(41), bob=np.zeros(19))
    with pytest.raises(DataError, match="party `bob` has 19 labels for 20 samples"):
        toy.build(devices).fit(toy.data(devices), y, epochs=1)


def test_labels_of_the_right_length_are_ignored(devices):
    y = partition(devices, alice=np.zeros(41), bob=np.ones(20))
    with_labels = toy.build(devices).fit(toy.data(devices), y, epochs=1)
    without = toy.build(devices).fit(toy.data(devices), epochs=1)
    assert with_labels["global_history"] == without["global_history"]


def test_a_missing_party_and_a_bare_array_are_refused(devices):
    model = toy.build(devices)
    with pytest.raises(DataError, match=r"`x` to have one partition per device.*\['alice'\]"):
        model.fit(fed_ndarray({devices[0]: toy.images("alice")}), epochs=1)
    with pytest.raises(DataError, match=r"FedNdarray, an HDataFrame or \{PYU: path\}, got ndarray"):
        model.fit(toy.images("alice"), epochs=1)


@pytest.mark.parametrize("epochs", [0, 1.5, True])
def test_bad_epochs_are_refused(devices, epochs):
    with pytest.raises(ParameterError, match="`epochs` to be an integer >= 1"):
        toy.build(devices).fit(toy.data(devices), epochs=epochs)


def test_plain_fl_model_without_a_server_method_is_refused(devices):
    with pytest.raises(ParameterError, match="`server_agg_method` on `route='server'`, got None"):
        host.FLModel(
            server=devices[0],
            device_list=devices,
            model=toy.MODEL,
            strategy="orchestra",
            backend="torch",
            **toy.PARAMETERS,
        )


def test_plain_fl_model_refuses_bad_data_too(devices):
    model = host.FLModel(
        server=devices[0],
        device_list=devices,
        model=toy.MODEL,
        strategy="orchestra",
        backend="torch",
        server_agg_method=server_aggregation(num_global_clusters=4),
        **toy.PARAMETERS,
    )
    x = partition(devices, alice=toy.images("alice"), bob=bad(toy.images("bob"), np.nan))
    with pytest.raises(DataError, match="1 NaN or infinite values of 1280"):
        model.fit(x, x, batch_size=8, epochs=1, aggregate_freq=100, verbose=0)


def test_a_gpu_that_is_not_there_is_refused(devices, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HostError, match="CUDA device for `num_gpus` > 0, got none"):
        toy.build(devices, num_gpus=1)


def test_table_data_with_image_views_are_refused(devices):
    x = fed_ndarray({d: np.random.default_rng(0).random((20, 6)) for d in devices})
    model = toy.build(devices, model=partial(orchestra_model, "mlp", in_channels=6))
    with pytest.raises(DataError, match=r"views='table'|views `table`"):
        model.fit(x, epochs=1)
    model = toy.build(devices, model=partial(orchestra_model, "mlp", in_channels=6), views="table")
    assert isinstance(model, OrchestraFLModel)
    model.fit(x, epochs=1)


def test_hdataframes_train_as_tables(devices):
    frames = {
        d: pd.DataFrame(np.random.default_rng(i).random((20, 6)), columns=list("abcdef"))
        for i, d in enumerate(devices)
    }
    x = host.HDataFrame(
        partitions={d: partition_frame(d(lambda f: f)(frame)) for d, frame in frames.items()}
    )
    model = toy.build(devices, model=partial(orchestra_model, "mlp", in_channels=6), views="table")
    history = model.fit(x, epochs=1)
    assert np.isfinite(history["global_history"]["train_loss"]).all()


def test_after_an_interrupt_the_parties_are_asked_nothing_more(devices, monkeypatch):
    """In a cluster they are at another place by then, and would not answer."""
    model = toy.build(devices)
    asked, real = [], OrchestraFLModel._configure

    def configure(self, overrides):
        asked.append(overrides)
        real(self, overrides)

    monkeypatch.setattr(OrchestraFLModel, "_configure", configure)

    class Interrupt(host.Callback):
        def on_train_batch_end(self, batch=None, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(toy.data(devices), epochs=1, callbacks=[Interrupt()], batch_size=4)
    assert asked == [{"batch_size": 4}]
    model.evaluate(toy.data(devices))
    assert asked[1:] == [{}]
    model.fit(toy.data(devices), epochs=1)
    assert asked[2:] == [{}, {}]
