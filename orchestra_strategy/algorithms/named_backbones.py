"""Backbones of torchvision and timm by name, without their classifiers: ``torchvision:resnet50``.

Their classifier, the one layer with as many outputs as ImageNet has classes, is taken away, and
what came to it are the features. Nothing is downloaded: weights come from a file, or by chance.
"""

import warnings
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from orchestra_strategy.algorithms.heads import norm_1d, norm_2d
from orchestra_strategy.errors import ModelError, ParameterError, did_you_mean

__all__ = ["SOURCES", "NamedBody", "build_named"]

_CLASSES = 1000
_AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
"""Classifiers beside the one at the end, which help a supervised training alone."""


class NamedBody(NamedTuple):
    """A network without its classifier.

    Attributes:
        body: Images (B, C, H, W) -> features (B, width).
        width: Length of a feature vector.
        left_out: Names of modules that a file of weights has besides.
    """

    body: nn.Module
    width: int
    left_out: tuple[str, ...]


def build_named(name: str, in_channels: int, norm: str) -> NamedBody:
    """Build a network by the name that its library has for it.

    Args:
        name: ``"torchvision:NAME"`` or ``"timm:NAME"``.
        in_channels: Channels of the images; other than 3 the first convolution is another one.
        norm: ``"batch"`` leaves it as it is, ``"group"`` puts GroupNorm in place of BatchNorm.

    Raises:
        ParameterError: The library or the network is unknown.
        ModelError: The library is not installed, or the network has no classifier to take away.
    """
    source, _, network = name.partition(":")
    if source not in SOURCES:
        raise ParameterError(
            f"Expected `backbone` to name its library, got {name!r}; "
            f"{did_you_mean(source, SOURCES)}, such as 'torchvision:resnet50'."
        )
    built = SOURCES[source](network, in_channels)
    if norm == "group":
        _use_group_norm(built.body)
    return built


def _of_torchvision(name: str, in_channels: int) -> NamedBody:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    options: dict[str, Any] = {"weights": None}
    if name in _AUXILIARY:
        options |= {"aux_logits": False, "init_weights": False}
    body: nn.Module = torchvision.models.get_model(name, **options)
    head, layer = _classifier(body, name)
    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    _put(body, head, nn.Identity())
    if in_channels != 3:
        _take_channels(body, in_channels)
    return NamedBody(body, width, (head, *_AUXILIARY.get(name, ())))


def _of_timm(name: str, in_channels: int) -> NamedBody:
    try:
        with warnings.catch_warnings():  # of modules that it has moved within itself
            warnings.simplefilter("ignore")
            import timm
    except ImportError as error:
        raise ModelError(
            f"Expected `timm` to be installed for `backbone='timm:{name}'`, got: {error}; "
            "`pip install 'orchestra-strategy[timm]'`."
        ) from error
    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    body: Any = timm.create_model(name, pretrained=False, in_chans=in_channels, num_classes=0)
    width = int(getattr(body, "head_hidden_size", None) or body.num_features)
    heads = (getattr(body, "pretrained_cfg", None) or {}).get("classifier") or ()
    return NamedBody(body, width, (heads,) if isinstance(heads, str) else tuple(heads))


SOURCES: dict[str, Callable[[str, int], NamedBody]] = {
    "torchvision": _of_torchvision,
    "timm": _of_timm,
}
"""What stands before the colon of a backbone's name."""


def _unknown(source: str, name: str, known: list[str]) -> ParameterError:
    near = get_close_matches(name, known, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"it has {len(known)} names."
    return ParameterError(
        f"Expected `backbone` to be a network of {source}, got '{source}:{name}'; {hint}"
    )


def _classifier(body: nn.Module, name: str) -> tuple[str, "nn.Linear | nn.Conv2d"]:
    """Return the last layer with an output per class, and its name."""
    found = [
        (path, layer)
        for path, layer in body.named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == _CLASSES)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == _CLASSES)
    ]
    if not found:
        raise ModelError(
            f"Expected a network with a classifier of {_CLASSES} classes, got 'torchvision:{name}' "
            "without one; build it, and wrap it: `OrchestraModel(network, feature_dim=d)`."
        )
    return found[-1]


def _take_channels(body: nn.Module, in_channels: int) -> None:
    """Put a new first convolution in place of that for three channels."""
    path, old = next((p, m) for p, m in body.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    _put(body, path, new)


def _use_group_norm(body: nn.Module) -> None:
    """Put GroupNorm in place of each BatchNorm; what timm has in one with it stays behind it."""
    norms = [(path, m) for path, m in body.named_modules() if isinstance(m, _BatchNorm)]
    for path, old in norms:
        flat = isinstance(old, nn.BatchNorm1d)
        new = (norm_1d if flat else norm_2d)(old.num_features, "group")
        behind = [getattr(old, name) for name in ("drop", "act") if hasattr(old, name)]
        _put(body, path, nn.Sequential(new, *behind) if behind else new)


def _put(body: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(body.get_submodule(parent), name, new)
