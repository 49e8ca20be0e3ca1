"""Options of MRM on radiographs and reports (method.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field as Bounded
from pydantic import model_validator

from models.contract import Options
from models.decoders.report import InitText

# What `conventions: published` sets: where the published code differs from the recommended form, or is easily mistaken.
PUBLISHED = {
    "target": "norm_patch",
    "antialias": False,
    "mlm_mask": "whole_word",
    "mlm_loss_on": "all",
    "fuse": "gap",
    "fuse_to": "all",
    "report_positions": "learned",
    "init_text": "xavier",
    "tie": False,
}


class MrmRecordOptions(Options):
    conventions: Literal["recommended", "published"] = "recommended"
    """`published` sets mlm_loss_on, fuse_to, init_text and all else in which the published code has its own way."""
    init: Literal["scratch", "mae_in1k", "published"] = "scratch"
    """Start of the weights: random, the encoder of an ImageNet MAE file, or all of the published checkpoint."""
    init_file: str | None = None
    """The file for `init`: mae_pretrain_vit_base.pth or the published MRM.pth (.pth read without running code, or .safetensors)."""
    image_size: int = Bounded(224, ge=8)
    """Pixels of a side that the encoder sees."""
    super_resolution: int = Bounded(2, ge=1)
    """The target is this many times larger (448 for 224); 1 restores at the encoder's resolution."""
    antialias: bool = False
    """Whether halving the target into the encoder's image filters first."""
    grayscale: bool = True
    """Colours become one grey value, repeated in three channels."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Least and largest share of the image's area in a random crop."""
    flip: bool = True
    """Mirror half of the crops."""
    pixel_mean: float = 0.4978
    """Mean of pixels in [0, 1] (of the authors' radiographs)."""
    pixel_std: float = Bounded(0.2449, gt=0)
    """Their standard deviation."""
    patch: int = Bounded(16, ge=2)
    """Pixels of a patch's side in the encoder's image."""
    dim: int = Bounded(768, ge=4)
    """Width of the encoder."""
    depth: int = Bounded(12, ge=1)
    """Blocks of the encoder."""
    heads: int = Bounded(12, ge=1)
    """Attention heads of the encoder."""
    mlp_ratio: float = Bounded(4.0, gt=0)
    """Width of its feed-forward layers, as a multiple of `dim`."""
    positions: Literal["sincos", "learned"] = "sincos"
    """Positions of patches: fixed 2-D sine-cosine, or learned (the published fine-tuning learns on from the fixed ones)."""
    drop_path: float = Bounded(0.0, ge=0, lt=1)
    """Stochastic depth of the encoder's last block; it grows linearly from the first (0.1 in fine-tuning)."""
    mask_ratio: float = Bounded(0.75, ge=0, lt=1)
    """Share of patches hidden."""
    decoder_dim: int = Bounded(768, ge=4)
    """Width of the image decoder."""
    decoder_depth: int = Bounded(4, ge=1)
    """Its blocks."""
    decoder_heads: int = Bounded(6, ge=1)
    """Its attention heads."""
    target: Literal["norm_patch", "unit"] = "norm_patch"
    """Pixels to restore: each patch standardised (the published run), or in [0, 1] (the paper's text)."""
    image_weight: float = Bounded(1.0, ge=0)
    """lambda, the weight of the image term; 0 leaves the image decoder out."""
    report_weight: float = Bounded(1.0, ge=0)
    """Weight of the report term; 0 leaves the report and its decoder out."""
    tokenizer: str | None = None
    """WordPiece vocabulary or tokenizers .json of the reports; None takes the one stored with the data set."""
    report_length: int = Bounded(100, ge=3)
    """Places of a report, [CLS] first; longer ones are cut (and counted in the diagnostics)."""
    mlm_mask: Literal["whole_word", "token"] = "whole_word"
    """Hide words with all their pieces (the published code), or tokens one by one (the paper's text)."""
    mlm_ratio: float = Bounded(0.5, gt=0, le=1)
    """Probability with which a word (or token) is hidden."""
    mlm_loss_on: Literal["masked", "all"] = "masked"
    """Cross-entropy over hidden places (eq. 1), or over all of them, padding too (the published code)."""
    report_dim: int = Bounded(384, ge=2)
    """Width of the report decoder."""
    report_depth: int = Bounded(6, ge=1)
    """Its blocks."""
    report_heads: int = Bounded(6, ge=1)
    """Its attention heads."""
    report_inner: int = Bounded(1536, ge=1)
    """Width of its feed-forward layers."""
    report_dropout: float = Bounded(0.1, ge=0, lt=1)
    """Its dropout."""
    report_positions: Literal["learned", "sincos"] = "learned"
    """Positions of words: learned (appendix A.2 and code) or fixed (section 3.1)."""
    init_text: InitText = "normal"
    """First weights of the report decoder: N(0, 0.02); Xavier-uniform in all linear layers (the published code); or in the look-up too."""
    tie: bool = True
    """Score words by the matrix that they are looked up in; false: by one of its own (the published code as it runs)."""
    fuse: Literal["gap", "gmp"] = "gap"
    """The radiograph in the report decoder: mean of the visible patches, or their maximum (Table 5a)."""
    fuse_to: Literal["all", "unmasked"] = "all"
    """Places it is added to: all (the published code), or visible words only (the paper's text)."""
    hybrid_image: bool = False
    """Ablation of Table 4: add the mean visible word to the image decoder's input too."""

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("conventions") != "published":
            return given
        against = [f"method.{k}={given[k]} (theirs: {v})" for k, v in PUBLISHED.items() if given.get(k, v) != v]
        if against:
            raise ValueError(f"method.conventions=published contradicts {', '.join(against)}; drop one or the other")
        return {**PUBLISHED, **given}
