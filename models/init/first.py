"""First weights that several networks share."""

from __future__ import annotations

from torch import nn


def xavier_linears(module: nn.Module) -> None:
    """Xavier-uniform matrices and zero biases for all linear layers in a module, itself included, in their order (MAE's code)."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.xavier_uniform_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
