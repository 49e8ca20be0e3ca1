"""A text encoder with the parameter names of Hugging Face's BERT (Devlin et al. 2019, arXiv 1810.04805): its files load as they are.

Norms stand behind the residual sums, eps 1e-12; GELU is exact; positions are learned; every token is of segment 0. A file of ClinicalBERT,
CXR-BERT or any other BERT of the same sizes is read by name, and what does not match is refused.

Shape letters: B texts, L token places, D width, H heads, E width of a head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import MethodError, Options
from models.contract.loaded import Loaded
from models.contract.start_files import StartFile
from models.init.weights import load_strict, read_weights
from models.layers.attention import attention, merge_heads, split_heads
from models.layers.checkpointing import checkpointed

EPS = 1e-12
SEGMENTS = 2
PREFIX = "bert."
OWN = "text."  # in the weights of a run whose text encoder it is
# What files of a BERT hold beside the encoder: heads of language models, CXR-BERT's projection, and 0, 1, 2, ... as a buffer.
BESIDE = ("cls.", "cls_projection_head.")
COUNTERS = ("embeddings.position_ids", "embeddings.token_type_ids")
POOLER = "pooler."
VOCABULARY = "tokenizer_sha256"
ROWS = "embeddings.word_embeddings.weight"


class BertOptions(Options):
    """Of the text encoder; BERT-base where nothing is said."""

    dim: int = Bounded(768, ge=4)
    """Width of the text encoder."""
    depth: int = Bounded(12, ge=1)
    """Its layers."""
    heads: int = Bounded(12, ge=1)
    """Its attention heads."""
    inner: int | None = Bounded(None, ge=1)
    """Width of its feed-forward part; null: four times `dim`."""
    places: int | None = Bounded(None, ge=3)
    """Rows of its table of positions; null: as many as a text may have tokens. Files of BERT have 512."""
    positions: Literal["learned", "none"] = "learned"
    """A position each, or all tokens at the first one: a bag of words."""
    dropout: float = Bounded(0.1, ge=0, lt=1)
    """Dropout of tokens, of layers' outputs and of attention."""
    freeze_layers: int | None = Bounded(None, ge=0)
    """Embeddings and so many layers from the bottom keep their first weights in pre-training; null: nothing does, 0: the embeddings."""
    init: Literal["scratch", "file"] = "scratch"
    """First weights: random, or those of `init_file`."""
    init_file: StartFile = None
    """The file for `init: file`: a BERT of the same sizes and vocabulary, .safetensors or .bin (read without running code). Give its
    vocabulary as `method.tokenizer`."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if self.dim % self.heads:
            yield f"{where}.dim: {self.dim} is not a multiple of {where}.heads ({self.heads}); make it one"
        if self.freeze_layers is not None and self.freeze_layers > self.depth:
            yield f"{where}.freeze_layers: {self.freeze_layers} of {where}.depth={self.depth} layers; give at most {self.depth}"
        if (self.init == "file") != (self.init_file is not None):
            yield f"{where}.init=file and {where}.init_file=FILE go together; give both or neither"

    def build(
        self,
        vocabulary: int,
        length: int,
        sha256: str | None = None,
        pooler: bool = False,
        new_pooler: bool = False,
    ) -> ReportBert:
        """The encoder, its weights loaded where a file is given.

        Args:
            vocabulary: rows of the word table.
            length: tokens that a text may have.
            sha256: of the vocabulary; a file that says another one is refused.
            new_pooler: the pooler is not read from the file.

        Raises:
            MethodError: fewer places than tokens, or a file that does not fit.
        """
        places = length if self.places is None else self.places
        if places < length:
            raise MethodError(
                [f"text.places: {places} positions for texts of {length} tokens; give {length}, or shorter texts"]
            )
        bert = ReportBert(
            vocabulary,
            places=places,
            dim=self.dim,
            depth=self.depth,
            heads=self.heads,
            inner=self.inner or 4 * self.dim,
            dropout=self.dropout,
            placed=self.positions == "learned",
            pooler=pooler,
        )
        if self.init == "file":
            bert.load_file(str(self.init_file), sha256, new_pooler)
        return bert


class WordTable(nn.Embedding):
    """Words by their ids; or, of vectors [..., D], the product of each with every word [..., V]."""

    def forward(self, input: Tensor) -> Tensor:  # the base class's name of it
        return F.linear(input, self.weight) if input.is_floating_point() else super().forward(input)


class BertEmbeddings(nn.Module):
    """Words, their places and segment 0, normalised; ids [B, L] -> [B, L, D]."""

    def __init__(self, vocabulary: int, places: int, dim: int, dropout: float, placed: bool):
        super().__init__()
        self.word_embeddings = WordTable(vocabulary, dim, padding_idx=0)
        self.position_embeddings = nn.Embedding(places, dim)
        self.token_type_embeddings = nn.Embedding(SEGMENTS, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=EPS)
        self.dropout, self.placed = nn.Dropout(dropout), placed

    def forward(self, ids_BL: Tensor) -> Tensor:
        place_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        place_L = place_L if self.placed else torch.zeros_like(place_L)
        segment_1 = torch.zeros_like(place_L[:1])
        x_BLD = self.word_embeddings(ids_BL) + self.token_type_embeddings(segment_1) + self.position_embeddings(place_L)
        return self.dropout(self.LayerNorm(x_BLD))


class BertSelf(nn.Module):
    """The three projections of attention, and attention itself."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.heads, self.dropout = heads, dropout

    def forward(
        self, x_BLD: Tensor, real_BS: Tensor, weights: bool = False, other_BSD: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What each token has gathered, [B, L, D]; if asked for, by which weights, [B, H, L, S] float32 before dropout.

        other_BSD: tokens that are looked at in place of its own, of which `real_BS` are real.
        """
        seen_BSD = x_BLD if other_BSD is None else other_BSD
        q, k, v = (split_heads(y, self.heads) for y in (self.query(x_BLD), self.key(seen_BSD), self.value(seen_BSD)))
        dropout = self.dropout if self.training else 0.0
        if not weights:
            return merge_heads(attention(q, k, v, real_BS[:, None, None], dropout)), None
        # Only here does the matrix of weights exist: the kernels of `attention` never make it.
        logits_BHLS = (q @ k.mT).float() / math.sqrt(q.shape[-1])
        share_BHLS = logits_BHLS.masked_fill(~real_BS[:, None, None], torch.finfo(torch.float32).min).softmax(-1)
        return merge_heads(F.dropout(share_BHLS, dropout).to(v.dtype) @ v), share_BHLS


class BertSum(nn.Module):
    """LN(dense(x) + what it is added to): the end of both halves of a layer."""

    def __init__(self, width: int, dim: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(width, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLC: Tensor, before_BLD: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x_BLC)) + before_BLD)


class BertLayer(nn.Module):
    """LN(x + attention(x)), then LN(x + W2 GELU(W1 x)), under Hugging Face's names."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.attention = nn.ModuleDict({"self": BertSelf(dim, heads, dropout), "output": BertSum(dim, dim, dropout)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, inner)})
        self.output = BertSum(inner, dim, dropout)

    def forward(self, x_BLD: Tensor, real_BL: Tensor, weights: bool = False) -> tuple[Tensor, Tensor | None]:
        return checkpointed(self._forward, x_BLD, real_BL, weights)

    def _forward(self, x_BLD: Tensor, real_BL: Tensor, weights: bool) -> tuple[Tensor, Tensor | None]:
        seen_BLD, share_BHLL = self.attention["self"](x_BLD, real_BL, weights)
        x_BLD = self.attention["output"](seen_BLD, x_BLD)
        return self.output(F.gelu(self.intermediate["dense"](x_BLD)), x_BLD), share_BHLL


class BertPooler(nn.Module):
    """tanh(dense([CLS])), [B, L, D] -> [B, D]."""

    def __init__(self, dim: int):
        super().__init__()
        self.dense = nn.Linear(dim, dim)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return torch.tanh(self.dense(x_BLD[:, 0]))


class ReportBert(nn.Module):
    """Ids [B, L] -> vectors of tokens; names and numbers of transformers' `BertModel`.

    Args:
        vocabulary: rows of the word table.
        places: rows of the table of positions.
        placed: False gives every token the first position.
        pooler: with tanh(Linear) of [CLS]; most systems have no use for it.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        places: int = 512,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        inner: int = 3072,
        dropout: float = 0.1,
        placed: bool = True,
        pooler: bool = False,
    ):
        super().__init__()
        self.width, self.vocabulary, self.inner = dim, vocabulary, inner
        self.embeddings = BertEmbeddings(vocabulary, places, dim, dropout, placed)
        layers = nn.ModuleList(BertLayer(dim, heads, inner, dropout) for _ in range(depth))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.pooler = BertPooler(dim) if pooler else None
        self._initialise()

    def _initialise(self) -> None:
        """N(0, 0.02), biases and the padding's row 0."""
        for m in self.modules():
            if isinstance(m, nn.Linear | nn.Embedding):
                nn.init.normal_(m.weight, std=0.02)
            if isinstance(m, nn.Linear):
                nn.init.zeros_(m.bias)
        nn.init.zeros_(self.embeddings.word_embeddings.weight.data[0])

    @property
    def depth(self) -> int:
        return len(self._layers())

    def _layers(self) -> list[nn.Module]:
        blocks = self.encoder["layer"]
        assert isinstance(blocks, nn.ModuleList)
        return list(blocks)

    def forward(
        self, ids_BL: Tensor, real_BL: Tensor, last: int = 1, weights: bool = False
    ) -> dict[str, list[Tensor] | Tensor | None]:
        """`hidden`: the last so many of [embeddings, layer 1, ..., layer N], each [B, L, D], the top one last; `weights` [B, H, L, L] of
        the last layer's attention if asked for; `pooled` [B, D] where there is a pooler.

        real_BL: True where a token is real. A text without any would look at all places alike: give it [CLS] and an end at least.
        """
        assert 1 <= last <= self.depth + 1, f"{last} hidden states of {self.depth + 1}"
        hidden, share_BHLL = [self.embeddings(ids_BL)], None
        for i, layer in enumerate(self._layers(), 1):
            x_BLD, share_BHLL = layer(hidden[-1], real_BL, weights and i == self.depth)
            hidden = [*hidden, x_BLD][-last:]
        pooled_BD = None if self.pooler is None else self.pooler(hidden[-1])
        return {"hidden": hidden, "weights": share_BHLL, "pooled": pooled_BD}

    @property
    def words(self) -> WordTable:
        return self.embeddings.word_embeddings

    def bottom(self, layers: int) -> list[nn.Parameter]:
        """Parameters of the embeddings and of so many layers above them: what a loaded encoder keeps."""
        return [p for m in (self.embeddings, *self._layers()[:layers]) for p in m.parameters()]

    def load_file(self, path: str | Path, sha256: str | None = None, new_pooler: bool = False) -> Loaded:
        """A BERT's file, its names with `bert.` in front or without, or the weights of a run whose text encoder it is; language models'
        heads and counters are left out, and all else of a run.

        A pooler is left out where this encoder has none, or a new one (`new_pooler`); else it must be there.

        Raises:
            MethodError: not readable, word vectors of another vocabulary, or everything that did not match by name.
        """
        found = read_weights(path)
        state, beside = _own_names(found, self.pooler is not None and not new_pooler)
        problems = _vocabulary_problems(str(path), found, state, self.vocabulary, sha256)
        if problems:
            raise MethodError(problems)
        if self.pooler is not None and new_pooler:
            state |= {f"{POOLER}{n}": v for n, v in self.pooler.state_dict().items()}
        try:
            return Loaded(str(path), load_strict(self, state, str(path)).taken, beside)
        except MethodError as e:
            raise MethodError([*e.problems, *_remedies(self, state)]) from e


def _own_names(found: Mapping[str, Tensor], pooler: bool) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The file's tensors by this encoder's names, and what in it is no part of an encoder."""
    prefix = next((p for p in (PREFIX, OWN) if any(n.startswith(f"{p}embeddings.") for n in found)), "")
    state: dict[str, Tensor] = {}
    beside = []
    for name, value in found.items():
        if prefix == OWN and not name.startswith(OWN):
            beside.append(name)
            continue
        short = name.removeprefix(prefix)
        skipped = (*BESIDE, *COUNTERS, VOCABULARY, *(() if pooler else (POOLER,)))
        if short.startswith(skipped):
            beside.append(name)
        else:
            # Files of TensorFlow's time call a norm's weight and bias gamma and beta.
            old = short.endswith((".gamma", ".beta"))
            state[short.replace(".gamma", ".weight").replace(".beta", ".bias") if old else short] = value
    return state, tuple(beside)


def _vocabulary_problems(
    path: str, found: Mapping[str, Tensor], state: Mapping[str, Tensor], rows: int, sha256: str | None
) -> list[str]:
    """Word vectors mean nothing under another vocabulary, and only their number (and a hash, where we wrote the file) tells."""
    remedy = "set method.tokenizer to the vocabulary (vocab.txt) that the file was trained with"
    known = found.get(VOCABULARY)
    if known is not None and sha256 is not None:
        theirs = bytes(known.to(torch.uint8).tolist()).hex()
        if theirs != sha256:
            return [f"{path} belongs to the vocabulary {theirs[:12]}, these reports are cut by {sha256[:12]}; {remedy}"]
    table = state.get(ROWS)
    if table is not None and table.ndim == 2 and len(table) != rows:
        return [f"{path} has {len(table)} word vectors, the vocabulary of these reports {rows} entries; {remedy}"]
    return []


def _remedies(bert: ReportBert, state: Mapping[str, Tensor]) -> list[str]:
    """The options by which the sizes of the file are asked for."""
    found: list[str] = []
    table, places = state.get(ROWS), state.get("embeddings.position_embeddings.weight")
    if table is not None and table.ndim == 2 and table.shape[1] != bert.width:
        found.append(f"text.dim={table.shape[1]}")
    if places is not None and len(places) != bert.embeddings.position_embeddings.num_embeddings:
        found.append(f"text.places={len(places)}")
    layers = {n.split(".")[2] for n in state if n.startswith("encoder.layer.")}
    if layers and len(layers) != bert.depth:
        found.append(f"text.depth={len(layers)}")
    inner = state.get("encoder.layer.0.intermediate.dense.weight")
    if inner is not None and len(inner) != bert.inner:
        found.append(f"text.inner={len(inner)}")
    said = [f"the file's sizes are {' '.join(f'method.{f}' for f in found)}"] if found else []
    if bert.pooler is not None and not any(n.startswith(POOLER) for n in state):
        said.append("it has no pooler; give method.text_pooler=new for one that is learned")
    return said
