"""A WordPiece vocabulary from the reports of a data set's training split, stored as the vocabulary of the text field.

Training is the `tokenizers` library's. It numbers the pieces "##x" in the order of a hash table, so they are given to it
sorted; then the same reports make the same vocabulary, in any order of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shards.errors import bad
from shards.format.info import load_info, save_info, write_atomic
from shards.format.seal import hash_files, vocab_problems, write_vocab
from shards.format.staging import disk_errors, rewriting, settle

if TYPE_CHECKING:
    from shards.format.info import DatasetInfo

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[MASK]")
SIZE = 30_000


def train_wordpiece(reports: Iterable[str], size: int = SIZE, where: str = "the reports") -> list[str]:
    """Tokens in id order: the four specials, pieces of one character, then merges, at most `size`.

    Text is put in lower case and NFKD, loses accents, and is split at white space, punctuation and runs of digits.

    Raises:
        DataError: no word in the reports, or `size` is too small for their characters.
    """
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece
    from tokenizers.trainers import WordPieceTrainer

    tokenizer = Tokenizer(WordPiece(unk_token=SPECIALS[1]))
    rules = [normalizers.Replace(Regex(r"\p{Cc}"), " "), normalizers.NFKD(), normalizers.Lowercase()]
    normalise = normalizers.Sequence([*rules, normalizers.StripAccents()])
    split = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False)])
    tokenizer.pre_tokenizer = split
    texts = [normalise.normalize_str(text) for text in reports]
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
    if not words:
        raise bad("there is no word in them", where, "give reports with text in the training split")
    inner = [f"##{c}" for c in sorted({c for word in words for c in word[1:]})]
    least = len(SPECIALS) + len({word[0] for word in words} | {c[2:] for c in inner}) + len(inner)
    if size < least:
        raise bad(
            f"{size} tokens are too few for their {least} characters and pieces", where, f"--size {least} or more"
        )
    trainer = WordPieceTrainer(vocab_size=size, special_tokens=[*SPECIALS, *inner], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)


def training_reports(folder: Path, field: str) -> list[str]:
    """All reports of the training split.

    Raises:
        DataError: no such text field, or no training split.
    """
    from shards.read.dataset import Dataset

    with Dataset.open(folder) as data:
        known = data.info.fields.get(field)
        if known is None or known.kind != "text":
            has = ", ".join(n for n, f in data.info.fields.items() if f.kind == "text") or "none"
            raise bad(f"no text field '{field}' (text fields: {has})", folder, "name one with --field")
        records = (data[int(i)] for i in data.subset("train").indices)
        return [r.read(field) for r in records if r.has(field)]


def add_tokenizer(
    folder: Path, field: str = "report", size: int = SIZE, out: Path | None = None, overwrite: bool = False
) -> tuple[list[str], DatasetInfo]:
    """Trains a vocabulary and stores it: in `out`, or sealed into the data set as vocab/FIELD.txt (a new fingerprint).

    Raises:
        DataError: no such field, no words, or the field has a vocabulary already.
    """
    settle(folder)
    info = load_info(folder)
    if out is None and field in info.fields and info.fields[field].vocab and not overwrite:
        fix = "give --overwrite to replace it (weights trained with it will be refused), or --out FILE"
        raise bad(f"field '{field}' has a vocabulary", folder, fix)
    words = train_wordpiece(training_reports(folder, field), size, f"{folder}, field '{field}'")
    if out is not None:
        with disk_errors(out, "nothing was written"):
            write_atomic(out, "".join(f"{w}\n" for w in words).encode())
        return words, info
    return words, seal_vocabulary(folder, field, words)


def seal_vocabulary(folder: Path, field: str, words: Sequence[str]) -> DatasetInfo:
    """Writes vocab/FIELD.txt and a dataset.json that knows it."""
    assert not vocab_problems(field, words), f"a vocabulary of '{field}' with empty or repeated entries"
    with rewriting(folder) as staging:
        info = load_info(staging)
        sha256 = write_vocab(staging, {field: words})[field]
        known = info.fields[field].model_copy(update={"vocab": f"vocab/{field}.txt", "vocab_sha256": sha256})
        update = {"fields": {**info.fields, field: known}, "files": hash_files(staging)}
        return save_info(staging, info.model_copy(update=update))
