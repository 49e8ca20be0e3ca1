"""Visual words of images: places that look alike in many images, found by `medpair words`, in a JSON file.

    {"format": "visual words 1", "split": "train", "words": 50, "data": ..., "encoder": ..., "images": {KEY: [[word, row, column], ...]}}

Row and column are the place's centre as shares of the image's centre square. The file of a run is an asset: its hash is kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.contract.errors import MethodError

FORMAT = "visual words 1"
SHOWN = 3


@dataclass(frozen=True)
class VisualWords:
    """How many words there are, and of each image, by its key, (word, row, column) of those found in it."""

    words: int
    images: dict[str, list[tuple[int, float, float]]]

    def draw(self, key: str, rng: np.random.Generator) -> tuple[int, float, float] | None:
        """One of an image's words; None: it has none."""
        found = self.images.get(key)
        return found[int(rng.integers(len(found)))] if found else None


@dataclass(frozen=True)
class Places:
    """Words that every image has: places drawn once, of all images alike."""

    row_column_W2: np.ndarray

    @property
    def words(self) -> int:
        return len(self.row_column_W2)

    def draw(self, key: str, rng: np.random.Generator) -> tuple[int, float, float] | None:
        word = int(rng.integers(self.words))
        row, column = self.row_column_W2[word]
        return word, float(row), float(column)


def drawn_places(count: int, margin: float, apart: float, rng: np.random.Generator) -> np.ndarray:
    """(row, column) of `count` places at least `margin` from the border and `apart` from each other, as shares of a side, [count, 2].

    Raises:
        MethodError: no room for so many.
    """
    found: list[np.ndarray] = []
    for _ in range(200 * count):
        if len(found) == count:
            break
        place = rng.uniform(margin, 1 - margin, 2)
        if all(np.hypot(*(place - other)) >= apart for other in found):
            found.append(place)
    if len(found) < count:
        raise MethodError(
            [f"no room for {count} words that are {apart:g} of a side apart; ask for fewer, or for less distance"]
        )
    return np.array(found)


def read_words(path: str | Path) -> VisualWords:
    """What `medpair words` wrote.

    Raises:
        MethodError: no such file, everything in it that is wrong; words that were not found on training images, which is a leak.
    """
    where = f"method.words_file: {path}"
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise MethodError([f"{where} is no file of visual words ({e}); make one with medpair words"]) from e
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        raise MethodError(
            [f"{where} is no file of visual words ('format' is not '{FORMAT}'); make one with medpair words"]
        )
    if problems := list(_problems(given)):
        raise MethodError([f"{where}: {p}" for p in problems])
    images = {k: [(int(w), float(r), float(c)) for w, r, c in v] for k, v in given["images"].items()}
    return VisualWords(given["words"], images)


def _problems(given: dict[str, object]) -> Iterator[str]:
    if (split := given.get("split")) != "train":
        yield f"words were found on images of split {split!r}, not 'train': held-back images would be learned from; find them on 'train'"
    words, images = given.get("words"), given.get("images")
    if not isinstance(words, int) or isinstance(words, bool) or words < 2:
        yield f"'words' is {words!r}, not a number of at least 2"
        return
    if not isinstance(images, dict) or not images:
        yield "'images' is no mapping of keys to words"
        return
    wrong = {k: kind for k, v in images.items() if (kind := _wrong(v, words))}
    for kind, count in Counter(wrong.values()).items():
        few = ", ".join([k for k, v in wrong.items() if v == kind][:SHOWN])
        yield f"{count} of {len(images)} images {kind} ({few}); find the words anew"


def _wrong(found: object, words: int) -> str:
    if not isinstance(found, list) or not found:
        return "have no list of words"
    for each in found:
        if not isinstance(each, list) or len(each) != 3 or not all(type(x) in (int, float) for x in each):
            return "have something else than [word, row, column]"
        if each[0] != int(each[0]) or not 0 <= each[0] < words:
            return f"have a word that is none of 0 to {words - 1}"
        if not all(0 <= x <= 1 for x in each[1:]):
            return "have a place outside 0 to 1"
    return ""
