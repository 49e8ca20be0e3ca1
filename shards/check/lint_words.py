"""Words in a packed data set that are no features or no classes: made before they were told apart, or kept on purpose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shards.errors import Problem
from shards.format.info import DatasetInfo
from shards.pack.labels import meant_beside
from shards.tables.feature_names import known_kind
from shards.tables.unknown import Words

SHOWN = 5


def not_features(folder: Path, info: DatasetInfo) -> Iterator[Problem]:
    """Vocabularies that hold survival, splits, ids or counts of reads: trainings on them saw what they were to tell."""
    for name, one in info.fields.items():
        path = folder / (one.vocab or "")
        if one.vocab is None or not path.is_file():
            continue
        words = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        odd = [(w, why) for w in words if (why := known_kind(w))]
        if odd:
            shown = ", ".join(f"{w} ({why})" for w, why in odd[:SHOWN]) + (", ..." if len(odd) > SHOWN else "")
            what = f"{len(odd)} of {len(words)} features of '{name}' seem to be none: {shown}"
            fix = "pack again: they are left out now, unless --keep-features names them"
            yield Problem(what, f"vocabulary of '{name}'", fix)


def unknown_classes(info: DatasetInfo) -> Iterator[Problem]:
    """Classes whose name means that the class is not known."""
    unknown = Words()
    for name, label in info.labels.items():
        odd = [c for c in label.classes if unknown(c) and c.lower() not in meant_beside(label.classes)]
        if odd:
            what = f"label '{name}' has the class '{odd[0]}', a word for 'not known'"
            fix = f"pack again: it is missing there now, unless --known '{odd[0]}' says that it is a class"
            yield Problem(what, f"label '{name}'", fix)
