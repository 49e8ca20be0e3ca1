"""Which tars a command line means: a folder, a list, a brace pattern. All tars of one folder are one data set."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from shards.errors import DataError, Problem, bad
from shards.format.archive import no_twins

ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")
MOST = 1_000_000


def folder_of(words: Sequence[str]) -> Path:
    """The folder that `index` is asked to make a data set of.

    Words are a folder, or the tars of one: a list, `{000..010}`, `{a,b}`, `*`, or several joined by `::` as WebDataset takes them. Named
    tars have to be all that the folder holds, so that a pattern is also a check that none is missing.

    Raises:
        DataError: commands (`pipe:`) and addresses, tars that are missing, of several folders, or not all of the folder.
    """
    given = [w for word in words for w in word.split("::")]
    problems = [p for w in given if (p := _refused(w))]
    if problems:
        raise DataError(problems)
    if len(given) == 1 and not _is_tar(given[0]):
        return Path(given[0])
    tars = [Path(t) for w in given for t in _named(w)]
    folders = sorted({t.parent for t in tars})
    if len(folders) > 1:
        what = f"tars of {len(folders)} folders: {', '.join(map(str, folders[:4]))}"
        raise bad(what, "index", "a data set is one folder: move the tars into one, or index each folder")
    problems = [
        Problem("no such tar", str(t), "bring it, or name the tars that there are") for t in tars if not t.is_file()
    ]
    others = sorted({p.name for p in no_twins(folders[0].glob("*.tar"))} - {t.name for t in tars})
    if others:
        what = f"holds {len(others)} more tars: {', '.join(others[:4])}"
        fix = "name all of them or give the folder, since all tars of a folder are one data set; else move them away"
        problems.append(Problem(what, str(folders[0]), fix))
    if problems:
        raise DataError(problems)
    return folders[0]


def packed_tars(folder: Path) -> list[Problem]:
    """Tars that are packed as a whole, by their names: nothing in them can be read by offset."""
    found = no_twins(p for p in folder.glob("*") if p.name.endswith(ENDINGS))
    tools = {"gz": "gunzip", "bz2": "bunzip2", "xz": "unxz", "zst": "unzstd --rm"}
    return [
        Problem(
            "a packed tar: its members cannot be read by offset",
            str(p),
            f"unpack it with {next(t for e, t in tools.items() if p.name.endswith(e))}, or move it away"
            if not p.name.endswith((".tgz", ".tbz2", ".txz"))
            else "unpack it to a .tar, or move it away",
        )
        for p in found
    ]


def expanded(pattern: str) -> Iterator[str]:
    """`a-{008..010}.tar` -> a-008.tar, a-009.tar, a-010.tar; `{a,b}.tar` -> a.tar, b.tar; as shells and WebDataset do.

    Raises:
        DataError: braces that mean nothing, or a range of over a million.
    """
    parts = _BRACES.split(pattern)
    choices = [[p] if i % 2 == 0 else _choices(p, pattern) for i, p in enumerate(parts)]
    count = 1
    for c in choices:
        count *= len(c)
    if count > MOST:
        raise bad(f"'{pattern}' means {count} names", "index", "give the folder that holds the tars")
    return ("".join(c) for c in itertools.product(*choices))


def _choices(inside: str, pattern: str) -> list[str]:
    if found := _RANGE.fullmatch(inside):
        first, last, step = int(found[1]), int(found[2]), int(found[3] or 1)
        if abs(last - first) > MOST or not step:
            raise bad(f"'{pattern}' means too many names", "index", "give the folder that holds the tars")
        width = max(len(found[1]), len(found[2])) if found[1].startswith("0") or found[2].startswith("0") else 0
        step = step if first <= last else -step
        return [f"{n:0{width}d}" for n in range(first, last + (1 if step > 0 else -1), step)]
    if "," not in inside:
        raise bad(f"'{{{inside}}}' in '{pattern}' means nothing", "index", "a range is {000..010}, a list {a,b}")
    return inside.split(",")


def _is_tar(word: str) -> bool:
    return word.endswith((".tar", *ENDINGS)) or any(c in word for c in "{*?[")


def _refused(word: str) -> Problem | None:
    if word.startswith("pipe:"):
        fix = "fetch the tars into a folder yourself and give the folder: no command is run"
        return Problem(f"'{word}' is a command", "index", fix)
    if re.match(r"\w{2,}:/", word):
        fix = "copy the tars here first; training reads addresses through its cache"
        return Problem(f"'{word}' is an address, `index` works on a folder", "index", fix)
    return None


def _named(word: str) -> Iterator[str]:
    for name in expanded(word):
        if any(c in name for c in "*?[") and not Path(name).is_file():
            path = Path(name)
            hits = [str(p) for p in no_twins(path.parent.glob(path.name))]
            if not hits:
                raise bad("no file fits", name, "give the folder that holds the tars")
            yield from hits
        else:
            yield name
