"""Command line of the data sets: python -m shards COMMAND (pack, source, index, seal, split, meaning, lint, info, ...)"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from shards.command_line import build_parser, numbers, pairs
from shards.errors import DataError, bad, show_every, told
from shards.format import terms
from shards.packing import folder_of_work, pack, say_twins
from shards.terminal import ends_with_its_reader


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
    say_twins(folder)
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
    say_twins(args.folder)
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
    "pack": pack,
    "source": pack,
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

        work = folder_of_work(args)
        kept = ["whole shards"] * staging_of(args.out).is_dir() + [f"converted images in {work}"] * is_begun(work)
        if kept:
            return f": {' and '.join(kept)} are kept, and the same command goes on after them"
    return ""


def _layouts(words: Sequence[str]) -> list[str]:
    """The layout of one's own that `source PATH` names."""
    if words[:1] != ["source"]:
        return []
    from shards.sources import is_file

    return [w for w in words[1:2] if is_file(w)]


@ends_with_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; 0 done, 2 the user's input (as argparse does for unknown options)."""
    show_every(False)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser(_layouts(words), words[:1] == ["source"], words[:1] == ["pack"]).parse_args(words)
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
