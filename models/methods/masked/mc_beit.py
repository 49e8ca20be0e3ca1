"""mc-BEiT: Multi-choice Discretization for Image BERT Pre-training (Li et al. 2022, arXiv 2203.15371).

Most patches of an image are hidden, and a vision transformer that sees all places names them in the words of a tokenizer. Not one
word is right: the target is what the tokenizer holds likely of the place, mixed with what it says of all places, weighed by likeness of
the transformer's own tokens. The deployed encoder sees whole images.

Shape letters: B images, N patches, M hidden ones, L tokens, D width, V codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import Batch, MethodError, Output, Schema
from models.contract.assets import Asset
from models.encoders.beit import narrow_normal_
from models.layers.code_book import CellTokenizer, CodeBook
from models.layers.patches import places_of, take
from models.losses.codes import code_cost, mixed_codes
from models.methods.masked._blocks import BlockMethod, BlockOptions
from models.parallel import global_mean, total
from models.registry import register

DEMO = Path(__file__).resolve().parents[3] / "configs" / "methods" / "mc_beit" / "demo.safetensors"
MAKE = "medpair tokenizer DATA --out FILE"


class McBeitOptions(BlockOptions):
    mask_block: int = Bounded(16, ge=2)
    """Pixels of a side of what is hidden in one piece: a multiple of the patch."""
    mask_ratio: float = Bounded(0.75, gt=0, lt=1)
    """Share of these pieces that is hidden, rounded up to whole ones."""
    codes: Literal["file", "demo"] = "file"
    """The tokenizer's code book: that of `tokenizer`, or the one of the built-in demo cohort, which means nothing for other images."""
    tokenizer: Asset = None
    """File of the code book, made of the training images by `medpair tokenizer`."""
    temperature: float | None = Bounded(None, gt=0)
    """Of the tokenizer's softmax (published: 4, for its own tokenizer); none given: the one that the file was calibrated to."""
    omega: float = Bounded(0.2, ge=0, le=1)
    """Share of a target that comes from all places of the image, by likeness; 0 is one place's own codes."""
    similarity_temperature: float = Bounded(1.0, gt=0)
    """Of the softmax of likenesses. At the published 1 it is nearly even over all places, since cosines differ by 2 at most."""
    detach_similarity: bool = False
    """Whether likenesses give no gradient: as published, they do, which also teaches the encoder to make targets easy."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.codes == "demo" and self.tokenizer is not None:
            yield f"{where}.tokenizer: a file is given, and {where}.codes asks for the demo cohort's; leave one of them out"


@register("mc_beit")
class McBeit(BlockMethod):
    """`image` (the encoder), `mask` (the vector in place of what is hidden), `head`, and `codes`, which is not trained."""

    Options = McBeitOptions
    paper = "Li et al., mc-BEiT: Multi-choice Discretization for Image BERT Pre-training, ECCV 2022"
    official = (0.08, 1.0)
    options: McBeitOptions

    def __init__(self, options: McBeitOptions, schema: Schema):
        book = _code_book(options)
        super().__init__(options, schema)
        self.temperature = options.temperature or book.temperature
        self.codes = CellTokenizer(book, self.image.grid)
        self.head = nn.Linear(options.image.dim, book.codes)
        narrow_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.enter("")

    def chance(self, batch_size: int) -> dict[str, float]:
        """The logarithm of the number of codes: all of them are as likely."""
        return {"image": math.log(self.codes.codes)}

    def forward(self, batch: Batch) -> Output:
        views_BHWC, hidden_BN = batch["views"][:, 0], batch["noise"]
        return self.loss(self.pixels(views_BHWC), self.codes(views_BHWC), hidden_BN, self.weight(batch))

    def loss(self, pixels_BCHW: Tensor, logits_BNV: Tensor, hidden_BN: Tensor, weight_B: Tensor) -> Output:
        """What the tokenizer's `logits_BNV` ask for at hidden places of images that count."""
        o = self.options
        tokens_BND = self._seen(pixels_BCHW, hidden_BN)[:, self._extra :]
        masked_BM = places_of(hidden_BN)
        like_BND = tokens_BND.detach() if o.detach_similarity else tokens_BND
        asked_BMV = mixed_codes(logits_BNV, like_BND, masked_BM, o.omega, self.temperature, o.similarity_temperature)
        made_BMV = self.head(take(tokens_BND, masked_BM)).float()
        weight_B1 = weight_B[:, None].float()
        count = weight_B1.sum() * masked_BM.shape[1]

        def average(x_BM: Tensor) -> Tensor:
            return global_mean((x_BM * weight_B1).sum(), count)

        loss = average(code_cost(made_BMV, asked_BMV))
        with torch.no_grad():
            share_V = total((asked_BMV * weight_B1[..., None]).sum((0, 1))) / total(count).clamp_min(1)
            found_BM = (made_BMV.argmax(-1) == asked_BMV.argmax(-1)).float()
            said = {
                # What the mean of all targets costs as the answer to everything, and what the best answer costs.
                "image_baseline": torch.special.entr(share_V).sum(),
                "image_floor": average(torch.special.entr(asked_BMV).sum(-1)),
                "code_accuracy": average(found_BM),
            }
        return Output({"image": loss}, loss, said, {"image": tokens_BND.mean(1).detach()})


def _code_book(options: McBeitOptions) -> CodeBook:
    """
    Raises:
        MethodError: no file is given, it holds none, or its cells are larger than patches.
    """
    file = DEMO if options.codes == "demo" else options.tokenizer
    if file is None:
        raise MethodError(
            [
                f"method.tokenizer: mc_beit needs a code book of your images; make one ({MAKE}), then method.tokenizer=FILE"
            ]
        )
    book, patch = CodeBook.read(file), options.image.patch
    if book.cell > patch:
        larger = f"its cells of {book.cell} pixels are larger than method.image.patch ({patch})"
        raise MethodError([f"method.tokenizer: {larger}; make one with --cell {patch} or less"])
    return book
