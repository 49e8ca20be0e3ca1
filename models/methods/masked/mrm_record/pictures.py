"""Pictures of masked record modelling for TensorBoard: radiographs restored, and hidden words with their predictions.

Shape letters: B samples, H x W pixels, C colours, N patches, M masked ones, P values of a patch, L report places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.contract import Batch
from models.decoders.mae import patchify, unpatchify
from models.layers.patches import mask_order, pasted
from models.transforms.text import CLS, PAD

if TYPE_CHECKING:
    from models.methods.masked.mrm_record.method import MrmRecord

WORDS = 12  # hidden tokens of a report that are shown, and at most half of it: never the report as a whole
LINE = 14  # pixels
RIGHT, WRONG = (20, 120, 60), (170, 30, 60)


def reconstruction(method: MrmRecord, batch: Batch) -> np.ndarray:
    """One row a sample: image, what the encoder saw of it, what the decoder made of the rest; uint8 [H, W, 3]."""
    assert method.decoder is not None
    o = method.options
    pixels_BCHW = method.pixels(batch)
    keep_BK, masked_BM = mask_order(batch["noise"], o.mask_ratio)
    tokens_BLD = method.encoder(method.encoder_image(pixels_BCHW), keep_BK)
    _, mean, std = method.targets(pixels_BCHW, masked_BM)
    made_BMP = method.decoder(tokens_BLD, keep_BK, masked_BM).float() * std + mean
    if o.target == "norm_patch":
        made_BMP = made_BMP * o.view.pixel_std + o.view.pixel_mean
    whole_BNP = patchify(pixels_BCHW.expand(-1, 3, -1, -1), method.target_patch)
    seen_BNP = pasted(whole_BNP, masked_BM, torch.full_like(made_BMP, 0.5))
    columns = (whole_BNP, seen_BNP, pasted(whole_BNP, masked_BM, made_BMP))
    rows_BCHW = torch.cat([unpatchify(x, method.target_patch, method.encoder.grid) for x in columns], 3)
    grid_HWC = torch.cat(list(rows_BCHW), 1).permute(1, 2, 0)
    return (grid_HWC.clamp(0, 1) * 255).round().byte().cpu().numpy()


def hidden_words(method: MrmRecord, batch: Batch, scores_BLV: Tensor) -> np.ndarray:
    """`hidden token -> prediction` for some places of each report, right ones green, wrong ones red; uint8 [H, W, 3]."""
    from PIL import Image, ImageDraw

    words = method.tokenizer.words
    guess_BL = scores_BLV.argmax(-1).cpu().numpy()
    ids_BL, hidden_BL = batch["report"].cpu().numpy(), batch["hidden"].cpu().numpy()
    lines: list[tuple[str, tuple[int, int, int]]] = []
    for i in range(batch.size):
        if not bool(batch.present["report"][i]):
            continue
        places = np.flatnonzero(hidden_BL[i])
        most = min(WORDS, len(places), int(((ids_BL[i] != PAD) & (ids_BL[i] != CLS)).sum()) // 2)
        places = places[np.linspace(0, len(places) - 1, most).astype(int)]
        for at in places:
            true, made = words[ids_BL[i, at]], words[guess_BL[i, at]]
            lines.append((f"{i}: {true} -> {made}", RIGHT if true == made else WRONG))
        lines.append(("", RIGHT))
    picture = Image.new("RGB", (320, LINE * max(1, len(lines))), "white")
    pen = ImageDraw.Draw(picture)
    for row, (text, colour) in enumerate(lines):
        pen.text((4, row * LINE), text, fill=colour)
    return np.asarray(picture)
