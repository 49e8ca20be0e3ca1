"""The Vision Transformer (Dosovitskiy et al. 2021) with the parameter names of timm and MAE, for every method that has one.

Shape letters: B images, C colours, H x W pixels, P patches (grid rows x columns), L tokens = P (+ 1 with a class token),
K kept patches, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import MethodError
from models.contract.loaded import Loaded
from models.encoders.positions import carried, fitted, sincos_2d
from models.encoders.started import StartedOptions
from models.init.grids import Grid, grids_in, note_grid
from models.init.weights import load_strict, read_weights
from models.layers.relative import LayerScale, fitted_table, table_size
from models.layers.vit_block import EPS, RELATIVE, Block, SharedBias

__all__ = ["RELATIVE", "Block", "ViT", "ViTOptions", "fit_positions", "pyramid_blocks"]
SHARED = f"rel_pos_bias.{RELATIVE}"
# What MAE and timm files hold beside the encoder: decoder, mask token, classification heads.
NOT_ENCODER = ("decoder_", "mask_token", "head.", "fc_norm.", "bert_mlp.", "bert_encoder.")


class ViTOptions(StartedOptions):
    """Of the image transformer; the base size of Dosovitskiy et al. 2021 at patches of 16 where nothing is said."""

    kind: Literal["vit"] = "vit"
    """The image encoder is a vision transformer."""
    image_size: int = Bounded(224, ge=8)
    """Pixels of a side; other images are resized."""
    patch: int = Bounded(16, ge=2)
    """Pixels of a patch's side."""
    dim: int = Bounded(768, ge=4)
    """Width of the image encoder."""
    depth: int = Bounded(12, ge=1)
    """Its blocks."""
    heads: int = Bounded(12, ge=1)
    """Its attention heads."""
    mlp_ratio: float = Bounded(4.0, gt=0)
    """Width of its feed-forward part, in multiples of `dim`."""
    cls_token: bool = True
    """A class token, which takes part in attention."""
    positions: Literal["sincos", "learned"] = "sincos"
    """Positions of patches: fixed 2-D sine-cosine, or learned (in fine-tuning, on from the fixed ones)."""
    drop_path: float = Bounded(0.0, ge=0, lt=1)
    """Stochastic depth of the last block; it grows linearly from the first (0.1 in fine-tuning, usually)."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.image_size % self.patch:
            near = max(self.patch, round(self.image_size / self.patch) * self.patch)
            yield f"{where}.image_size: {self.image_size} is not a multiple of the patch ({where}.patch={self.patch}); use {near}"
        if self.dim % self.heads:
            yield f"{where}.dim: {self.dim} is not a multiple of {where}.heads ({self.heads}); make it one"
        if self.positions == "sincos" and self.dim % 4:
            yield f"{where}.dim: {self.dim} is not a multiple of 4, which {where}.positions=sincos needs"

    def build(self) -> ViT:
        """The encoder, its weights loaded where a file is given.

        Raises:
            MethodError: sizes that do not divide, or a file that does not fit.
        """
        vit = self.started()
        if self.init == "file":
            vit.load_file(str(self.init_file))
        return vit

    def started(self) -> ViT:
        """With random weights."""
        return ViT(
            self.image_size,
            self.patch,
            dim=self.dim,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            cls_token=self.cls_token,
            positions=self.positions,
            drop_path=self.drop_path,
        )


class PatchEmbed(nn.Module):
    """Images [B, C, H, W] -> patches [B, P, D], row by row, by one strided convolution."""

    def __init__(self, patch: int, channels: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, stride=patch)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.proj(x_BCHW).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """Images [B, C, H, W] -> normalised tokens [B, L, D]; the class token, if any, first.

    Args:
        img_size: pixels of a side, or (height, width).
        positions: fixed 2-D sine-cosine (a buffer; none for the class token), learned, or none (zeros); all saved as `pos_embed`.
        drop_path: rate of the last block; it grows linearly from 0 at the first.

    Raises:
        MethodError: sizes that do not divide.
    """

    pos_embed: Tensor

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch: int = 16,
        *,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        cls_token: bool = True,
        positions: Literal["sincos", "learned", "none"] = "sincos",
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        channels: int = 3,
    ):
        super().__init__()
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else img_size
        if problems := _problems(self.img_size, patch, dim, heads, positions):
            raise MethodError(problems)
        self.patch, self.dim = patch, dim
        self.grid = (self.img_size[0] // patch, self.img_size[1] // patch)
        self.patch_embed = PatchEmbed(patch, channels, dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim)) if cls_token else None
        self.extra = 1 if cls_token else 0
        self.rel_pos_bias: SharedBias | None = None
        self.other_sizes: float | None = None  # of images: refused, or taken, positions `carried` with this offset
        self._make_positions(positions)
        rates = [drop_path * i / max(1, depth - 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, qkv_bias, r) for r in rates)
        self.norm: nn.Module = nn.LayerNorm(dim, eps=EPS)
        self._register_state_dict_hook(note_grid)
        self._initialise()

    def _make_positions(self, kind: str) -> None:
        if kind == "learned":
            self.pos_embed = nn.Parameter(torch.randn(1, self.extra + self.patches, self.dim) * 0.02)
        elif kind == "none":
            # Zeros, so that a fine-tune with learned positions goes on from them.
            self.register_buffer("pos_embed", torch.zeros(1, self.extra + self.patches, self.dim))
        else:
            self.register_buffer("pos_embed", F.pad(sincos_2d(*self.grid, self.dim), (0, 0, self.extra, 0))[None])

    def _initialise(self) -> None:
        """As MAE: Xavier-uniform matrices (the patch convolution as one of them), zero biases, class token N(0, 0.02)."""
        for m in self.modules():
            if isinstance(m, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(m.weight.data.view(len(m.weight), -1))
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)

    @property
    def patches(self) -> int:
        return self.grid[0] * self.grid[1]

    # What every image encoder can be asked (models/contract/image_encoder.py).

    @property
    def image_size(self) -> tuple[int, int]:
        return self.img_size

    @property
    def width(self) -> int:
        return self.dim

    @property
    def strides(self) -> tuple[int, ...]:
        return (self.patch,) * 4

    @property
    def channels(self) -> tuple[int, ...]:
        return (self.dim,) * 4

    def tokens(self, x_BCHW: Tensor) -> Tensor:
        """Normalised tokens [B, L, D], the class token first if there is one."""
        return self(x_BCHW)

    def maps(self, x_BCHW: Tensor, n: int = 4) -> list[Tensor]:
        """Patch tokens after a third, half, two thirds and all of the blocks as maps [B, D, rows, columns]; the `n` deepest of these."""
        assert 1 <= n <= 4, f"a ViT has 4 maps, not {n}"
        return list(self.tokens_and_maps(x_BCHW, n)[1])

    def tokens_and_maps(self, x_BCHW: Tensor, n: int = 4) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Normalised tokens, and maps: of one pass."""
        features = self.features(x_BCHW, pyramid_blocks(len(self.blocks))[-n:])
        return features[-1], tuple(x[:, self.extra :].transpose(1, 2).unflatten(2, self.grid) for x in features)

    def tokens_and_class_row(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised tokens [B, L, D], and what the class token gives to each patch in the last block, [B, P], without gradient."""
        assert self.extra, "no class token"
        assert self.plain, "relative positions are not looked at here"
        x_BLD = self.embed(x_BCHW)
        for block in self.blocks[:-1]:
            x_BLD = block(x_BLD)
        last: Any = self.blocks[-1]
        with torch.no_grad():
            row_BP = last.attn.class_row(last.norm1(x_BLD))[:, self.extra :]
        return self.norm(last(x_BLD)), row_BP

    def layers(self) -> list[tuple[str, ...]]:
        """What comes before the blocks, then block by block; the last norm goes with the last block."""
        blocks = [(f"blocks.{i}.",) for i in range(len(self.blocks))]
        return [("patch_embed.", "cls_token", "pos_embed", "rel_pos_bias."), *blocks[:-1], (*blocks[-1], "norm.")]

    def load_file(self, path: str | Path) -> Loaded:
        """A timm or MAE file of the same sizes: see `load_weights`."""
        return self.load_weights(path)

    def add_parts(
        self, relative_positions: bool = False, layer_scale: float | None = None, last_norm: bool = True
    ) -> None:
        """Weights for fine-tuning that pre-training has not, in every block (BEiT's; Bao et al. 2022); or without the last norm.

        relative_positions: a bias of attention, 0 at first; where all blocks shared one (`share_bias`), each goes on with a copy of it.
        layer_scale: first value of a factor on both branches. With 1.0, or None for no such factor, the encoder's function is at
            first exactly what it was. A factor that was pre-trained stays as it is.
        last_norm: False leaves it out, weights and all.
        """
        if not last_norm:
            self.norm = nn.Identity()
        block: Any
        shared, self.rel_pos_bias = self.rel_pos_bias, None if relative_positions else self.rel_pos_bias
        for block in self.blocks:
            if relative_positions:
                block.attn.add_relative_positions(self.grid, self.extra)
            if relative_positions and shared is not None:
                block.attn.relative_position_bias_table.data.copy_(shared.relative_position_bias_table.data)
            if layer_scale is not None and isinstance(block.ls1, nn.Identity):
                block.ls1, block.ls2 = (LayerScale(self.dim, layer_scale) for _ in range(2))

    def share_bias(self) -> None:
        """From now on one bias of attention for every offset of two patches, the same in all blocks; 0 at first."""
        block: Any = self.blocks[0]
        self.rel_pos_bias = SharedBias(self.grid, self.extra, block.attn.heads)

    @property
    def plain(self) -> bool:
        """Whether no parts were added."""
        block: Any = self.blocks[0]
        biases = (block.attn.relative_position_bias_table, self.rel_pos_bias)
        return biases == (None, None) and isinstance(block.ls1, nn.Identity)

    def _bias(self) -> Tensor | None:
        return None if self.rel_pos_bias is None else self.rel_pos_bias()

    def embed(self, x_BCHW: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        """Tokens with their positions before the first block, [B, L, D].

        keep_BK: indices of the patches to keep, in their order (MAE); None keeps all.
        """
        return self(x_BCHW, keep_BK, embed_only=True)

    def features(self, x_BCHW: Tensor, blocks: Sequence[int]) -> list[Tensor]:
        """Tokens [B, L, D] after each of `blocks` (counted from 1; repeats allowed), for decoders that take several depths.

        Those of the last block are normed, as `forward` returns them; the others are what the next block gets. Blocks
        above the largest asked for are not run.
        """
        taps, depth = tuple(sorted(set(blocks))), len(self.blocks)
        assert set(taps) <= set(range(1, depth + 1)), f"features of blocks {taps}: there are 1 to {depth}"
        made = dict(zip(taps, self(x_BCHW, taps=taps), strict=True)) if taps else {}
        return [made[b] for b in blocks]

    def _tapped(self, x_BLD: Tensor, taps: tuple[int, ...]) -> tuple[Tensor, ...]:
        made, bias = list[Tensor](), self._bias()
        for i, block in enumerate(self.blocks[: taps[-1]], 1):
            x_BLD = block(x_BLD, bias)
            if i in taps:
                made.append(self.norm(x_BLD) if i == len(self.blocks) else x_BLD)
        return tuple(made)

    def forward(
        self,
        x: Tensor,
        keep_BK: Tensor | None = None,
        embed_only: bool = False,
        taps: tuple[int, ...] = (),
        unplaced: bool = False,
        real_BL: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Takes images [B, C, H, W], or tokens [B, L, D] as `embed` made them; `taps` is what `features` asks for. `unplaced`: tokens are
        those of `patch_embed` [B, P, D], some of them replaced, say; positions and class token are still to come. `real_BL`: True where
        a token is real; the others are looked at by nobody.

        All uses of the class token and the positions lie in this forward, where sharded weights are whole.
        """
        x_BLD = self._tokens(x, keep_BK) if x.ndim == 4 else self._placed(x, keep_BK) if unplaced else x
        if embed_only:
            return x_BLD
        if taps:
            return self._tapped(x_BLD, taps)
        assert real_BL is None or self.plain, "relative positions are for whole images"
        bias = self._bias() if real_BL is None else real_BL[:, None, None]
        for block in self.blocks:
            x_BLD = block(x_BLD, bias)
        return self.norm(x_BLD)

    def _tokens(self, x_BCHW: Tensor, keep_BK: Tensor | None) -> Tensor:
        H, W = x_BCHW.shape[2:]
        assert self.img_size == (H, W) or self.other_sizes is not None, f"images of {H, W}, built for {self.img_size}"
        return self._placed(self.patch_embed(x_BCHW), keep_BK, (H // self.patch, W // self.patch))

    def _placed(self, x_BPD: Tensor, keep_BK: Tensor | None, grid: Grid | None = None) -> Tensor:
        x_BPD = x_BPD + carried(self.pos_embed[:, self.extra :], self.grid, grid, self.other_sizes or 0).to(x_BPD.dtype)
        if keep_BK is not None:
            assert self.plain, "relative positions are for whole images"
            x_BPD = x_BPD.gather(1, keep_BK[..., None].expand(-1, -1, self.dim))
        if self.cls_token is None:
            return x_BPD
        cls_11D = self.cls_token + self.pos_embed[:, :1].to(x_BPD.dtype)
        return torch.cat([cls_11D.expand(len(x_BPD), -1, -1), x_BPD], 1)

    def load_weights(self, path: str | Path, skip: Sequence[str] = NOT_ENCODER) -> Loaded:
        """Loads a timm or MAE file; positions of another grid are interpolated, a class token without a place is skipped.

        Raises:
            MethodError: the file is not readable, or a list of every name and shape that did not match.
        """
        state = read_weights(path)
        own = {n: v for n, v in state.items() if not n.startswith(tuple(skip))}
        rest = tuple(n for n in state if n not in own)
        if self.cls_token is None:
            rest += ("cls_token",) if own.pop("cls_token", None) is not None else ()
        if "pos_embed" in own and own["pos_embed"].ndim == 3:
            own["pos_embed"] = self.fitted_positions(own["pos_embed"], state.grids.get(""), str(path))
        return Loaded(str(path), load_strict(self, own, str(path)).taken, rest)

    def fitted_positions(
        self, places_1LD: Tensor, known: tuple[int, int] | None = None, where: str = "the weights"
    ) -> Tensor:
        """A file's positions on this model's grid: see models/encoders/positions.py."""
        return fitted(places_1LD, self.grid, self.extra, known, where)


def pyramid_blocks(depth: int) -> tuple[int, int, int, int]:
    """Blocks (counted from 1) whose tokens make a pyramid: after 1/3, 1/2, 2/3 and all of them; 4, 6, 8, 12 of 12."""
    third, half, two_thirds = (max(1, math.floor(depth * share + 0.5)) for share in (1 / 3, 1 / 2, 2 / 3))
    return third, half, two_thirds, depth


def fit_positions(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the positions of a ViT in `model` that sees images of another size interpolated to its grid, a shared bias too.

    A decoder's positions are fixed, so those of `model` stand in for them.
    """
    changed, grids = dict(state), getattr(state, "grids", None) or grids_in(state)
    for name, own in model.state_dict().items():
        if not name.endswith("pos_embed") or name not in state:
            continue
        at = name.rpartition(".")[0]
        module, known = model.get_submodule(at), grids.get(at)
        if isinstance(module, ViT) and (state[name].shape != own.shape or known not in (None, module.grid)):
            changed[name] = module.fitted_positions(state[name], known, name)
        elif not isinstance(module, ViT) and state[name].shape != own.shape:
            changed[name] = own
    for at, module in model.named_modules():
        name = f"{at}.{SHARED}".lstrip(".")
        if isinstance(module, ViT) and module.rel_pos_bias is not None and name in state:
            changed[name] = _fitted_bias(module, state[name], grids.get(at))
    return changed


def _fitted_bias(vit: ViT, table_TH: Tensor, known: tuple[int, int] | None) -> Tensor:
    """A file that does not say its grid, and whose table is of another one, is of square images."""
    own, extra = vit.grid, vit.extra
    if known is None and len(table_TH) != table_size(own, extra):
        side = (math.isqrt(len(table_TH) - 3 * extra) + 1) // 2
        known = (side, side)
    return table_TH if known in (None, own) else fitted_table(table_TH, known, own, extra)


def _problems(img_size: tuple[int, int], patch: int, dim: int, heads: int, positions: str) -> list[str]:
    problems = []
    if img_size[0] % patch or img_size[1] % patch:
        near = max(patch, round(img_size[0] / patch) * patch)
        problems.append(f"image size {img_size} is not a multiple of the patch ({patch}); use {near}")
    if dim % heads:
        problems.append(f"ViT width {dim} is not a multiple of its {heads} heads")
    if positions == "sincos" and dim % 4:
        problems.append(f"ViT width {dim} is not a multiple of 4, which 2-D sin-cos positions need")
    return problems
