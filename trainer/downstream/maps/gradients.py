"""What each place of a case contributes to its answer, by integrated gradients (Sundararajan, Taly and Yan, ICML 2017, equation 1).

The answer's gradient is averaged on the straight line from a background, where nothing particular is to be seen, to the case, and
multiplied by what parts the two; summed over a place it is that place's contribution. All contributions together are the answer of the
case less that of the background (their proposition 1), which is the check of `remainder`. Any system has them, whatever it is made of, as
long as it is differentiable in its pixels or patch features; attention is not asked.

The background of an image is the image itself, blurred (Fong and Vedaldi, ICCV 2017, section 4.1): a black or grey one would show edges
and colours that no image has. That of a slide is its mean patch, at every place.

Shape letters: N places (patches of a slide, cells of an image), F features of a patch, H x W pixels, C colours, K outputs, M answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.contract import Batch
from models.finetuned import Downstream
from models.losses import finetune as losses

STEPS = 32
"""Points of the line, in the middles of equal parts."""
CELLS = 14
"""Of an image's side: those of the base vision transformer, patches of 16 at 224 pixels."""
BLUR = 0.1
"""Standard deviation of the background's blur, as a share of the image's side."""
FADE = 0.5
"""Standard deviation of the border of what is taken out, in cells."""
Side = Literal["patches", "image"]


@dataclass(frozen=True)
class Contributions:
    """of_MN: what each place adds to each of `names`, in units of the answer (log odds, the label's standardised number, log risk).

    answer_M     of the case; background_M: of its background
    missed  what the sum of a row misses of their difference: 0 but for the steps of the integral
    """

    names: tuple[str, ...]
    of_MN: np.ndarray
    answer_M: np.ndarray
    background_M: np.ndarray
    of_classes: bool = True

    @property
    def missed(self) -> np.ndarray:
        return self.answer_M - self.background_M - self.of_MN.sum(1)

    @property
    def signs(self) -> np.ndarray:
        """1 where the answer goes up from the background; an answer of classes is that of the class that the case is given, always 1."""
        return np.where(self.of_classes | (self.answer_M >= self.background_M), 1.0, -1.0)

    @property
    def toward(self) -> np.ndarray:
        """What each place does for the answer that the case has: towards it above 0, against it below."""
        return self.of_MN * self.signs[:, None]

    def maps(self, name: str) -> tuple[str, ...]:
        """Names of the maps: of one answer, which differs from case to case, `name` alone."""
        return (name,) if len(self.names) == 1 else tuple(f"{name} of {n}" for n in self.names)


# ---------------------------------------------------------------------------------------------------------------- the answers


@dataclass(frozen=True)
class Asked:
    """Which numbers are explained: `of(logits [B, K])` gives [B, M]."""

    names: tuple[str, ...]
    of: Callable[[Tensor], Tensor]
    of_classes: bool


def asked_of(method: Downstream, whole_K: Tensor) -> Asked:
    """The answers of a case whose logits are `whole_K`: log odds of the class, or of each label's answer, that it is given, or numbers."""
    q = method.question
    if q.kind == "multiclass":
        c = int(whole_K.argmax())
        return Asked((q.classes[c],), lambda x_BK: odds(x_BK, c)[:, None], True)
    if q.kind in ("binary", "multilabel"):
        yes_K = _yes(method, whole_K[None])[0]
        sign_K = torch.where(yes_K >= 0, 1.0, -1.0).to(yes_K)
        names = (q.classes[int(yes_K[0] >= 0)],) if q.kind == "binary" and len(q.classes) == 2 else q.classes
        return Asked(tuple(names) or ("answer",), lambda x_BK: _yes(method, x_BK) * sign_K, True)
    if q.kind == "survival":
        return Asked(("risk",), lambda x_BK: losses.survival_risk(q, x_BK).reshape(len(x_BK), 1), False)
    if q.kind == "ordinal":
        return Asked(("grade",), lambda x_BK: x_BK.sum(1, keepdim=True), False)
    return Asked(q.names, lambda x_BK: x_BK, False)


def _yes(method: Downstream, x_BK: Tensor) -> Tensor:
    """Log odds of yes, of each label; where uncertain is an answer too, against no."""
    if not method.question.third:
        return x_BK
    x_BK3 = x_BK.unflatten(1, (-1, 3))
    return x_BK3[..., 1] - x_BK3[..., 0]


def odds(logit_BK: Tensor, c: int) -> Tensor:
    """Log odds of class `c` against all others, [B]."""
    others_BK = torch.cat([logit_BK[..., :c], logit_BK[..., c + 1 :]], -1)
    return logit_BK[..., c] - others_BK.logsumexp(-1)


