"""What ``orchestra_advanced`` adds to Orchestra's loss: an L2 term.

Orchestra is E. S. Lubana et al., ICML 2022, https://arxiv.org/abs/2205.11506; the addition is this
package's own, as an example of a further loss term.
"""

import torch
from torch import Tensor, nn

__all__ = ["l2_penalty"]


def l2_penalty(model: nn.Module) -> Tensor:
    """Return the sum of squares of all trainable parameters, a scalar with a gradient.

    >>> _ = nn.init.constant_((layer := nn.Linear(3, 1, bias=False)).weight, 2.0)
    >>> l2_penalty(layer).item()
    12.0
    """
    squares = [p.square().sum() for p in model.parameters() if p.requires_grad]
    return torch.stack(squares).sum()
