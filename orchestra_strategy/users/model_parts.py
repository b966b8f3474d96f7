"""The parts of a user's model, found once.

``model.parameters()``, ``model.buffers()`` and ``model.train()`` walk through all modules. Five
such walks for each of many small users took up to a tenth of their time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ModelParts"]


class ModelParts:
    """A model's parameters, buffers and modes, without walking through it each time.

    Args:
        model: No module, parameter or buffer is added to it or taken away afterwards. A buffer may
            be replaced by another tensor, as modules do that write ``self.count = self.count + 1``.

    Attributes:
        parameters: In the order of ``model.parameters()``.
        has_extra_state: Whether a module keeps more than parameters and buffers in ``state_dict``.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.parameters: tuple[nn.Parameter, ...] = tuple(model.parameters())
        self._modules = tuple(model.modules())
        paths = [name.rpartition(".") for name, _ in model.named_buffers()]
        self._places = [(model.get_submodule(path), name) for path, _, name in paths]
        self.has_extra_state = any(map(_keeps_more, self._modules))
        self._modes: dict[bool, tuple[bool, ...]] = {}  # of every module, as `train` leaves them

    def buffers(self) -> list[Tensor]:
        """Return the buffers as they are now, in the order of ``model.buffers()``."""
        return [getattr(module, name) for module, name in self._places]

    @torch.no_grad()
    def set_buffers(self, values: Sequence[Tensor]) -> None:
        """Copy values into the buffers."""
        for buffer, value in zip(self.buffers(), values, strict=True):
            buffer.copy_(value)

    def train(self, mode: bool) -> None:
        """Call ``model.train(mode)``, unless every module is as it left them."""
        if self._modes_now() != self._modes.get(mode):
            self._model.train(mode)
            self._modes[mode] = self._modes_now()

    def _modes_now(self) -> tuple[bool, ...]:
        return tuple(module.training for module in self._modules)


def _keeps_more(module: nn.Module) -> bool:
    kind = type(module)
    return (
        kind.get_extra_state is not nn.Module.get_extra_state
        or kind._save_to_state_dict is not nn.Module._save_to_state_dict
    )
