"""Which tars a command line means: a folder, a list, a brace pattern. All tars of one folder are one data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from braceexpand import braceexpand

from shards.errors import DataError, Problem, bad
from shards.format.archive import no_twins

ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_INNERMOST = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.-?(\d{1,18}))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])(?:\.\.-?\d+)?")
_COUNTED = re.compile(r"<(\d+)>")
_FILE = re.compile(r"file:(?://(?:localhost)?(?=/)|(?!//))(.+)")
MOST = 1_000_000
_BRACES = "a range is {000..010} or {a..f}, a list {a,b}"


def folder_of(words: Sequence[str]) -> Path:
    """The folder that `index` is asked to make a data set of.

    Words are a folder, or the tars of one as WebDataset takes them: a list, `{000..010}`, `{a,b}`, `*`, `file:` before a path, several
    joined by `::`. Named tars have to be all that the folder holds, so that a pattern is also a check that none is missing.

    Raises:
        DataError: commands (`pipe:`) and addresses, tars that are missing, of several folders, or not all of the folder.
    """
    given = [_local(w) for word in words for w in word.split("::")]
    problems = [p for w in given if (p := _refused(w))]
    if problems:
        raise DataError(problems)
    if len(given) == 1 and not _is_tar(given[0]):
        return Path(given[0])
    names = [n for w in given for n in expanded(w)]
    if problems := [p for n in names if (p := _refused(n))]:
        raise DataError(problems)
    tars = [Path(t) for n in names for t in _found(n)]
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
    """`a-{008..010}.tar` -> a-008.tar, a-009.tar, a-010.tar; `{a,b}.tar` -> a.tar, b.tar; as WebDataset does, by the same library.

    Raises:
        DataError: braces that mean nothing, or over a million names.
    """
    if not set("{}") & set(pattern):
        return iter([pattern])
    # Counted first: the library makes every range whole before it gives a name.
    count = _count(re.sub(r"\\.", "_", pattern), pattern)
    if count > MOST:
        raise bad(f"'{pattern}' means {count} names", "index", "give the folder that holds the tars")
    return iter(braceexpand(pattern))


def _count(rest: str, pattern: str) -> int:
    """How many names a pattern means; braces are replaced by their number, `<3>`, from within."""
    rest = rest.replace("<", "_").replace(">", "_")
    while found := _INNERMOST.search(rest):
        rest = f"{rest[: found.start()]}<{_choices(found[1], pattern)}>{rest[found.end() :]}"
    if set("{}") & set(rest):
        raise bad(f"'{pattern}' has a brace without its other one", "index", _BRACES)
    return _product(rest)


def _choices(inside: str, pattern: str) -> int:
    if found := _NUMBERS.fullmatch(inside):
        return abs(int(found[2]) - int(found[1])) // (int(found[3] or 1) or 1) + 1
    if _LETTERS.fullmatch(inside):
        return 52  # at most
    if "," not in inside:
        raise bad(f"'{{{inside}}}' in '{pattern}' means nothing", "index", _BRACES)
    return sum(map(_product, inside.split(",")))


def _product(text: str) -> int:
    count = 1
    for number in _COUNTED.findall(text):
        count *= int(number)
    return count


def _is_tar(word: str) -> bool:
    return word.endswith((".tar", *ENDINGS)) or any(c in word for c in "{*?[")


def _refused(word: str) -> Problem | None:
    if word.startswith("pipe:"):
        fix = "fetch the tars into a folder yourself and give the folder: no command is run"
        return Problem(f"'{word}' is a command", "index", fix)
    if word == "-":
        return Problem("'-' is standard input", "index", "unpack or copy the tars into a folder and give the folder")
    if re.match(r"\w{2,}:/", word):
        fix = "copy the tars here first; training reads addresses through its cache"
        return Problem(f"'{word}' is an address, `index` works on a folder", "index", fix)
    return None


def _local(word: str) -> str:
    """The path of `file:PATH` and `file:///PATH`, which WebDataset takes for files here."""
    found = _FILE.fullmatch(word)
    return unquote(found[1]) if found else word


def _found(name: str) -> Iterator[str]:
    """The file of this name, or those that fit where it has `*`, `?` or `[`."""
    if any(c in name for c in "*?[") and not Path(name).is_file():
        path = Path(name)
        hits = [str(p) for p in no_twins(path.parent.glob(path.name))]
        if not hits:
            raise bad("no file fits", name, "give the folder that holds the tars")
        yield from hits
    else:
        yield name
