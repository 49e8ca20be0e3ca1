"""Options of MRM on radiographs and reports (method.py)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field as Bounded
from pydantic import model_validator

from models.contract import Options
from models.contract.start_files import StartFile
from models.decoders.report import InitText
from models.encoders.vit import ViTOptions
from models.methods._published import with_published
from models.transforms.view_options import ViewOptions

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


# Of the image encoder and of the view, as they were called before they were groups.
IMAGE_KEYS = (
    "image_size", "init", "init_file", "patch", "dim", "depth", "heads", "mlp_ratio", "positions", "drop_path",
)  # fmt: skip
VIEW_KEYS = ("grayscale", "crop_scale", "flip", "pixel_mean", "pixel_std")


class FilmView(ViewOptions):
    grayscale: bool = True
    """Colours become one grey value, repeated in three channels."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Least and largest share of the image's area in a random crop; its middle where no crop fits, as of long, narrow images."""
    pixel_mean: float = 0.4978
    """Mean of pixels in [0, 1] (of the authors' radiographs)."""
    pixel_std: float = Bounded(0.2449, gt=0)
    """Their standard deviation."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            yield f"{where}.crop_scale: {self.crop_scale} is no range within (0, 1]"


class MrmRecordOptions(Options):
    renamed: ClassVar = {**{n: f"image.{n}" for n in IMAGE_KEYS}, **{n: f"view.{n}" for n in VIEW_KEYS}}
    reworded: ClassVar = {"image.init": {"mae_in1k": "file"}, "view.flip": {True: 0.5, False: 0.0}}
    unsaid: ClassVar = {"image.kind": "vit", "image.cls_token": True, "published_file": None}

    conventions: Literal["recommended", "published"] = "recommended"
    """`published` sets mlm_loss_on, fuse_to, init_text and all else in which the published code has its own way."""
    image: ViTOptions = ViTOptions()
    """The encoder, which has a class token. The published run started from an ImageNet MAE, mae_pretrain_vit_base.pth."""
    view: FilmView = FilmView()
    """The radiograph in pre-training."""
    published_file: StartFile = None
    """All weights, those of both decoders too, from the published checkpoint MRM.pth (.pth read without running code, or .safetensors)."""
    super_resolution: int = Bounded(2, ge=1)
    """The target is this many times larger (448 for 224); 1 restores at the encoder's resolution."""
    antialias: bool = False
    """Whether halving the target into the encoder's image filters first."""
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

    @classmethod
    def todays(cls, given: Mapping[str, Any], where: str = "method") -> dict[str, Any]:
        """`init: published` named the file of all weights in `init_file`, which is the encoder's alone today."""
        values = super().todays(given, where)
        image = values.get("image")
        if not isinstance(image, dict) or image.get("init") != "published":
            return values
        values["published_file"] = image.pop("init_file", None)
        image["init"] = "scratch"
        return values

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.published_file is not None and self.image.init == "file":
            yield f"{where}.published_file holds the encoder too, and {where}.image.init_file is given: take one of them out"
        if not self.image.cls_token:
            yield f"{where}.image.cls_token: the encoder of mrm_record has one; set it to true"

    @model_validator(mode="before")
    @classmethod
    def _published(cls, given: object) -> object:
        return with_published(PUBLISHED, given)
