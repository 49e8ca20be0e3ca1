"""Which decoder draws the masks of a system, and its making: the system's own, or one that draws from any image encoder's maps."""

from __future__ import annotations

from models.contract import Head, Method, MethodError, TargetSpec
from models.contract.image_encoder import ImageEncoder
from models.decoders.heads import LinearMapHead, SetrPupHead, TwoWayHead, UPerNetHead


def dense(encoder: Method) -> ImageEncoder:
    """The image encoder of a method that masks are drawn from."""
    image = encoder.image_encoder()
    if image is None:
        raise MethodError(
            [f"{encoder.name} has no image encoder, so it cannot say where: segmentation needs one that has"]
        )
    H, W = image.image_size
    if H != W:
        raise MethodError([f"{encoder.name}: its images are {H} x {W}; segmentation needs square ones"])
    return image


def decoder_of(method: type[Method], asked: str) -> str:
    """What draws the masks of a system when a task asks for this decoder; a decoder of the system's own is called as the system is.

    Raises:
        MethodError: another decoder, by name, for a system that has its own.
    """
    if method.draws_masks:
        if asked not in ("auto", method.name):
            raise MethodError(
                [
                    f"output.decoder={asked}: {method.name} has a decoder of its own for masks; set output.decoder=auto, or take "
                    "another method"
                ]
            )
        return method.name
    return "upernet" if asked == "auto" else asked


def make_decoder(
    encoder: Method,
    decoder: str,
    *,
    width: int,
    queries: int,
    mask_token: bool,
    gene_dim: int,
    auxiliary: bool = False,
    outputs: int = 1,
) -> Head:
    """A decoder for `outputs` masks, by `decoder_of`; `auxiliary` gives UPerNet and SETR-PUP an FCN head.

    Raises:
        MethodError: a method without an image encoder, or with patches that SETR-PUP's doublings do not fill; see `decoder_of`.
    """
    image, decoder = dense(encoder), decoder_of(type(encoder), decoder)
    if encoder.draws_masks:
        own = encoder.task_head(TargetSpec("segmentation", outputs, ()), image.width, image.width)
        assert own is not None, f"{encoder.name} says that it draws masks, and has no head that does"
        return own
    side = image.image_size[0]
    if decoder == "upernet":
        dims: int | tuple[int, ...] = image.width if len(set(image.strides)) == 1 else image.channels[-4:]
        return UPerNetHead(side, dims, outputs, width, auxiliary=auxiliary)
    last = image.strides[-1]
    if decoder == "setr_pup":
        return SetrPupHead(side, image.width, last, outputs, width, auxiliary, image.channels[-2])
    if decoder == "two_way":
        return TwoWayHead(
            side, image.width, gene_dim, width=width, n_query=queries, mask_token=mask_token, out_channels=outputs
        )
    return LinearMapHead(side, image.width, outputs)
