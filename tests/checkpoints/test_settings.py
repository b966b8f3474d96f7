"""What the driver's checkpoint says of the settings."""

from orchestra_strategy.checkpoints.settings import numbers_settings


def settings(**parameters):
    return numbers_settings("orchestra_private", 7, {}, parameters, ["alice"], None)


def test_the_noise_seed_is_not_among_them():
    """Whoever knows it can take the noise off: the driver must not."""
    kept = settings(noise_seed=314159, lr=0.1)
    assert "314159" not in repr(kept)
    assert kept["parameters"] == {"noise_seed": "given", "lr": 0.1}
    assert settings(noise_seed=None)["parameters"] == {"noise_seed": None}
