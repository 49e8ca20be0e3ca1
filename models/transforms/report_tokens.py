"""Reports as ids for a text encoder: [CLS], the words' pieces, an end token, padding; and which pieces make a word.

A vocabulary of medpair's has no [SEP]: the end token is then one past its last entry, for which the encoder has a row of its own, so that
vocabularies and their hashes stay what they are. A BERT's vocabulary (vocab.txt, in its order) brings its own.

Shape letters: L token places, V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from models.contract import MethodError, Schema
from models.transforms.text import CONTINUES, LONGEST_WORD, SPECIALS, ReportTokenizer, tokenizer_of

BERTS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD = 0


class BertVocabulary:
    """Text to ids by the vocabulary of a BERT and BERT's own rules (Devlin et al. 2019); `sha256` is of both.

    Args:
        words: the vocabulary in id order.
        cased: capitals and accents are kept.

    Raises:
        MethodError: a special token is missing, [PAD] is not the first, or a word stands twice.
    """

    def __init__(self, words: Sequence[str], where: str, cased: bool):
        missing = [w for w in BERTS if w not in words]
        if missing or words[PAD] != BERTS[0] or len(set(words)) != len(words):
            what = f"lacks {', '.join(missing)}" if missing else f"starts with {words[PAD]}, or holds a word twice"
            raise MethodError([f"{where} is no vocabulary of a BERT: it {what}; give the vocab.txt of its file"])
        self.words = tuple(words)
        of = {w: i for i, w in enumerate(words)}
        self.unk, self.cls, self.sep, self.mask = (of[w] for w in BERTS[1:])
        self._tokenizer = Tokenizer(
            WordPiece(
                vocab=of,
                unk_token=BERTS[1],
                max_input_chars_per_word=LONGEST_WORD,
                continuing_subword_prefix=CONTINUES,
            )
        )
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.sha256 = hashlib.sha256(json.dumps([list(words), "bert", cased]).encode()).hexdigest()

    def ids(self, text: str) -> list[int]:
        """Ids of the text alone."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids


class ReportTokens:
    """What an encoder of reports needs to know of its vocabulary.

    rows      rows of its word table: the vocabulary's entries, and one for an end token that it lacks
    sha256    of the vocabulary and its rules
    pad, unk, cls, sep, mask   ids
    continues_V                whether an entry goes on with the word before it
    """

    pad = PAD

    def __init__(self, vocabulary: ReportTokenizer | BertVocabulary):
        self._vocabulary = vocabulary
        self.sha256 = vocabulary.sha256
        words = vocabulary.words
        self.rows = len(words)
        if isinstance(vocabulary, BertVocabulary):
            self.unk, self.cls, self.sep, self.mask = vocabulary.unk, vocabulary.cls, vocabulary.sep, vocabulary.mask
        else:
            self.unk, self.cls, self.mask = (SPECIALS.index(w) for w in ("[UNK]", "[CLS]", "[MASK]"))
            self.sep = len(words)
            self.rows += 1
        self.continues_V = np.array([*(w.startswith(CONTINUES) for w in words), False])

    def encode(self, text: str, length: int) -> tuple[np.ndarray, int]:
        """Ids int32 [length]: [CLS], the text, the end token, [PAD]s; and how many tokens the whole text has, without these.

        A longer text is cut; its end token stays.
        """
        ids = self._vocabulary.ids(text)
        kept = [self.cls, *ids[: length - 2], self.sep]
        out_L = np.full(length, self.pad, np.int32)
        out_L[: len(kept)] = kept
        return out_L, len(ids)

    def plain(self, text: str, length: int) -> tuple[np.ndarray, int]:
        """The same without [CLS] and end token."""
        ids = self._vocabulary.ids(text)
        out_L = np.full(length, self.pad, np.int32)
        out_L[: len(ids)] = ids[:length]
        return out_L, len(ids)

    def word_of_token(self, ids_L: np.ndarray) -> np.ndarray:
        """The word of each token, int32 [L]: counted from 0, which is [CLS] where there is one, the end token a word of its own; -1 for
        padding."""
        word_L = np.cumsum(~self.continues_V[ids_L], dtype=np.int32) - 1
        return np.where(ids_L == self.pad, np.int32(-1), word_L)


def tokens_of(schema: Schema, field: str, file: str | None, cased: bool = False) -> ReportTokens:
    """Tokens by the vocabulary in `file` (medpair's own, a tokenizers .json, or a BERT's vocab.txt), or by the data set's.

    cased: of a BERT's vocabulary, whether its words keep capitals and accents.

    Raises:
        MethodError: no vocabulary, or one that cannot be used; what to do is said.
    """
    if file is not None and not file.endswith(".json"):
        schema.need(field)
        try:
            words = [w.rstrip("\r") for w in Path(file).read_text(encoding="utf-8").split("\n") if w]
        except (OSError, ValueError) as e:
            raise MethodError([f"method.tokenizer={file}: cannot be read ({e})"]) from e
        if tuple(words[: len(SPECIALS)]) != SPECIALS:
            return ReportTokens(BertVocabulary(words, f"method.tokenizer={file}", cased))
    if cased:
        raise MethodError(["method.cased=true goes with a BERT's vocab.txt as method.tokenizer; give that, or drop it"])
    return ReportTokens(tokenizer_of(schema, field, file))


def text_number(ids_L: np.ndarray) -> np.ndarray:
    """A number a text, int64 [], the same on every machine: equal ids have equal ones."""
    digest = hashlib.blake2b(np.ascontiguousarray(ids_L, "<i4").tobytes(), digest_size=8).digest()
    return np.array(int.from_bytes(digest, "little", signed=True), np.int64)
