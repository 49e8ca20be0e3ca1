"""Reports as token ids: WordPiece (Wu et al. 2016) by the `tokenizers` library, and whole-word masking.

A vocabulary's first four entries are [PAD], [UNK], [CLS], [MASK]. They are ids, not text: a report that contains the
characters "[MASK]" is cut into brackets and a word like any other.

Shape letters: L token places, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from torch import Tensor

from models.contract import MethodError, Schema

PAD, UNK, CLS, MASK = range(4)
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[MASK]")
CONTINUES = "##"
LONGEST_WORD = 100  # characters; a longer one is [UNK]


class ReportTokenizer:
    """Text to ids. `sha256` identifies vocabulary and text rules together: weights belong to one of them.

    Args:
        words: the vocabulary in id order.
        rules: normaliser and pre-tokeniser as the `tokenizers` library writes them; None for ours (lower case, NFKD,
            no accents, split at white space, punctuation and runs of digits).

    Raises:
        MethodError: the specials are not the first four, a word stands twice, or the rules cannot be read.
    """

    def __init__(self, words: Sequence[str], where: str, rules: Mapping[str, Any] | None = None):
        if problems := _vocabulary_problems(words, where):
            raise MethodError(problems)
        self.words = tuple(words)
        model = WordPiece(
            vocab={w: i for i, w in enumerate(words)},
            unk_token=SPECIALS[UNK],
            max_input_chars_per_word=LONGEST_WORD,
            continuing_subword_prefix=CONTINUES,
        )
        self._tokenizer = Tokenizer(model)
        self._tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Replace(Regex(r"\p{Cc}"), " "),
                normalizers.NFKD(),
                normalizers.Lowercase(),
                normalizers.StripAccents(),
            ]
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False)]
        )
        if rules is not None:
            self._take_rules(rules, where)
        self.continues_V = np.array([w.startswith(CONTINUES) for w in words])
        spec = json.loads(self._tokenizer.to_str())
        content = json.dumps([words, spec["normalizer"], spec["pre_tokenizer"]], sort_keys=True)
        self.sha256 = hashlib.sha256(content.encode()).hexdigest()

    def _take_rules(self, rules: Mapping[str, Any], where: str) -> None:
        spec = json.loads(self._tokenizer.to_str())
        # Added tokens, templates and truncation are left out: they would find special tokens in the text.
        spec |= {k: rules[k] for k in ("normalizer", "pre_tokenizer") if k in rules}
        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(spec))
        except Exception as e:  # the library raises bare exceptions
            raise MethodError([f"{where}: its text rules cannot be read ({e})"]) from e

    def __len__(self) -> int:
        return len(self.words)

    def ids(self, text: str) -> list[int]:
        """Ids of the text alone."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode(self, text: str, length: int) -> tuple[np.ndarray, int]:
        """Ids int32 [length]: [CLS], the text, [PAD]s; and how many tokens the whole text has (without [CLS])."""
        ids = self.ids(text)
        out_L = np.full(length, PAD, np.int32)
        out_L[0] = CLS
        kept = ids[: length - 1]
        out_L[1 : 1 + len(kept)] = kept
        return out_L, len(ids)


def _vocabulary_problems(words: Sequence[str], where: str) -> list[str]:
    if tuple(words[: len(SPECIALS)]) != SPECIALS:
        found = ", ".join(words[: len(SPECIALS)]) or "nothing"
        return [
            f"{where} is no WordPiece vocabulary of reports: it starts with {found}, not {', '.join(SPECIALS)}; "
            "make one with `python -m shards tokenizer DIR`"
        ]
    if len(words) == len(SPECIALS):
        return [f"{where} holds no words, only the special tokens; train it on reports"]
    twice = len(words) - len(set(words))
    return [f"{where}: {twice} entries stand twice; every token needs an id of its own"] if twice else []


def read_tokenizer(path: str | Path) -> ReportTokenizer:
    """A tokenizer from a vocabulary (text, one token a line) or from a `.json` of the `tokenizers` library.

    Raises:
        MethodError: not readable, not WordPiece, or not a vocabulary of reports.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return ReportTokenizer([w for w in text.split("\n") if w], str(path))
        spec = json.loads(text)
    except (OSError, ValueError) as e:
        raise MethodError([f"method.tokenizer={path}: cannot be read ({e})"]) from e
    model = spec.get("model", {}) if isinstance(spec, dict) else {}
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or model.get("continuing_subword_prefix", CONTINUES) != CONTINUES:
        raise MethodError([f"method.tokenizer={path}: holds no WordPiece model with '{CONTINUES}' pieces"])
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise MethodError([f"method.tokenizer={path}: its ids are not 0 to {len(vocabulary) - 1}"])
    return ReportTokenizer(sorted(vocabulary, key=vocabulary.__getitem__), str(path), spec)


def tokenizer_of(schema: Schema, field: str, file: str | None) -> ReportTokenizer:
    """The tokenizer in `file`, or else that of the data set's vocabulary of `field`.

    Raises:
        MethodError: neither; the command that makes one is named.
    """
    known = schema.need(field)
    if file is not None:
        return read_tokenizer(file)
    if known.vocabulary is None:
        raise MethodError(
            [
                f"field '{field}' of {schema.source} has no WordPiece vocabulary; make one from its training reports with "
                f"`python -m shards tokenizer {shlex.quote(schema.source)}`, or set method.tokenizer=FILE"
            ]
        )
    return ReportTokenizer(known.vocabulary, f"the vocabulary of '{field}' of {schema.source}")


def draw_report_mask(
    ids_L: np.ndarray,
    continues_V: np.ndarray,
    ratio: float,
    kind: Literal["whole_word", "token"],
    rng: np.random.Generator,
) -> np.ndarray:
    """Places to hide, bool [L]: each word (or each token) with probability `ratio`, all pieces of a word together.

    [CLS], the last place and padding are never hidden (spec of the published code: places 1 .. L - 2 up to the first
    [PAD]).
    """
    L = len(ids_L)
    drawn_L = rng.random(L) < ratio
    drawn_L[0] = False
    if kind == "whole_word":
        starts_L = ~continues_V[ids_L]
        drawn_L = drawn_L[np.maximum.accumulate(np.where(starts_L, np.arange(L), 0))]
    drawn_L &= ids_L != PAD
    drawn_L[-1] = False
    return drawn_L


class Reads(Protocol):
    """A method that reads reports."""

    @property
    def tokenizer(self) -> Vocabulary: ...


class Vocabulary(Protocol):
    """What cuts text into ids: its hash says which one it is."""

    @property
    def sha256(self) -> str: ...


def same_tokenizer(method: Reads, state: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    """Hook before `load_state_dict` of a method with a `tokenizer`: refuses word vectors of another one.

    Raises:
        MethodError: the stored `tokenizer_sha256` is not that of `method.tokenizer`.
    """
    theirs = state.get(f"{prefix}tokenizer_sha256")
    if theirs is None or theirs.is_meta:
        return
    stored = bytes(theirs.to(torch.uint8).tolist()).hex()
    if stored != method.tokenizer.sha256:
        raise MethodError(
            [
                f"the weights belong to the tokenizer {stored[:12]}, this data set's reports are cut by "
                f"{method.tokenizer.sha256[:12]}: set method.tokenizer to the vocabulary the weights were trained with"
            ]
        )
