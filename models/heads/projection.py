"""Projection heads of systems that compare views: linear layers with batch norm over all ranks between them.

Shape letters: N views, D and C widths.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from models.layers.batch_norm import GlobalBatchNorm1d

Norm = Literal["batch", "none"]
Last = Literal["affine", "scale", "plain", "none"]


class ProjectionHead(nn.Module):
    """`layers` times Linear, norm, ReLU, without the last ReLU; [N, D] -> [N, C].

    Args:
        dim, hidden, out: widths before, between and after.
        norm: "batch" (linear layers then have no bias, which the norm would take out), or "none".
        last: the last batch norm: with scale and offset, scale alone (SimCLR), neither (MoCo v3), or no norm at all, but a bias.
        std: of the normal distribution that weights are drawn from; None: PyTorch's own.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        out: int,
        layers: int = 3,
        norm: Norm = "batch",
        last: Last = "scale",
        std: float | None = None,
    ):
        super().__init__()
        made: list[nn.Module] = []
        for i in range(layers):
            final = i == layers - 1
            width = out if final else hidden
            normed = norm == "batch" and not (final and last == "none")
            made.append(nn.Linear(dim if i == 0 else hidden, width, bias=not normed))
            if normed:
                made.append(_norm(width, last if final else "affine"))
            if not final:
                made.append(nn.ReLU())
        self.layers = nn.Sequential(*made)
        if std is not None:
            for m in self.layers:
                if isinstance(m, nn.Linear):
                    nn.init.normal_(m.weight, std=std)
                    if m.bias is not None:
                        nn.init.zeros_(m.bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.layers(x_ND)


def _norm(width: int, kind: Last) -> nn.Module:
    norm = GlobalBatchNorm1d(width, affine=kind != "plain")
    if kind == "scale":
        norm.register_parameter("bias", None)
    return norm
