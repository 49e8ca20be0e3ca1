"""Random views of an image for systems that compare them: two alike, two by different rules, or two large and many small ones.

    Views("simclr", 224).draw(image_HWC, rng)  ->  {"views": uint8 [V, H, W, C]}
    Views("multi_crop", 224, local=8)          ->  {"views": [2, 224, 224, C], "local": [8, 96, 96, C]}

A view is cut, turned, mirrored, changed in colour, made grey, blurred and solarised, in this order, each with a probability of its own.
All draws come from `rng`, in a loader thread. How much each system changes is a fact of its paper or code and stands in `KINDS`.

Shape letters: V views, H x W pixels, C channels (1 or 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from PIL import Image

from models.contract import MethodError
from models.transforms import colour
from models.transforms.crops import ASPECT, Picture, as_picture, centre_view, draw_box, eight_bit

Kind = Literal["simclr", "moco_v3", "multi_crop", "c2l", "films", "mild", "paper", "crop"]
LOCAL_SIZE = 96


@dataclass(frozen=True)
class ViewRule:
    """How one view is made; a probability or bound of 0 leaves something out.

    scale    share of the image's area that is cut out, aspect 3/4 to 4/3; None: the centre square, nothing random
    bicubic  the filter that scales the cut: bicubic, or bilinear; both antialias
    rotate   degrees, either way; corners become black
    jitter   bounds of brightness, contrast, saturation and hue (models/transforms/colour.py), with probability `jitter_p`
    blur     "window": a Gaussian in a window of a tenth of the height; "pillow": Pillow's; its deviation is uniform in `sigma`
    """

    scale: tuple[float, float] | None = (0.08, 1.0)
    bicubic: bool = True
    rotate: float = 0.0
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.8
    grey_p: float = 0.0
    blur_p: float = 0.0
    blur: Literal["window", "pillow"] = "pillow"
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise_p: float = 0.0


@dataclass(frozen=True)
class ViewSet:
    """The rules of the views of full size, and of small ones."""

    views: tuple[ViewRule, ...]
    local: ViewRule | None = None


_SIMCLR = ViewRule(jitter=(0.8, 0.8, 0.8, 0.2), grey_p=0.2, blur_p=0.5, blur="window")
_BYOL = ViewRule(jitter=(0.4, 0.4, 0.2, 0.1), grey_p=0.2, blur_p=1.0)
_C2L = ViewRule((0.2, 1.0), bicubic=False, rotate=10, jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, grey_p=0.2)
_MOCO = replace(_BYOL, bicubic=False)
_GLOBAL = replace(_BYOL, scale=(0.25, 1.0))
_MILD = ViewRule((0.5, 1.0), rotate=20, jitter=(0.2, 0.2, 0.0, 0.0), jitter_p=1.0, blur_p=0.2)

KINDS: dict[Kind, ViewSet] = {
    # Chen et al. 2020 (SimCLR), appendix A.
    "simclr": ViewSet((_SIMCLR,) * 2),
    # Chen et al. 2021 (MoCo v3), after BYOL: the first view is always blurred, the second hardly ever, but may be solarised.
    "moco_v3": ViewSet((_MOCO, replace(_MOCO, blur_p=0.1, solarise_p=0.2))),
    # Caron et al. 2021 (DINO), Zhou et al. 2022 (iBOT).
    "multi_crop": ViewSet(
        (_GLOBAL, replace(_GLOBAL, blur_p=0.1, solarise_p=0.2)), replace(_BYOL, scale=(0.05, 0.25), blur_p=0.5)
    ),
    # Zhou et al. 2020 (Comparing to Learn); of films without what a grey picture does not have.
    "c2l": ViewSet((_C2L,) * 2),
    "films": ViewSet((replace(_C2L, jitter=(0.4, 0.4, 0.0, 0.0), grey_p=0.0),) * 2),
    # Ours: for images whose hue and detail carry the finding (fundus, stains).
    "mild": ViewSet((_MILD,) * 2, replace(_MILD, scale=(0.1, 0.5))),
    # Systems that restore what they hide: cut and mirrored, with no colour changed.
    "crop": ViewSet((ViewRule(),) * 2),
    # What Yang et al. 2023 (mrm_relation) say of all systems they compare: turned by up to 20 degrees, mirrored.
    "paper": ViewSet((ViewRule(None, bicubic=False, rotate=20),) * 2, ViewRule((0.05, 0.25), rotate=20)),
}


class Views:
    """Draws the views of one image; see the module's head.

    Args:
        kind: a key of `KINDS`.
        size: pixels of a side of the views.
        channels: 1 (luma; hue and saturation do nothing) or 3.
        local, local_size: how many small views, and their side.
        strength: factor of the colour jitter (SimCLR: 1 for ImageNet, 0.5 for CIFAR).
        count: how many views of full size: the first ones of the kind.
        scale: share of the area that is cut out for views of full size, in place of the kind's.
        blur: False leaves the blur out (SimCLR on CIFAR).

    Raises:
        MethodError: an unknown kind, sizes or shares that make no view, small views of a kind without.
    """

    def __init__(
        self,
        kind: Kind,
        size: int,
        *,
        channels: Literal[1, 3] = 3,
        count: int = 2,
        local: int = 0,
        local_size: int = LOCAL_SIZE,
        strength: float = 1.0,
        scale: tuple[float, float] | None = None,
        blur: bool = True,
    ):
        if problems := _problems(kind, size, count, local, local_size, strength, scale):
            raise MethodError(problems)
        rules = KINDS[kind]
        self.size, self.local_size, self.channels = size, local_size, channels
        self.rules = tuple(_adjusted(r, strength, blur, scale) for r in rules.views[:count])
        self.local_rules = (_adjusted(rules.local, strength, blur, None),) * local if rules.local else ()

    def draw(self, image: Picture | np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`views` [V, H, W, C], and `local` [N, h, w, C] where there are small ones; uint8. A picture has the channels of the views."""
        picture = image if isinstance(image, Picture) else Picture(eight_bit(image), self.channels)
        if len(self.rules) + len(self.local_rules) > 1:
            picture.decoded(self._shrink(*picture.size))
        drawn = {"views": self._stacked(picture, self.rules, self.size, rng)}
        if self.local_rules:
            drawn["local"] = self._stacked(picture, self.local_rules, self.local_size, rng)
        return drawn

    def _shrink(self, height: int, width: int) -> float:
        """By how much all views shrink the image at least, whatever is drawn: decoded once, it serves all of them."""
        sides = [(r.scale, self.size) for r in self.rules] + [(r.scale, self.local_size) for r in self.local_rules]
        whole = min(height, width)
        # The shorter side of a box of area A and aspect a is at least sqrt(A a), a < 1; rounding may take half a pixel off it.
        return min((whole if s is None else math.sqrt(s[0] * height * width * ASPECT[0]) - 0.5) / n for s, n in sides)

    def absent(self) -> dict[str, np.ndarray]:
        """Black views of the same shapes, for a sample without an image."""
        shapes = {"views": (len(self.rules), self.size), "local": (len(self.local_rules), self.local_size)}
        return {k: np.zeros((n, s, s, self.channels), np.uint8) for k, (n, s) in shapes.items() if n}

    def _stacked(self, picture: Picture, rules: Sequence[ViewRule], size: int, rng: np.random.Generator) -> np.ndarray:
        out = np.empty((len(rules), size, size, self.channels), np.uint8)
        for view_HWC, rule in zip(out, rules, strict=True):
            view_HWC[:] = np.asarray(drawn_view(picture, size, rule, rng)).reshape(view_HWC.shape)
        return out


