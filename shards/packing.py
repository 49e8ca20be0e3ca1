"""The commands `pack` and `source`: from what was found to a data set, with what the command line says of it."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shards.command_line import pairs
from shards.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shards.pack.labels import LabelRule
    from shards.pack.options import PackOptions
    from shards.sources import Found


def folder_of_work(args: argparse.Namespace) -> Path | None:
    """The folder of work of a source that may need one."""
    return args.work or Path(f"{args.out}-work") if "work" in args else None


def pack(args: argparse.Namespace) -> int:
    from shards.layout.begun import converting

    work = folder_of_work(args)
    with converting(work) if work else nullcontext():
        return _packed(args)


def _packed(args: argparse.Namespace) -> int:
    from shards.layout.begun import is_begun, lacks_room, no_room, remove
    from shards.pack.labels import label_rule
    from shards.pack.manifest import read_manifest
    from shards.sources import Found, get_source

    labels = label_rule(args)
    if args.command == "source":
        try:
            found = get_source(args.name_of_source).find(args)
        except OSError as e:
            if not (work := folder_of_work(args)) or not lacks_room(e):
                raise
            raise no_room(e, work) from e
    else:
        found = Found(read_manifest(args.manifest, labels))
    scratch, goes_on = found.pack.get("scratch"), False
    try:
        return _pack_found(args, found, labels)
    except BaseException as e:
        goes_on = isinstance(e, KeyboardInterrupt) or lacks_room(e)
        if isinstance(e, DataError) and goes_on and is_begun(scratch):
            kept = f"; converted images in {scratch} are kept, and the same command goes on after them"
            e.problems[:] = [replace(p, fix=p.fix + kept) for p in e.problems]
        raise
    finally:
        if scratch is not None and not (goes_on and is_begun(scratch)):
            remove(scratch)


def _pack_found(args: argparse.Namespace, found: Found, labels: LabelRule) -> int:
    from shards.pack.entries import bare
    from shards.pack.pack import pack_entries
    from shards.pack.split_lists import by_lists, parse_lists

    if args.split_list:
        lists = parse_lists(args.split_list)
        manifest, notes, left_out = by_lists(found.manifest, lists, args.accept_leaking_lists)
        found = replace(found, manifest=manifest, notes=[*found.notes, *notes], unmatched=[*found.unmatched, *left_out])
    print(*found.notes, sep="\n", end="\n" if found.notes else "")
    if "stratify" in found.pack and not args.stratify and not any(e.split for e in bare(found.manifest.entries)):
        print(
            f"splits: each gets its share of every class of '{found.pack['stratify']}' (--stratify names another label)"
        )
    info, notes = pack_entries(found.manifest, args.out, _options(args, found, labels), found.unmatched)
    print(*notes, sep="\n")
    say_twins(args.out)
    print(
        f"{args.out}: {info.samples} samples of {info.patients} patients in {len(info.shards)} shards; {info.fingerprint[:12]}"
    )
    return 0


def _options(args: argparse.Namespace, found: Found, labels: LabelRule) -> PackOptions:
    """How it is packed: what the command line says, before what the source knows."""
    from shards.pack.options import PackOptions
    from shards.pack.pictures import PictureOptions
    from shards.pack.split import parse_fractions
    from shards.tables.features import feature_rule

    vocab = {n: Path(p) for n, p in pairs(args.vocab, "--vocab").items()}
    return PackOptions(
        name=args.name,
        version=args.data_version,
        source=args.source if args.source is not None else (args.name_of_source if args.command == "source" else ""),
        **{n: getattr(args, n) or found.pack.get(n, "") for n in ("licence", "commercial", "citation")},
        dtypes={**found.pack.get("dtypes", {}), **pairs(args.dtype, "--dtype")},
        impute=pairs(args.impute, "--impute"),
        transforms={**found.pack.get("transforms", {}), **pairs(args.transform, "--transform")},
        meanings=_meanings(found, args.meaning),
        vocab={**found.pack.get("vocab", {}), **vocab},
        strip_version=[*found.pack.get("strip_version", []), *(args.strip_version or [])],
        fractions=parse_fractions(args.split_fractions),
        split_seed=args.split_seed,
        stratify=args.stratify or found.pack.get("stratify"),
        shard_bytes=args.shard_size,
        shard_samples=args.shard_samples,
        overwrite=args.overwrite,
        leaking_splits=args.accept_leaking_lists and bool(args.split_list),
        labels=labels,
        keep_orientation=args.keep_orientation,
        features=feature_rule(args),
        pictures=PictureOptions(args.image_side, args.image_format),
        jobs=args.jobs,
        scratch=found.pack.get("scratch"),
    )


def say_twins(folder: Path) -> None:
    """Says which images and bags stand under different patients in different splits."""
    from shards.check.witness import split_lines
    from shards.read.dataset import Dataset

    with Dataset.open(folder) as data:
        print(*[f"LEAK: {line}\n" for line in split_lines(data)], sep="", end="")


def _meanings(found: Found, given: Sequence[str] | None) -> dict[str, dict[str, str]]:
    """What the user states of the fields, with what the source found in its files."""
    from shards.format.meaning import FLAG, joined, parse_meanings
    from shards.pack.entries import forms_of

    fields = forms_of(found.manifest.entries).names
    known = {n: m for n, m in found.pack.get("meanings", {}).items() if n in fields}
    fix = "leave it out, or bring files that are what you state"
    return joined(parse_meanings(given), known, FLAG, fix)
