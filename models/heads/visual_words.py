"""Which visual word an image shows, of an encoder's last map or of its pooled vector. Shape letters: B images, D width, K words."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.conv_block import conv_norm


class MapWords(nn.Module):
    """A map [B, D, h, w] -> logits [B, K]: a 3 x 3 convolution, batch norm, ReLU, the mean over places, a linear layer (TransVW)."""

    def __init__(self, width: int, hidden: int, words: int):
        super().__init__()
        self.conv = nn.Sequential(*conv_norm(width, hidden, bias=False), nn.ReLU())
        self.fc = nn.Linear(hidden, words)

    def forward(self, pooled_BD: Tensor, last_BDhw: Tensor | None) -> Tensor:
        assert last_BDhw is not None
        return self.fc(self.conv(last_BDhw).mean((2, 3)))


class PooledWords(nn.Module):
    """Pooled vectors [B, D] -> logits [B, K]: a linear layer, GELU, a linear layer."""

    def __init__(self, width: int, hidden: int, words: int):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, words))

    def forward(self, pooled_BD: Tensor, last_BDhw: Tensor | None) -> Tensor:
        return self.fc(pooled_BD)
