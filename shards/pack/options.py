"""How a manifest is packed, and what of that fits no manifest of its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shards.errors import DataError, Problem
from shards.format.meaning import FLAG
from shards.pack.dtypes import DTYPES, TRANSFORMS
from shards.pack.labels import LabelRule
from shards.pack.pictures import BOX, PictureOptions, holds_boxes
from shards.pack.write import SHARD_BYTES
from shards.tables.features import FeatureRule


@dataclass(frozen=True)
class PackOptions:
    """How to pack. Dictionaries map a field's name to its choice.

    dtypes: dtype on disk; default: the most compact that keeps the values (vectors), float16 (float arrays), int32 (coords).
    impute: what a NaN in a vector becomes: 'mean' (over the training split) or a number. Without it a NaN is a problem.
    transforms: 'log2p1' for log2(x + 1); applied before anything else.
    vocab: feature names of a vector field that does not come from a table, one a line in a text file.
    meanings: what a field's numbers are, such as {"rna": {"transform": "log2p1"}} (FieldInfo.meaning).
    labels: words for "not known" (`--unknown`, `--known`) and kinds of labels (`--label-kind`).
    features: what is a feature of a table (`--not-features`, `--keep-features`, `--duplicates`, `--par-y`).
    keep_orientation: photographs are read as stored, not turned by their EXIF orientation.
    pictures: what images become (`--image-side`, `--image-format`).
    jobs: processes that read, check and convert samples (None: one a core); shards are the same for any number.
    scratch: a folder of files that were made for this packing alone.
    strip_version: fields whose feature names are Ensembl ids, cut at the point (ENSG00000141510.18 -> ENSG00000141510).
    """

    name: str | None = None
    version: str = "1"
    source: str = ""
    licence: str = ""
    commercial: Literal["yes", "no", "unknown", ""] = ""
    citation: str = ""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    impute: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, str] = field(default_factory=dict)
    vocab: Mapping[str, Path] = field(default_factory=dict)
    strip_version: Sequence[str] = ()
    fractions: Mapping[str, float] = field(default_factory=lambda: {"train": 0.8, "val": 0.1, "test": 0.1})
    split_seed: int = 0
    stratify: str | None = None
    shard_bytes: int = SHARD_BYTES
    shard_samples: int | None = None
    overwrite: bool = False
    leaking_splits: bool = False
    meanings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    labels: LabelRule = field(default_factory=LabelRule)
    keep_orientation: bool = False
    features: FeatureRule = field(default_factory=FeatureRule)
    pictures: PictureOptions = field(default_factory=PictureOptions)
    jobs: int | None = 1
    scratch: Path | None = None


def check_options(options: PackOptions, names: Sequence[str]) -> None:
    """Options that fit no manifest of these fields are refused before anything is read.

    Raises:
        DataError: all of them.
    """
    wrong: list[Problem] = []
    flags: list[tuple[str, Sequence[str]]] = [
        ("--dtype", [*options.dtypes]),
        ("--impute", [*options.impute]),
        ("--transform", [*options.transforms]),
        ("--vocab", [*options.vocab]),
        ("--strip-version", options.strip_version),
        (FLAG, [*options.meanings]),
    ]
    for flag, given in flags:
        for name in set(given) - set(names):
            wrong.append(Problem(f"no field '{name}'", flag, f"fields of this manifest: {', '.join(names)}"))
    checks: list[tuple[str, Mapping[str, str], Sequence[str]]] = [
        ("--dtype", options.dtypes, DTYPES),
        ("--transform", options.transforms, [*TRANSFORMS]),
    ]
    if options.pictures.side:
        for name in (n for n in names if n.startswith("box") and not holds_boxes(n, options.meanings)):
            what = f"images become smaller, and nothing says how '{name}' lies on them"
            wrong.append(Problem(what, "--image-side", f"state it: {FLAG} '{name}.{BOX}=x y width height'"))
    for flag, given_to, known in checks:
        for name, value in given_to.items():
            if value not in known:
                wrong.append(Problem(f"'{name}={value}'", flag, f"one of {', '.join(known)}"))
    if wrong:
        raise DataError(wrong)