# ------------------------------------------------------------------------------------------------------------------ the integral


def contributions(method: Downstream, batch: Batch, side: Side) -> Contributions:
    """Of the one case of `batch`; the method is in eval mode.

    Raises:
        RuntimeError: the answer does not depend on what it read in a differentiable way.
    """
    x_1, back_1 = batch[side].float(), background(batch[side], side)

    def logits(value_1: Tensor) -> Tensor:
        return method.logits(with_field(batch, side, value_1))[0].float()

    with torch.no_grad():
        whole_1K, base_1K = logits(x_1), logits(back_1)
    asked = asked_of(method, whole_1K[0])
    summed: list[Tensor] = [torch.zeros_like(x_1, dtype=torch.float64) for _ in asked.names]
    for step in range(STEPS):
        at_1 = (back_1 + (step + 0.5) / STEPS * (x_1 - back_1)).requires_grad_(True)
        with torch.enable_grad():
            said_M = asked.of(logits(at_1))[0]
        for m, total_1 in enumerate(summed):
            more = m + 1 < len(summed)
            (slope_1,) = torch.autograd.grad(said_M[m], at_1, retain_graph=more)
            total_1 += slope_1.double()
    of_MN = np.stack([by_place(total_1[0] / STEPS * (x_1 - back_1)[0].double(), side) for total_1 in summed])
    answer_M, base_M = (asked.of(x_1K)[0].double().cpu().numpy() for x_1K in (whole_1K, base_1K))
    return Contributions(asked.names, of_MN, answer_M, base_M, asked.of_classes)


def with_field(batch: Batch, name: str, value: Tensor) -> Batch:
    """The batch with another tensor in a field."""
    return Batch({**batch, name: value}, batch.present, batch.weight_B, batch.keys_B, batch.patients_B)


def background(x: Tensor, side: Side) -> Tensor:
    """Of a bag [1, N, F] its mean patch at every place; of an image [1, H, W, C] itself, blurred. float32."""
    if side == "patches":
        return x.float().mean(1, keepdim=True).expand(x.shape).clone()
    from scipy.ndimage import gaussian_filter

    sigma = BLUR * min(x.shape[1:3])
    blurred = gaussian_filter(x[0].float().cpu().numpy(), (sigma, sigma, 0), mode="nearest")
    return torch.from_numpy(blurred).to(x.device)[None]


# ------------------------------------------------------------------------------------------------------------------ the places


def by_place(value: Tensor, side: Side) -> np.ndarray:
    """Sums over the features of each patch, [N, F] -> [N], or over the pixels of each cell, [H, W, C] -> [N], row by row."""
    if side == "patches":
        return value.sum(1).cpu().numpy()
    value_HW = value.sum(2).cpu().numpy()
    rows, columns = (edges(n)[:-1] for n in value_HW.shape)
    return np.add.reduceat(np.add.reduceat(value_HW, rows, 0), columns, 1).ravel()


def edges(side: int) -> np.ndarray:
    """Where the cells of a side begin and end, in pixels."""
    return np.linspace(0, side, min(CELLS, side) + 1).round().astype(int)


def corners(height: int, width: int) -> np.ndarray:
    """x and y of each cell's upper left corner, [N, 2], in pixels of what the encoder sees."""
    y_R, x_C = edges(height)[:-1], edges(width)[:-1]
    return np.stack(np.meshgrid(x_C, y_R), -1).reshape(-1, 2)


def covered(shape: Sequence[int], out_N: np.ndarray) -> np.ndarray:
    """Which pixels [H, W] lie in the cells `out_N`."""
    rows, columns = (np.diff(edges(n)) for n in shape[:2])
    cell_RC = np.zeros((len(rows), len(columns)), bool)
    cell_RC.ravel()[out_N] = True
    return np.repeat(np.repeat(cell_RC, rows, 0), columns, 1)


def faded(shape: Sequence[int], out_N: np.ndarray) -> np.ndarray:
    """How much of each pixel [H, W] is background where the cells `out_N` are: 1 within, falling off softly around them.

    A hard border would be an edge that no image has, and a network that looks for spots would find one (Fong and Vedaldi 2017).
    """
    from scipy.ndimage import gaussian_filter

    sigma = FADE * min(shape[:2]) / CELLS
    soft_HW = gaussian_filter(covered(shape, out_N).astype(float), sigma, mode="nearest")
    return np.minimum(1.0, 2 * soft_HW)
