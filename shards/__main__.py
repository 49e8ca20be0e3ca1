"""Command line of the data sets: python -m shards COMMAND (pack, source, index, seal, split, meaning, lint, info, ...)

Long because: every command with its options stands in one place, as `--help` shows it.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shards import jobs
from shards.errors import DataError, add_all, bad, show_every, told
from shards.format import terms
from shards.tables import features
from shards.tables.cells import number
from shards.terminal import ends_with_its_reader

if TYPE_CHECKING:
    from shards.pack.labels import LabelRule
    from shards.sources import Found

KEEP_ORIENTATION = "read photographs as stored, without turning them by their EXIF orientation"
FRACTIONS = "0.8,0.1,0.1"  # train,val,test of pack and split
UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def byte_count(text: str) -> int:
    """'256M' -> 268435456."""
    unit = UNITS.get(text[-1:].lower())
    given = number(text[:-1] if unit else text)
    value = 0 if given is None or not (unit or given.is_integer()) else int(given * (unit or 1))
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size: give bytes, or such as 64M or 1G")
    return value


def pairs(given: Sequence[str] | None, flag: str) -> dict[str, str]:
    """['rna=float16'] -> {'rna': 'float16'}"""
    for text in given or ():
        if not all(text.partition("=")):
            raise bad(f"'{text}' is not FIELD=VALUE", flag, f"such as {flag} rna=VALUE")
    return dict(text.split("=", 1) for text in given or ())


def numbers(text: str | None, flag: str) -> list[float]:
    values = [number(t) for t in text.split(",")] if text else []
    if None in values:
        raise bad(f"'{text}' is not a list of numbers", flag, f"such as {flag} 0.01,0.1")
    return [v for v in values if v is not None]


def _packing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--name", help="name of the data set (default: that of the folder)")
    parser.add_argument("--data-version", default="1", help="version of the data set")
    parser.add_argument("--source", default=None, help="where the data come from; stored")
    terms.add_terms(parser, "")
    parser.add_argument(
        "--dtype",
        action="append",
        metavar="FIELD=DTYPE",
        help="dtype on disk (default: the most compact that keeps the values)",
    )
    parser.add_argument(
        "--impute",
        action="append",
        metavar="FIELD=HOW",
        help="what a NaN of a vector becomes: mean (of the training split) or a number",
    )
    parser.add_argument("--transform", action="append", metavar="FIELD=log2p1", help="log2(x + 1) of a vector field")
    parser.add_argument(
        "--meaning",
        action="append",
        metavar="FIELD.KEY=VALUE",
        help="what a field's numbers are, such as patches.encoder=conch_v15 or rna.transform=log2p1 (docs/data.md lists the keys)",
    )
    parser.add_argument(
        "--vocab", action="append", metavar="FIELD=FILE", help="feature names of a vector field, one a line"
    )
    parser.add_argument(
        "--strip-version", action="append", metavar="FIELD", help="feature names are Ensembl ids: drop '.N'"
    )
    _cells(parser)
    features.options(parser)
    parser.add_argument(
        "--split-fractions",
        default=FRACTIONS,
        help="train,val,test by patient, unless the manifest has a split column",
    )
    parser.add_argument("--split-seed", type=int, default=0)
    parser.add_argument(
        "--split-list",
        action="append",
        metavar="SPLIT=FILE",
        help="splits by lists of image names, one name a line, one file a split; what no list names is left out",
    )
    parser.add_argument(
        "--accept-leaking-lists",
        action="store_true",
        help="go on although the lists put an image or a patient into two splits (published ones do): for comparison only",
    )
    parser.add_argument("--keep-orientation", action="store_true", help=KEEP_ORIENTATION)
    parser.add_argument(
        "--image-side",
        type=jobs.count,
        metavar="PIXELS",
        help="make images smaller whose shorter side is longer than that",
    )
    parser.add_argument(
        "--image-format",
        choices=("keep", "jpeg", "png"),
        default="keep",
        help="coding of images: as they are (default), JPEG (quality 95, 4:4:4), or PNG",
    )
    parser.add_argument("--stratify", metavar="LABEL", help="give every split its share of each class")
    parser.add_argument(
        "--shard-size", type=byte_count, default=byte_count("256M"), help="largest shard (default 256M)"
    )
    parser.add_argument("--shard-samples", type=int, help="most samples of a shard")
    jobs.option(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the data set that stands in --out")


def _cells(parser: argparse.ArgumentParser) -> None:
    """What words in tables mean."""
    add = parser.add_argument
    add("--unknown", action="append", metavar="WORD", help="one more word for 'not known' (docs/data.md has the list)")
    add("--known", action="append", metavar="WORD", help="a word of that list that is a value in these tables")
    add(
        "--label-kind",
        action="append",
        metavar="NAME=KIND",
        help="a label is 'class' or 'number', whatever its cells look like",
    )


def build_parser(layouts: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The command line. `layouts`: paths of layouts of one's own, which are sources too."""
    from shards.sources import get_source, source_names

    parser = argparse.ArgumentParser(
        "python -m shards", description="Packs, checks and shows data sets (docs/data.md)."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    pack = commands.add_parser("pack", help="pack the samples of a manifest")
    pack.add_argument("manifest", type=Path)
    _packing(pack)
    source = commands.add_parser("source", help="pack a public layout of files").add_subparsers(
        dest="name_of_source", required=True, metavar="SOURCE"
    )
    for name in (*source_names(), *layouts):
        one = get_source(name)
        child = source.add_parser(name, help=one.help)
        one.options(child)
        _packing(child)
    _folder_commands(commands)
    _looking_commands(commands)
    for command in (*(c for n, c in commands.choices.items() if n != "source"), *source.choices.values()):
        add_all(command)
    return parser


def _folder_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Commands that write into a data set."""
    from shards.format.members import options as mapping_options

    index = commands.add_parser("index", help="adopt tars made by others, without rewriting them")
    index.add_argument(
        "tars", nargs="+", metavar="DIR", help="folder of the tars, or all of its tars: a list, DIR/{000..010}.tar"
    )
    index.add_argument("--keep-orientation", action="store_true", help=KEEP_ORIENTATION)
    mapping_options(index)
    _cells(index)
    for flag in ("--name", "--source"):
        index.add_argument(flag)
    terms.add_terms(index)
    index.add_argument("--meaning", action="append", metavar="FIELD.KEY=VALUE", help="what a field's numbers are")
    seal = commands.add_parser(
        "seal", help="seal a data set of an earlier version; build damaged indexes from their tars"
    )
    seal.add_argument("folder", type=Path)
    split = commands.add_parser("split", help="make patient-disjoint splits and nested label fractions")
    split.add_argument("folder", type=Path)
    split.add_argument("--fractions", default=FRACTIONS, help=f"train,val,test (default {FRACTIONS})")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--stratify", metavar="LABEL")
    split.add_argument("--group", metavar="LABEL", help="keep every site whole ('tss': the site in a TCGA barcode)")
    split.add_argument("--label-fractions", metavar="F,F", help="nested lists of training samples, such as 0.01,0.1")
    tokenizer = commands.add_parser("tokenizer", help="train a WordPiece vocabulary on the training split's reports")
    tokenizer.add_argument("folder", type=Path)
    tokenizer.add_argument("--field", default="report", help="text field (default: report)")
    tokenizer.add_argument("--size", type=int, default=30_000, help="most tokens (default 30000)")
    tokenizer.add_argument("--out", type=Path, help="write the vocabulary here instead of into the data set")
    tokenizer.add_argument("--overwrite", action="store_true", help="replace the vocabulary the field has")
    meaning = commands.add_parser("meaning", help="state what the numbers of a packed field are")
    meaning.add_argument("folder", type=Path)
    meaning.add_argument(
        "meaning", nargs="+", metavar="FIELD.KEY=VALUE", help="such as patches.encoder=conch_v15; FIELD.KEY= forgets it"
    )
    meaning.add_argument("--overwrite", action="store_true", help="replace what is stored")
    state = commands.add_parser("terms", help="state licence, commercial use and citation of a packed data set")
    state.add_argument("folder", type=Path)
    terms.add_terms(state)
    commands.add_parser(
        "layouts", help="list the layouts of public sets (and write the list into docs/layouts.md of a checkout)"
    )
    demo = commands.add_parser("demo", help="generate the demo cohort")
    demo.add_argument("folder", type=Path)
    demo.add_argument(
        "--people", type=int, metavar="N", help="instead of it N further people: images, chip.bed and covariates.csv"
    )


def _looking_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Commands that leave the data set as it is."""
    lint = commands.add_parser("lint", help="find everything that is wrong with a data set")
    lint.add_argument("folder", type=Path)
    lint.add_argument(
        "--reference",
        action="append",
        metavar="FIELD=FILE",
        help="known feature names, one a line; others are reported",
    )
    jobs.option(lint)
    info = commands.add_parser("info", help="what is in a data set")
    info.add_argument("folder", type=Path)
    info.add_argument("--json", action="store_true")
    triplets = commands.add_parser("triplets", help="findings, places and negations of reports as matrices (MedKLIP)")
    triplets.add_argument("folder", type=Path)
    triplets.add_argument("--field", default="report", help="text field (default: report)")
    triplets.add_argument(
        "--table", type=Path, help="triplets of others in place of rules: a table of sample, entity, position, state"
    )
    triplets.add_argument("--out", type=Path, default=Path("triplets.npz"), help="file (default: triplets.npz)")
    triplets.add_argument(
        "--uncertain",
        choices=("unknown", "absent", "present"),
        default="unknown",
        help="what a finding that is only thought possible counts as (default: unknown)",
    )
    triplets.add_argument("--overwrite", action="store_true", help="replace the file")
    preview = commands.add_parser("preview", help="draw a data set")
    preview.add_argument("folder", type=Path)
    preview.add_argument("--out", type=Path, default=Path("preview.png"))
    preview.add_argument("--label", help="label to colour by (default: the first class label)")


def _work(args: argparse.Namespace) -> Path | None:
    """The folder of work of a source that may need one."""
    return args.work or Path(f"{args.out}-work") if "work" in args else None


def _pack(args: argparse.Namespace) -> int:
    from shards.layout.begun import converting

    work = _work(args)
    with converting(work) if work else nullcontext():
        return _packed(args)


def _packed(args: argparse.Namespace) -> int:
    from shards.layout.begun import is_begun, remove
    from shards.pack.labels import label_rule
    from shards.pack.manifest import read_manifest
    from shards.sources import Found, get_source

    labels = label_rule(args)
    if args.command == "source":
        found = get_source(args.name_of_source).find(args)
    else:
        found = Found(read_manifest(args.manifest, labels))
    scratch, interrupted = found.pack.get("scratch"), False
    try:
        return _pack_found(args, found, labels)
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        if scratch is not None and not (interrupted and is_begun(scratch)):
            remove(scratch)


def _pack_found(args: argparse.Namespace, found: Found, labels: LabelRule) -> int:
    from shards.pack.pack import PackOptions, pack_entries
    from shards.pack.pictures import PictureOptions
    from shards.pack.split import parse_fractions
    from shards.pack.split_lists import by_lists, parse_lists
    from shards.tables.features import feature_rule

    if args.split_list:
        lists = parse_lists(args.split_list)
        manifest, notes, left_out = by_lists(found.manifest, lists, args.accept_leaking_lists)
        found = replace(found, manifest=manifest, notes=[*found.notes, *notes], unmatched=[*found.unmatched, *left_out])
    print(*found.notes, sep="\n", end="\n" if found.notes else "")
    given = {n: Path(p) for n, p in pairs(args.vocab, "--vocab").items()}
    vocab = {**found.pack.get("vocab", {}), **given}
    if "stratify" in found.pack and not args.stratify and not any(e.split for e in found.manifest.entries):
        print(
            f"splits: each gets its share of every class of '{found.pack['stratify']}' (--stratify names another label)"
        )
    options = PackOptions(
        name=args.name,
        version=args.data_version,
        source=args.source if args.source is not None else (args.name_of_source if args.command == "source" else ""),
        **{n: getattr(args, n) or found.pack.get(n, "") for n in ("licence", "commercial", "citation")},
        dtypes={**found.pack.get("dtypes", {}), **pairs(args.dtype, "--dtype")},
        impute=pairs(args.impute, "--impute"),
        transforms={**found.pack.get("transforms", {}), **pairs(args.transform, "--transform")},
        meanings=_meanings(found, args.meaning),
        vocab=vocab,
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
    info, notes = pack_entries(found.manifest, args.out, options, found.unmatched)
    print(*notes, sep="\n")
    _say_twins(args.out)
    print(
        f"{args.out}: {info.samples} samples of {info.patients} patients in {len(info.shards)} shards; {info.fingerprint[:12]}"
    )
    return 0


def _say_twins(folder: Path) -> None:
    """Says which images and bags stand under different patients in different splits."""
    from shards.check.witness import split_lines
    from shards.read.dataset import Dataset

    with Dataset.open(folder) as data:
        print(*[f"LEAK: {line}\n" for line in split_lines(data)], sep="", end="")


def _meanings(found: Found, given: Sequence[str] | None) -> dict[str, dict[str, str]]:
    """What the user states of the fields, with what the source found in its files."""
    from shards.format.meaning import FLAG, joined, parse_meanings

    fields = {n for e in found.manifest.entries for n in (*e.fields, *e.texts)}
    known = {n: m for n, m in found.pack.get("meanings", {}).items() if n in fields}
    fix = "leave it out, or bring files that are what you state"
    return joined(parse_meanings(given), known, FLAG, fix)


def _index(args: argparse.Namespace) -> int:
    from shards.format.meaning import parse_meanings
    from shards.format.members import adopted_of
    from shards.pack.adopt import Titles, adopt
    from shards.pack.labels import label_rule
    from shards.pack.tars import folder_of

    folder, notes = folder_of(args.tars), list[str]()
    info = adopt(
        folder,
        how=adopted_of(args),
        labels=label_rule(args),
        titles=Titles(args.name, args.source, args.licence, args.commercial, args.citation),
        meanings=parse_meanings(args.meaning, forget=True),
        keep_orientation=args.keep_orientation,
        notes=notes,
    )
    print(*notes, sep="\n", end="\n" if notes else "")
    _say_twins(folder)
    print(
        f"{folder}: {info.samples} samples of {info.patients} patients in {len(info.shards)} shards; splits {info.splits}"
    )
    return 0


def _split(args: argparse.Namespace) -> int:
    from shards.pack.split import AGAIN, parse_fractions, resplit

    fractions = parse_fractions(args.fractions, AGAIN)
    label_fractions = numbers(args.label_fractions, "--label-fractions")
    info = resplit(
        args.folder, fractions, args.seed, stratify=args.stratify, group=args.group, label_fractions=label_fractions
    )
    _say_twins(args.folder)
    print(f"{args.folder}: {', '.join(f'{s} {n}' for s, n in info.splits.items())}; {info.fingerprint[:12]}")
    return 0


def _seal(args: argparse.Namespace) -> int:
    from shards.pack.sealing import seal

    info, notes = seal(args.folder)
    print(*notes, f"{args.folder}: sealed anew; {info.fingerprint[:12]}", sep="\n")
    return 0


def _lint(args: argparse.Namespace) -> int:
    from shards.check.lint import lint

    report = lint(args.folder, {f: Path(p) for f, p in pairs(args.reference, "--reference").items()}, args.jobs)
    print(report)
    return 2 if report.problems else 0


def _info(args: argparse.Namespace) -> int:
    from shards.check.info import collect, text

    facts = collect(args.folder)
    print(json.dumps(facts, indent=1) if args.json else text(facts))
    return 0


def _preview(args: argparse.Namespace) -> int:
    from shards.check.preview import draw

    print(draw(args.folder, args.out, args.label))
    return 0


def _tokenizer(args: argparse.Namespace) -> int:
    from shards.pack.tokenizer import add_tokenizer

    words, info = add_tokenizer(args.folder, args.field, args.size, args.out, args.overwrite)
    print(f"{args.out or args.folder / 'vocab' / f'{args.field}.txt'}: {len(words)} tokens; {info.fingerprint[:12]}")
    return 0


def _triplets(args: argparse.Namespace) -> int:
    from shards.pack.triplets import write_triplets

    print(*write_triplets(args.folder, args.out, args.field, args.table, args.uncertain, args.overwrite), sep="\n")
    return 0


def _state(args: argparse.Namespace) -> int:
    from shards.format.meaning import parse_meanings, restate, shown

    changes = parse_meanings(args.meaning, "meaning", forget=True)
    info = restate(args.folder, changes, args.overwrite)
    lines = [f"{n}: {shown(info.fields[n].meaning) or 'nothing is stored'}" for n in changes]
    print(*lines, f"{args.folder}: sealed anew; {info.fingerprint[:12]}", sep="\n")
    return 0


def _state_terms(args: argparse.Namespace) -> int:
    info = terms.restate_terms(args.folder, args.licence, args.commercial, args.citation)
    words = (("licence", info.licence), ("commercial", info.commercial), ("citation", info.citation))
    print(*(f"{name}: {word or 'not stated'}" for name, word in words), sep="\n")
    return 0


def _layouts_told(args: argparse.Namespace) -> int:
    from shards.layout.describe import table, write

    print(table())
    write()
    return 0


def _demo(args: argparse.Namespace) -> int:
    from shards.chip import generate
    from shards.demo import ensure

    print(ensure(args.folder) if args.people is None else generate(args.folder, args.people))
    return 0


COMMANDS = {
    "pack": _pack,
    "source": _pack,
    "index": _index,
    "split": _split,
    "seal": _seal,
    "meaning": _state,
    "terms": _state_terms,
    "lint": _lint,
    "info": _info,
    "preview": _preview,
    "tokenizer": _tokenizer,
    "triplets": _triplets,
    "layouts": _layouts_told,
    "demo": _demo,
}


ONE_STEP = ("split", "seal", "tokenizer", "meaning", "terms")
"""Commands that change a data set whole or not at all."""


def _left(args: argparse.Namespace) -> str:
    """How things stand after an interrupt."""
    if args.command in ONE_STEP:
        return f": {args.folder} is what it was, or what it was to be"
    if args.command in ("pack", "source"):
        from shards.layout.begun import is_begun
        from shards.pack.write import staging_of

        work = _work(args)
        kept = ["whole shards"] * staging_of(args.out).is_dir() + [f"converted images in {work}"] * is_begun(work)
        if kept:
            return f": {' and '.join(kept)} are kept, and the same command goes on after them"
    return ""


def _layouts(words: Sequence[str]) -> list[str]:
    """The layout of one's own that `source PATH` names."""
    from shards.sources import is_file

    return [w for w in words[1:2] if words[0] == "source" and is_file(w)]


@ends_with_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; 0 done, 2 the user's input (as argparse does for unknown options)."""
    show_every(False)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser(_layouts(words)).parse_args(words)
        for name in ("folder", "out", "manifest"):
            if re.match(r"\w{2,}:/", str(getattr(args, name, None))):
                what = f"`{args.command}` works on a folder, not on an address"
                raise bad(
                    what, f"{name.upper()}", "copy the data set here first; training reads addresses through its cache"
                )
        return COMMANDS[args.command](args)
    except DataError as e:
        print(f"error: {told(e)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted{_left(args)}", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
