"""Splits by lists of names: published ones, one file a split, that a user holds. A list that leaks is refused unless it is accepted."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path, PurePosixPath

from shards.errors import DataError, Problem, bad
from shards.format.info import SPLITS
from shards.pack.manifest import Entry, Manifest
from shards.tables.identity import one_spelling, person, sample
from shards.tables.table_file import read_text

FLAG, ACCEPT = "--split-list", "--accept-leaking-lists"
SHOWN = 5


def parse_lists(given: Sequence[str]) -> dict[str, Path]:
    """['train=FILE', 'test=FILE'] -> {'train': FILE, 'test': FILE}

    Raises:
        DataError: no split of ours, one twice, no file, or none for training.
    """
    lists: dict[str, Path] = {}
    for text in given:
        split, _, path = text.partition("=")
        if split not in SPLITS or not path:
            raise bad(f"'{text}' is not SPLIT=FILE", FLAG, f"SPLIT is one of {', '.join(SPLITS)}")
        if split in lists:
            raise bad(f"two lists for '{split}'", FLAG, "put their lines into one file")
        if not Path(path).is_file():
            raise bad(f"{path}: no such file", FLAG, "give a text file, one name a line")
        lists[split] = Path(path)
    if lists and "train" not in lists:
        raise bad("no list for 'train'", FLAG, "statistics and training need one")
    return lists


def by_lists(
    manifest: Manifest, lists: Mapping[str, Path], accept: bool
) -> tuple[Manifest, list[str], list[tuple[str, str]]]:
    """The samples that the lists name, in the splits that they name them in.

    A line is the name of a sample or of its image's file, with or without folder and extension; what follows a comma or white space
    (labels, as in published lists) is not read. Samples that no list names are left out.

    Args:
        accept: go on although the lists leak. A sample of two lists is then packed twice, the second time as KEY-in-SPLIT.

    Returns:
        the manifest, what to tell the user, and (sample, reason) of what was left out.

    Raises:
        DataError: names that no sample or several have, that stand twice in a list, lines of the manifest that name a split already;
            images or patients in two splits, counted, unless `accept`.
    """
    manifest = replace(manifest, entries=[*manifest.entries])  # the same objects each time
    problems = list(manifest.problems)
    if any(e.split for e in manifest.entries):
        problems.append(Problem("the manifest has a split column", FLAG, "drop the column, or the lists"))
    known = _aliases(manifest.entries)
    found = {s: _entries(path, known, problems) for s, path in lists.items()}
    if problems:
        raise DataError(problems)
    leaks = list(_leaks(found))
    if leaks and not accept:
        fix = f"split by patient instead (leave the lists out), mend them, or accept it, for comparison only, with {ACCEPT}"
        raise DataError([Problem(line, FLAG, fix) for line in leaks])
    entries = _split(manifest.entries, found)
    listed = {id(e) for es in found.values() for e in es}
    out = [(e.sample, "in no split list") for e in manifest.entries if id(e) not in listed]
    notes = [f"LEAKING SPLITS, accepted: {line}" for line in leaks]
    notes += [f"{len(out)} samples are in no split list and were left out, such as {out[0][0]}"] if out else []
    return replace(manifest, entries=entries), notes, out


def _aliases(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """What a list may call a sample."""
    known: dict[str, dict[int, Entry]] = defaultdict(dict)
    for e in entries:
        files = [PurePosixPath(ref.member or ref.path.name) for n, ref in e.fields.items() if n.startswith("image")]
        spelled = {e.sample, *(f.name for f in files), *(f.stem for f in files)}
        for name in spelled | {_form(n) for n in spelled}:
            known[name][id(e)] = e
    return {name: list(of.values()) for name, of in known.items()}


def _entries(path: Path, known: Mapping[str, list[Entry]], problems: list[Problem]) -> list[Entry]:
    """The samples of a list, in its order; what is wrong with it goes to `problems`."""
    lines = read_text(path).splitlines()
    names = [re.split(r"[,\s]", line.strip(), maxsplit=1)[0] for line in lines if line.strip()]
    hits = [_named(name, known) for name in names]
    strange = [n for n, h in zip(names, hits, strict=True) if not h]
    several = [n for n, h in zip(names, hits, strict=True) if len(h) > 1]
    found = [h[0] for h in hits if len(h) == 1]
    twice = [e.sample for e in found if found.count(e) > 1] if len({id(e) for e in found}) < len(found) else []
    for what, bad_ones, fix in (
        ("names are no sample of the manifest", strange, "mend the list, or bring these images"),
        ("names are several samples of the manifest", several, "name the samples by their keys"),
        ("samples stand twice", list(dict.fromkeys(twice)), "keep one line of each"),
    ):
        if bad_ones:
            shown = ", ".join(bad_ones[:SHOWN]) + (", ..." if len(bad_ones) > SHOWN else "")
            problems.append(Problem(f"{len(bad_ones)} {what}: {shown}", str(path), fix))
    if not names:
        problems.append(Problem("no name in it", str(path), "one name a line"))
    return found


def _named(name: str, known: Mapping[str, list[Entry]]) -> list[Entry]:
    """The samples of a name: as it is, without its folder, without its extension, in any case."""
    bare = PurePosixPath(name)
    return next((known[n] for n in (name, bare.name, bare.stem, _form(name)) if n in known), [])


def _form(name: str) -> str:
    return f"form of {sample(name)}"  # no name has blanks


def _leaks(found: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    """A line for each two splits that share patients, with how many images they share."""
    for a, b in combinations(found, 2):
        ids = {id(e) for e in found[a]}
        images = sum(id(e) in ids for e in found[b])
        both = {person(e.patient) for e in found[a]} & {person(e.patient) for e in found[b]}
        of = sum(person(e.patient) in both for e in found[b])
        patients = {*one_spelling(e.patient for e in found[b] if person(e.patient) in both).values()}
        if images or patients:
            yield (
                f"{a} and {b} share {len(patients)} patients and {images} images: {of} of the {len(found[b])} images of {b} are of "
                f"patients in {a} ({', '.join(sorted(patients)[:SHOWN])}{', ...' if len(patients) > SHOWN else ''})"
            )


def _split(entries: Sequence[Entry], found: Mapping[str, Sequence[Entry]]) -> list[Entry]:
    """In the manifest's order, once for each split that names it."""
    splits: dict[int, list[str]] = defaultdict(list)
    for split, es in found.items():
        for e in es:
            splits[id(e)].append(split)
    made = [
        replace(e, split=split, sample=e.sample if i == 0 else f"{e.sample}-in-{split}")
        for e in entries
        for i, split in enumerate(splits[id(e)])
    ]
    if again := [k for k, n in Counter(e.sample for e in made).items() if n > 1]:
        raise bad(f"sample '{again[0]}' is in the manifest already", FLAG, "give it another key")
    return made