def drawn_view(image: Picture | np.ndarray, size: int, rule: ViewRule, rng: np.random.Generator) -> Image.Image:
    """One view [size, size] of an image of 8 bits with one or three channels."""
    picture = _cut(as_picture(image), size, rule, rng)
    if rule.rotate:
        picture = picture.rotate(rng.uniform(-rule.rotate, rule.rotate), Image.Resampling.BILINEAR)
    if rng.random() < rule.flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if any(rule.jitter) and rng.random() < rule.jitter_p:
        picture = colour.jittered(picture, rule.jitter, rng)
    if rng.random() < rule.grey_p:
        picture = colour.grey(picture)
    if rng.random() < rule.blur_p:
        blurred = colour.window_blur if rule.blur == "window" else colour.pillow_blur
        picture = blurred(picture, rng.uniform(*rule.sigma))
    if rng.random() < rule.solarise_p:
        picture = colour.solarised(picture)
    return picture


def _cut(image: Picture, size: int, rule: ViewRule, rng: np.random.Generator) -> Image.Image:
    if rule.scale is None:
        return _picture(centre_view(image, size))
    how = Image.Resampling.BICUBIC if rule.bicubic else Image.Resampling.BILINEAR
    return _picture(image.view(draw_box(*image.size, rule.scale, rng), (size, size), how))


def _picture(x_HWC: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(x_HWC if x_HWC.shape[-1] == 3 else x_HWC[..., 0]))


def _adjusted(rule: ViewRule, strength: float, blur: bool, scale: tuple[float, float] | None) -> ViewRule:
    b, c, s, h = (strength * j for j in rule.jitter)
    return replace(
        rule,
        jitter=(b, c, s, min(0.5, h)),
        blur_p=rule.blur_p if blur else 0.0,
        scale=rule.scale if scale is None else scale,
    )


def _problems(
    kind: str, size: int, count: int, local: int, local_size: int, strength: float, scale: tuple[float, float] | None
) -> list[str]:
    problems = []
    if kind not in KINDS:
        return [f"views: no kind '{kind}'; there are {', '.join(get_args(Kind))}"]
    if size < 1 or (local and local_size < 1):
        problems.append(f"views of {size} pixels and small ones of {local_size}: give sides of at least 1")
    if local and KINDS[kind].local is None:
        with_local = ", ".join(k for k, v in KINDS.items() if v.local)
        problems.append(
            f"views: '{kind}' has no small views, but {local} are asked for; set them to 0, or take {with_local}"
        )
    if not 1 <= count <= len(KINDS[kind].views):
        problems.append(f"views: '{kind}' has {len(KINDS[kind].views)} views of full size, not {count}; give 1 or 2")
    if strength < 0:
        problems.append(f"views: a colour strength of {strength} means nothing; give 0 or more")
    if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
        problems.append(f"views: a crop of {scale} of the area is no range within (0, 1]")
    return problems
