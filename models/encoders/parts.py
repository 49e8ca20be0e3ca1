"""Parts that a fine-tune adds to a pre-trained image encoder, whichever method it is of."""

from __future__ import annotations

from models.contract import Method, MethodError
from models.encoders.vit import ViT


def add_parts(
    encoder: Method, relative_positions: bool, layer_scale: float | None, last_norm: bool = True
) -> tuple[str, ...]:
    """Gives the image transformer BEiT's parts, or takes its last norm (`ViT.add_parts`); the names of the new weights, which no file
    holds.

    Raises:
        MethodError: the encoder has no vision transformer.
    """
    vit = encoder.image_encoder()
    if not isinstance(vit, ViT):
        raise MethodError([f"encoder: {encoder.name} has no vision transformer that encoder.* could change"])
    old = {n for n, _ in encoder.named_parameters()}
    vit.add_parts(relative_positions, layer_scale, last_norm)
    encoder.enter(encoder.stage)
    return tuple(n for n, _ in encoder.named_parameters() if n not in old)
