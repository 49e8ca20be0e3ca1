"""Parts that a fine-tune adds to a pre-trained image encoder, whichever method it is of."""

from __future__ import annotations

from models.contract import Method, MethodError
from models.encoders.vit import ViT


def add_parts(encoder: Method, relative_positions: bool, layer_scale: float | None) -> tuple[str, ...]:
    """Gives the image transformer BEiT's parts (`ViT.add_parts`); the names of the new weights, which no file holds.

    Raises:
        MethodError: the encoder has no vision transformer.
    """
    tower = encoder.tower()
    if not isinstance(tower, ViT):
        raise MethodError(
            [
                f"encoder: {encoder.name} has no vision transformer that relative positions or layer scale could be added to"
            ]
        )
    old = {n for n, _ in encoder.named_parameters()}
    tower.add_parts(relative_positions, layer_scale)
    encoder.enter(encoder.stage)
    return tuple(n for n, _ in encoder.named_parameters() if n not in old)
