"""What the server learns from a user, in words."""

from collections.abc import Mapping
from typing import Any

from orchestra_strategy.privacy.local import LocalPrivacy
from orchestra_strategy.users.settings import UserSettings

__all__ = ["active_defences", "render", "server_learns"]

NOTHING = "not told"


def server_learns(settings: UserSettings, update: str, hyperparams: str) -> dict[str, str]:
    """Return, for each part of ``shared_data``, what it tells.

    Args:
        settings: The user's.
        update: What the shared update is.
        hyperparams: What ``local_hyperparams`` holds if its flag is set.
    """
    flags = {
        "num_data_points": (settings.provide_num_data_points, "number of samples in the update"),
        "labels": (settings.provide_labels, "label of every sample in the update, sorted"),
        "local_hyperparams": (settings.provide_local_hyperparams, hyperparams),
        "buffers": (
            settings.provide_buffers,
            "model's buffers after training, BatchNorm's statistics of the data among them",
        ),
    }
    return {"gradients": update} | {
        name: f"told: {what}" if told else NOTHING for name, (told, what) in flags.items()
    }


def active_defences(privacy: LocalPrivacy) -> dict[str, str]:
    """Return the defences that are on."""
    scale = "standard deviation" if privacy.distribution == "gaussian" else "scale"
    found = {}
    if privacy.per_example_clipping:
        found["per_example_clipping"] = (
            f"every example's gradient has an L2 norm of at most {privacy.per_example_clipping:g}, "
            "in every step"
        )
    for name, target in (("gradient_noise", "every gradient"), ("input_noise", "the inputs")):
        value = getattr(privacy, name)
        if value:
            found[name] = f"{privacy.distribution} noise of {scale} {value:g} on {target}"
    return found


def render(summary: Mapping[str, Any]) -> str:
    """Lay out a user's ``summary()`` for reading.

    >>> print(render({"user": "U", "settings": {"seed": 0}, "server_learns": {}, "defences": {}}))
    U
      Settings:
        seed: 0
      The server learns (threat model):
        none
      Active defences:
        none
    """
    titles = {
        "settings": "Settings",
        "server_learns": "The server learns (threat model)",
        "defences": "Active defences",
    }
    lines = [str(summary["user"])]
    for key, title in titles.items():
        lines.append(f"  {title}:")
        lines += [f"    {name}: {value}" for name, value in summary[key].items()] or ["    none"]
    return "\n".join(lines)
