"""Comparison of images with texts word by word (GLoRIA, Huang et al., ICCV 2021, section 3.3).

Each word looks at the cells of an image; what it finds is compared with the word itself, and the words of a text together say how well
text and image fit. Every image meets every text, so the tensors between are [images, texts, cells, words]: they are made for a few
texts at a time and made again in the backward pass. Memory grows less than with the batch's square (tests/benchmarks/local_loss.py).

Shape letters: B images of this rank, G texts of all ranks, R cells of an image, L words, C width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from models.parallel import gather

Aggregate = Literal["mean", "sum"]
BUDGET = 2**24  # numbers of the largest tensor between, of one part


def word_similarities(
    cells_BRC: Tensor,
    words_BLC: Tensor,
    count_B: Tensor,
    attention_scale: float = 4.0,
    word_scale: float = 5.0,
    agg: Aggregate = "mean",
    word_softmax: bool = True,
    budget: int = BUDGET,
    real_BR: Tensor | None = None,
) -> Tensor:
    """Similarities of all images with all texts of all ranks, [G, G], image by text; not yet divided by a temperature.

    Args:
        cells_BRC, words_BLC: this rank's; a text's words come first, the rest of its L rows is not looked at.
        count_B: words of a text, at least 1.
        attention_scale: factor of the logits before the softmax over cells.
        word_scale: factor of a word's cosine in s = ln sum over words of exp(factor x cosine).
        agg: "sum" as written, by which a text of twice the words gains ln 2 with every image; "mean" takes that out.
        word_softmax: a softmax over words before that over cells, which the published code has and the paper does not.
        budget: numbers in the largest tensor at once.
        real_BR: cells that are there, one at least of each image; None: all.
    """
    # Delicate sums: two softmaxes and a logarithm of exponentials.
    words_GLC, count_G = gather(words_BLC.float()), gather(count_B)
    longest = int(count_G.max())
    cells_BRC, words_GLC = cells_BRC.float(), words_GLC[:, :longest]
    rows = len(cells_BRC) * longest * max(cells_BRC.shape[1:])
    size = max(1, budget // rows)
    real_GL = torch.arange(longest, device=count_G.device) < count_G[:, None]
    rules = (attention_scale, word_scale, word_softmax)
    parts = [
        checkpoint(_part, cells_BRC, words, real, *rules, real_BR, use_reentrant=False)
        for words, real in zip(words_GLC.split(size), real_GL.split(size), strict=True)
    ]
    fit_BG = torch.cat(parts, 1)
    if agg == "mean":
        fit_BG = fit_BG - count_G.log()
    # Rows of images by ranks: each rank has compared its own images alone, W times less work than all with all.
    return gather(fit_BG)


def _part(
    cells_BRC: Tensor,
    words_TLC: Tensor,
    real_TL: Tensor,
    attention_scale: float,
    word_scale: float,
    word_softmax: bool,
    real_BR: Tensor | None,
) -> Tensor:
    """[B, T]: ln of the sum over a text's words of exp(word_scale x cosine of a word and what it finds in an image)."""
    logits_BTRL = torch.einsum("brc,tlc->btrl", cells_BRC, words_TLC)
    if word_softmax:
        logits_BTRL = logits_BTRL.masked_fill(~real_TL[:, None], -torch.inf).softmax(-1)
    logits_BTRL = attention_scale * logits_BTRL
    if real_BR is not None:
        logits_BTRL = logits_BTRL.masked_fill(~real_BR[:, None, :, None], -torch.inf)
    attention_BTRL = logits_BTRL.softmax(2)
    found_BTLC = torch.einsum("btrl,brc->btlc", attention_BTRL, cells_BRC)
    # The product of the norms is kept off 0, as in the published code: padded words are zeros.
    norms_BTL = (found_BTLC.norm(dim=-1) * words_TLC.norm(dim=-1)).clamp_min(1e-8)
    cosine_BTL = torch.einsum("btlc,tlc->btl", found_BTLC, words_TLC) / norms_BTL
    return (word_scale * cosine_BTL).masked_fill(~real_TL, -torch.inf).logsumexp(-1)


def words_of(tokens_BLC: Tensor, word_BL: Tensor) -> Tensor:
    """Vectors of words, the sums of their pieces', [B, L, C]; rows beyond the last word are 0.

    word_BL: the word of each token, -1 for padding (`ReportTokens.word_of_token`).
    """
    real_BL = word_BL >= 0
    at_BLC = word_BL.clamp_min(0).long()[..., None].expand_as(tokens_BLC)
    return torch.zeros_like(tokens_BLC).scatter_add(1, at_BLC, tokens_BLC * real_BL[..., None])
