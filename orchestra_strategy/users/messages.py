"""Messages between server and user, in the form that the field's attacks read.

J. Geiping, H. Bauermeister, H. Dröge, M. Moeller, "Inverting Gradients: How easy is it to break
privacy in federated learning?", NeurIPS 2020, https://arxiv.org/abs/2003.14053.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from orchestra_strategy.errors import ReplyError
from orchestra_strategy.privacy.local_privacy import LocalPrivacy
from orchestra_strategy.users.settings import UserSettings

__all__ = [
    "Metadata",
    "SharedData",
    "TrueUserData",
    "active_defences",
    "load_payload",
    "render",
    "server_learns",
]


class _Told(TypedDict):
    num_data_points: int | None
    labels: Tensor | None
    local_hyperparams: dict[str, Any] | None
    data_key: str


class Metadata(_Told, total=False):
    """What the server is told besides the update; None where its flag does not say so.

    ``num_users`` is there in the reply of many users alone.
    """

    num_users: int


class SharedData(TypedDict):
    """All that leaves the user.

    ``gradients``: a tensor per parameter, in the order of ``model.parameters()``. ``buffers``: a
    tensor per buffer, in the order of ``model.buffers()``; None of a gradient where the server sent
    them.
    """

    gradients: list[Tensor]
    buffers: list[Tensor] | None
    metadata: Metadata


class TrueUserData(TypedDict):
    """The clean truth, for analysis; it never leaves the user. None where it was not kept."""

    data: Tensor | None
    labels: Tensor | None
    buffers: list[Tensor] | None


@torch.no_grad()
def load_payload(model: nn.Module, server_payload: Mapping[str, Any]) -> None:
    """Copy the server's parameters, and its buffers if it sends any, into the user's model.

    With buffers the model goes into eval mode, without into train mode and keeps its own. All is
    checked before anything is copied; the payload itself is only read.

    Raises:
        ReplyError: A wrong number or shape of tensors, naming the first wrong one.
    """
    if not isinstance(server_payload, Mapping) or "parameters" not in server_payload:
        got = sorted(server_payload) if isinstance(server_payload, Mapping) else server_payload
        raise ReplyError(
            "Expected `server_payload` to be dict(parameters=[...], buffers=[...] or None), got "
            f"{got!r}."
        )
    buffers = server_payload.get("buffers")
    pairs = _matched("parameters", dict(model.named_parameters()), server_payload["parameters"])
    if buffers is not None:
        pairs += _matched("buffers", dict(model.named_buffers()), buffers)
    for own, sent in pairs:
        own.copy_(sent)
    model.train(buffers is None)


def _matched(kind: str, own: Mapping[str, Tensor], sent: Any) -> list[tuple[Tensor, Tensor]]:
    """Pair own tensors with sent ones, without any broadcasting."""
    if not isinstance(sent, Sequence) or len(sent) != len(own):
        got = f"{len(sent)}" if isinstance(sent, Sequence) else type(sent).__name__
        raise ReplyError(
            f"Expected `server_payload['{kind}']` to be a list of {len(own)} tensors, as many as "
            f"the user's model has, got {got}."
        )
    for index, ((name, tensor), value) in enumerate(zip(own.items(), sent, strict=True)):
        if not isinstance(value, Tensor) or value.shape != tensor.shape:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(type(value))
            raise ReplyError(
                f"Expected `server_payload['{kind}'][{index}]` (`{name}`) to be a tensor of shape "
                f"{tuple(tensor.shape)}, got {got}."
            )
    return list(zip(own.values(), sent, strict=True))


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
