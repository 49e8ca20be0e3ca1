"""What may be typed after python -m shards: every command with its options, as `--help` shows it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shards import jobs
from shards.errors import add_all, bad
from shards.format import terms
from shards.tables import features
from shards.tables.cells import number

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

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
    _fields(parser)
    _cells(parser)
    features.options(parser)
    _splits(parser)
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


def _fields(parser: argparse.ArgumentParser) -> None:
    """What is stored of the fields, and what their numbers are."""
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


def _splits(parser: argparse.ArgumentParser) -> None:
    """Which split a patient falls into."""
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


def build_parser(
    layouts: Sequence[str] = (), sources: bool = True, pack_alone: bool = False
) -> argparse.ArgumentParser:
    """The command line.

    Args:
        layouts: paths of layouts of one's own, which are sources too.
        sources: with the words of `source`.
        pack_alone: without any other command; all of them take as long to build as 40 images to pack.
    """
    parser = argparse.ArgumentParser(
        "python -m shards", description="Packs, checks and shows data sets (docs/data.md)."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    pack = commands.add_parser("pack", help="pack the samples of a manifest")
    pack.add_argument("manifest", type=Path)
    _packing(pack)
    if pack_alone:
        add_all(pack)
        return parser
    source = commands.add_parser("source", help="pack a public layout of files").add_subparsers(
        dest="name_of_source", required=True, metavar="SOURCE"
    )
    if sources:
        _source_commands(source, layouts)
    _folder_commands(commands)
    _looking_commands(commands)
    for command in (*(c for n, c in commands.choices.items() if n != "source"), *source.choices.values()):
        add_all(command)
    return parser


def _source_commands(source: Commands, layouts: Sequence[str]) -> None:
    from shards.sources import get_source, source_names

    for name in (*source_names(), *layouts):
        one = get_source(name)
        child = source.add_parser(name, help=one.help)
        one.options(child)
        _packing(child)


def _folder_commands(commands: Commands) -> None:
    """Commands that write into a data set."""
    _index(commands)
    seal = commands.add_parser(
        "seal", help="seal a data set of an earlier version; build damaged indexes from their tars"
    )
    seal.add_argument("folder", type=Path)
    _split(commands)
    _tokenizer(commands)
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


def _index(commands: Commands) -> None:
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


def _split(commands: Commands) -> None:
    split = commands.add_parser("split", help="make patient-disjoint splits and nested label fractions")
    split.add_argument("folder", type=Path)
    split.add_argument("--fractions", default=FRACTIONS, help=f"train,val,test (default {FRACTIONS})")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--stratify", metavar="LABEL")
    split.add_argument("--group", metavar="LABEL", help="keep every site whole ('tss': the site in a TCGA barcode)")
    split.add_argument("--label-fractions", metavar="F,F", help="nested lists of training samples, such as 0.01,0.1")


def _tokenizer(commands: Commands) -> None:
    tokenizer = commands.add_parser("tokenizer", help="train a WordPiece vocabulary on the training split's reports")
    tokenizer.add_argument("folder", type=Path)
    tokenizer.add_argument("--field", default="report", help="text field (default: report)")
    tokenizer.add_argument("--size", type=int, default=30_000, help="most tokens (default 30000)")
    tokenizer.add_argument("--out", type=Path, help="write the vocabulary here instead of into the data set")
    tokenizer.add_argument("--overwrite", action="store_true", help="replace the vocabulary the field has")


def _looking_commands(commands: Commands) -> None:
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
