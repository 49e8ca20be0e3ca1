"""What baselines share: a vector that a sample has without any weight.

Shape letters: B samples, D numbers of a sample.
"""

from __future__ import annotations

import torch

from models.contract import Batch, Encoded, Method, Options, Schema


class Fixed(Method):
    """`sample` gives `vector` [D] and says of the field that it reads, or that a sample must have, whether it is there."""

    paper = "none: a baseline"

    def __init__(self, options: Options, schema: Schema):
        super().__init__(options, schema)
        # What decides features has to be in the state, by which a cache knows them.
        self.register_buffer("version", torch.ones((), dtype=torch.int64))

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def encode(self, batch: Batch) -> Encoded:
        """The vector, as a token and pooled."""
        pooled_BD = batch["vector"].float()
        return Encoded(pooled_BD[:, None], pooled_BD.new_ones(len(pooled_BD), 1, dtype=torch.bool), pooled_BD)
