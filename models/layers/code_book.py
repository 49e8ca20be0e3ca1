"""A tokenizer that is fitted and not trained: small cells of images, their principal components, and k-means' centres as codes.

    CodeBook.fit(cells_SP, ...)  ->  .write(FILE)  ->  CodeBook.read(FILE)  ->  CellTokenizer(book, grid)(image_BHWC) = logits_BNV

A code is colour and texture of a cell and nothing more: no network looked at what surrounds it.

Shape letters: B images, N cells, P values of a cell, Q components, V codes, S cells that it is fitted to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.contract import MethodError
from models.init.weights import weights_bytes
from models.transforms.cells import cells_of, choices_of, temperature_of

KIND = "medpair code book of cells"
CALIBRATED = 4096  # cells that the temperature is found on
HELD_BACK = 10  # one cell in so many is kept from the fit
_ROUNDS = 50  # of k-means


@dataclass(frozen=True)
class CodeBook:
    """`cell` pixels a side; logits of a cell x are -|axes (x - mean) - centre|^2, to be divided by `temperature`."""

    cell: int
    mean_P: np.ndarray
    axes_QP: np.ndarray
    centres_VQ: np.ndarray
    temperature: float

    @property
    def codes(self) -> int:
        return len(self.centres_VQ)

    @classmethod
    def fit(
        cls, cells_SP: np.ndarray, cell: int, codes: int, components: int, choices: float, seed: int
    ) -> tuple[CodeBook, dict[str, float]]:
        """To nine of ten cells; the temperature, and what is said of the fit, to the rest.

        Returns:
            The code book, and of cells that it was not fitted to: `mse` of the nearest code's centre, `variance`, codes `used`,
            their `perplexity`, and effective `choices`.

        Raises:
            MethodError: fewer different cells than codes, or numbers that make no code book.
        """
        if problems := _unfit(cells_SP, codes, components, choices):
            raise MethodError(problems)
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA

        held = np.arange(len(cells_SP)) % HELD_BACK == HELD_BACK - 1
        pca = PCA(components, svd_solver="full").fit(cells_SP[~held])
        found = KMeans(codes, n_init=1, max_iter=_ROUNDS, random_state=seed).fit(pca.transform(cells_SP[~held]))
        mean_P, axes_QP, centres_VQ = (
            np.ascontiguousarray(a, np.float32) for a in (pca.mean_, pca.components_, found.cluster_centers_)
        )
        book = cls(cell, mean_P, axes_QP, centres_VQ, temperature=1.0)
        rest_SP = torch.from_numpy(cells_SP[held][:CALIBRATED])
        logits_SV = book.logits(rest_SP)
        book = replace(book, temperature=temperature_of(logits_SV, choices))
        return book, book._said(rest_SP, logits_SV)

    def _said(self, cells_SP: Tensor, logits_SV: Tensor) -> dict[str, float]:
        code_S = logits_SV.argmax(-1)
        share_V = code_S.bincount(minlength=self.codes) / len(code_S)
        made_SP = torch.from_numpy(self.mean_P + self.centres_VQ @ self.axes_QP)[code_S]
        return {
            "mse": float((made_SP - cells_SP).square().mean()),
            "variance": float((cells_SP - cells_SP.mean(0)).square().mean()),
            "used": int((share_V > 0).sum()),
            "perplexity": math.exp(float(torch.special.entr(share_V).sum())),
            "choices": choices_of(logits_SV, self.temperature),
        }

    def logits(self, cells_SP: Tensor) -> Tensor:
        """-|component - centre|^2 of every code, [..., V]."""
        mean_P, axes_QP, centres_VQ = (torch.from_numpy(a) for a in (self.mean_P, self.axes_QP, self.centres_VQ))
        return distances(cells_SP, mean_P, axes_QP, centres_VQ)

    def write(self, path: str | Path) -> None:
        arrays = {"mean_P": self.mean_P, "axes_QP": self.axes_QP, "centres_VQ": self.centres_VQ}
        words = {"kind": KIND, "cell": str(self.cell), "temperature": repr(self.temperature)}
        Path(path).write_bytes(weights_bytes({n: torch.from_numpy(a) for n, a in arrays.items()}, words))

    @classmethod
    def read(cls, path: str | Path) -> CodeBook:
        """
        Raises:
            MethodError: no code book that `write` wrote.
        """
        from safetensors import SafetensorError, safe_open

        remedy = "make one with `medpair tokenizer`"
        try:
            with safe_open(str(path), "np") as f:
                words, arrays = f.metadata() or {}, {n: f.get_tensor(n) for n in f.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as e:
            raise MethodError([f"{path}: no code book ({e}); {remedy}"]) from e
        try:
            assert words["kind"] == KIND
            book = cls(int(words["cell"]), **arrays, temperature=float(words["temperature"]))
            assert not (wrong := book._wrong()), wrong
        except (KeyError, TypeError, ValueError, AssertionError) as e:
            raise MethodError([f"{path}: no code book of cells ({e or 'another kind of file'}); {remedy}"]) from e
        return book

    def _wrong(self) -> str:
        P, (V, Q) = 3 * self.cell**2, self.centres_VQ.shape
        if (self.mean_P.shape, self.axes_QP.shape) != ((P,), (Q, P)):
            return (
                f"shapes {self.mean_P.shape}, {self.axes_QP.shape} do not fit {V} codes of {Q} in cells of {self.cell}"
            )
        whole = all(np.isfinite(a).all() for a in (self.mean_P, self.axes_QP, self.centres_VQ))
        return "" if whole and 0 < self.temperature < math.inf else "it holds numbers that are not finite"


def _unfit(cells_SP: np.ndarray, codes: int, components: int, choices: float) -> list[str]:
    problems, (S, P) = [], cells_SP.shape
    if codes < 2 or not 1 <= components <= P or not 1 < choices < codes:
        problems.append(
            f"{codes} codes in {components} components of {P} values, {choices:g} choices: give at least 2 codes, 1 to {P} "
            "components, and more than 1 choice but fewer than codes"
        )
    elif (different := len(np.unique(cells_SP[: 20 * codes * HELD_BACK], axis=0))) < 2 * codes:
        problems.append(
            f"{different} different cells of {S} for {codes} codes: give more or larger images, or ask for fewer codes"
        )
    return problems


def distances(cells_SP: Tensor, mean_P: Tensor, axes_QP: Tensor, centres_VQ: Tensor) -> Tensor:
    """-|axes (x - mean) - centre|^2, [..., V]; never above 0."""
    x_SQ = (cells_SP - mean_P) @ axes_QP.T
    gap_SV = x_SQ.square().sum(-1, keepdim=True) - 2 * x_SQ @ centres_VQ.T + centres_VQ.square().sum(-1)
    return -gap_SV.clamp_min(0)


class CellTokenizer(nn.Module):
    """Images uint8 [B, H, W, 3] -> logits of codes at a grid's places, float32 [B, N, V]; without gradient.

    Its numbers are kept as bits: an engine that makes all numbers bfloat16 would move the codes.
    """

    def __init__(self, book: CodeBook, grid: tuple[int, int]):
        super().__init__()
        self.grid, self.cell, self.codes = grid, book.cell, book.codes
        for name in ("mean_P", "axes_QP", "centres_VQ"):
            self.register_buffer(name, torch.from_numpy(getattr(book, name)).contiguous().view(torch.int32).clone())

    @torch.no_grad()
    def forward(self, image_BHWC: Tensor) -> Tensor:
        parts = (self.get_buffer(n).view(torch.float32) for n in ("mean_P", "axes_QP", "centres_VQ"))
        with torch.autocast(image_BHWC.device.type, enabled=False):
            return distances(cells_of(image_BHWC, self.grid, self.cell), *parts)
