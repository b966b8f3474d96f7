"""The leakage example: its attacks by hand, and the script in process and short."""

import json

import pytest
import torch
from torch.nn import functional as F

from experiments import leakage
from orchestra_strategy import OrchestraError
from orchestra_strategy.audit.attacks.gradient_matching import attack, recover_labels
from orchestra_strategy.audit.attacks.scores import chance_overlap, label_overlap, matched, psnr
from orchestra_strategy.audit.attacks.search import Plan, simulated_gradient
from orchestra_strategy.rng import torch_generator
from orchestra_strategy.threads import torch_threads


def reply_of(case, privacy=None, seed=0):
    *party, _ = leakage.draw_party(0)
    model = leakage.build_model(0)
    payload = {"parameters": [p.detach().clone() for p in model.parameters()], "buffers": None}
    user = leakage.build_user(case, model, party, privacy or {}, seed)
    return model, payload, *user.compute_local_updates(payload)


def test_labels_are_read_off_a_bias_gradient_made_by_hand():
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    for labels in ([2], [3, 3, 3], [0, 0, 1, 3, 3], [0, 1, 2, 3]):
        frequency = torch.bincount(torch.tensor(labels), minlength=4) / len(labels)
        found = recover_labels(probabilities - frequency, probabilities, len(labels))
        assert found.tolist() == labels


def test_labels_are_read_though_the_expectation_is_a_little_wrong():
    logits = torch.tensor([[0.3, -0.2, 0.1], [0.0, 0.4, -0.3], [-0.1, 0.2, 0.2]])
    bias = torch.zeros(3, requires_grad=True)
    F.cross_entropy(logits + bias, torch.tensor([1, 1, 0])).backward()
    assert recover_labels(bias.grad, torch.full((3,), 1 / 3), 3).tolist() == [0, 1, 1]


@pytest.mark.parametrize("case", leakage.CASES, ids=lambda case: case.title.replace("\n", " "))
def test_the_simulated_training_is_what_the_users_do(case):
    # On the true data, in true order: the attack's target can then be met exactly.
    model, _, shared, truth = reply_of(case)
    received = case.plan.as_gradient(shared["gradients"])
    simulated = simulated_gradient(model, leakage.LOSS, truth["data"], truth["labels"], case.plan)
    for ours, theirs in zip(simulated, received):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("number", "steps"), [(0, 40), (2, 40)], ids=["single", "multi"])
def test_an_undefended_user_loses_labels_and_images(number, steps):
    case = leakage.CASES[number]
    with torch_threads(1):
        row = leakage.run_case(case, "none", {}, seed=0, steps=steps).row
    assert row["labels_recovered"] == 1.0
    assert row["labels_chance"] < 0.5
    assert row["psnr"] > row["control_psnr"] + 5
    assert row["images_above_control"] == case.images


def test_the_attack_reads_nothing_but_payload_and_reply():
    case = leakage.CASES[0]
    model, payload, shared, _ = reply_of(case)
    # An attacker's model with other weights: the payload's must be used.
    stranger = leakage.build_model(1)
    found = [
        attack(
            *(m, leakage.LOSS, payload, shared, case.plan, leakage.IMAGE_SHAPE, 3),
            torch_generator(0, "server", 0, "attack"),
        )
        for m in (model, stranger)
    ]
    for first, second in zip(*found):
        assert torch.equal(first, second)
    shared["metadata"]["num_data_points"] = None
    with pytest.raises(OrchestraError, match="Expected `num_data_points` to be told, got None"):
        attack(
            *(model, leakage.LOSS, payload, shared, case.plan, leakage.IMAGE_SHAPE, 3),
            torch.Generator(),
        )


def test_the_seed_gives_the_noise():
    replies = [
        reply_of(leakage.CASES[0], {"gradient_noise": 0.1}, seed)[2]["gradients"][0]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(replies[0], replies[1])
    assert not torch.allclose(replies[0], replies[2])


def test_an_update_is_turned_into_the_mean_gradient():
    update = [torch.tensor([-0.6, 0.2])]
    (gradient,) = Plan("update", steps=4, lr=0.1).as_gradient(update)
    torch.testing.assert_close(gradient, torch.tensor([0.6 / 0.4, -0.2 / 0.4]))
    assert Plan().as_gradient(update)[0] is update[0]


def test_scores_by_hand():
    truth = torch.tensor([3, 3, 5])
    assert label_overlap(torch.tensor([3, 5, 5]), truth) == pytest.approx(2 / 3)
    # One of two classes at random for two equal labels: a binomial's mean, 2 * 1/2, of 2.
    chance = chance_overlap(torch.tensor([1, 1]), torch_generator(0, "t", 0, "t"), classes=2)
    assert chance == pytest.approx(0.5, abs=0.02)
    images = torch.stack([torch.full((1, 8, 8), value) for value in (0.0, 0.5, 1.0)])
    assert torch.equal(matched(images[[2, 0, 1]], images), images)
    # 10 log10(1 / mse): an error of 0.1 everywhere is 20 dB; no error at all is capped.
    assert psnr(images[:2] + torch.tensor([0.1, 0.0]).view(2, 1, 1, 1), images[:2]) == (
        pytest.approx([20.0, 99.0], abs=1e-3)
    )


def test_the_script_writes_what_it_says_and_draws_from_no_global_stream(tmp_path, capsys):
    before = torch.get_rng_state()
    rows = []
    for folder in ("first", "second"):
        leakage.main(["--steps", "2", "--out", str(tmp_path / folder)])
        results = json.loads((tmp_path / folder / "results.json").read_text())
        assert results["settings"] == {"steps": 2, "seed": 0, "clip": 1.0, "noise": 0.1}
        rows.append([{k: v for k, v in r.items() if k != "seconds"} for r in results["rows"]])
        assert (tmp_path / folder / "leakage.png").read_bytes()[:4] == b"\x89PNG"
    assert rows[0] == rows[1]
    assert torch.equal(before, torch.get_rng_state())
    assert "What the server recovers" in capsys.readouterr().out
    assert [(r["user_type"], r["defence"]) for r in rows[0]] == [
        (case.user_type, defence) for case in leakage.CASES for defence in ("none", "clip + noise")
    ]
    for row in rows[0]:
        assert 0 < row["labels_chance"] < 1
        assert 0 <= row["labels_recovered"] <= 1
        assert row["control_psnr"] > 0
        assert set(row["threat_model"]) == {"user", "settings", "server_learns", "defences"}
        assert bool(row["threat_model"]["defences"]) == (row["defence"] != "none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "Expected `--steps` to be at least 1, got 0."),
        (["--seed", "-1"], "Expected `--seed` to be at least 0, got -1."),
        (["--clip", "0"], "Expected `--clip` to be a finite number > 0, got 0.0."),
        (["--noise", "nan"], "Expected `--noise` to be a finite number > 0, got nan."),
        (["--out", __file__], "Expected `--out` to be a folder, got the file"),
    ],
)
def test_bad_arguments_end_with_a_sentence(arguments, message, capsys):
    with pytest.raises(SystemExit):
        leakage.main(arguments)
    assert message in capsys.readouterr().err
