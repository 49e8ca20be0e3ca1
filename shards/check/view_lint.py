"""What lint says of numbered images of a sample (`image`, `image_2`, `image_3`): gaps between them, and one file that stands twice."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from shards.errors import Problem
from shards.format.info import DatasetInfo

_NUMBERED = re.compile(r"(.+)_([2-9])")
FIX_GAP = "images of a study have numbers without gaps (docs/data.md): pack it again with the first as `image`"
FIX_TWICE = "keep one of them and pack again: two views of a sample are two images"


class ViewTally:
    """Remembers which samples have which of a data set's numbered images."""

    def __init__(self, info: DatasetInfo):
        images = {n for n, f in info.fields.items() if f.kind == "image" and not n.startswith("mask")}
        found = {n: m for n in sorted(images) if (m := _NUMBERED.fullmatch(n))}
        self.before = {n: m[1] if m[2] == "2" else f"{m[1]}_{int(m[2]) - 1}" for n, m in found.items()}
        self.wanted = {*self.before, *self.before.values()}
        self.have: dict[str, set[str]] = defaultdict(set)

    def add(self, key: str, name: str) -> None:
        if name in self.wanted:
            self.have[name].add(key)

    def merge(self, later: ViewTally) -> None:
        for name, keys in later.have.items():
            self.have[name] |= keys

    def warnings(self, twins: Iterable[Sequence[tuple[str, str]]]) -> Iterator[Problem]:
        """After all members.

        Args:
            twins: (key, field) of members with the very same bytes.
        """
        for name, before in self.before.items():
            if gap := sorted(self.have[name] - self.have[before]):
                what = f"{len(gap)} samples have {name} and no {before}, such as {', '.join(gap[:3])}"
                yield Problem(what, f"field '{name}'", FIX_GAP)
        found: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for members in twins:
            several = Counter(key for key, name in members if name in self.wanted)
            for key in (k for k, n in several.items() if n > 1):
                found[tuple(sorted(n for k, n in members if k == key))].append(key)
        for names, keys in found.items():
            what = f"{' and '.join(names)} are the same file in {len(keys)} samples, such as {', '.join(keys[:3])}"
            yield Problem(what, f"field '{names[0]}'", FIX_TWICE)
