"""Files that are not there under their names, but nearly: packed, begun to be downloaded, downloaded twice, in other letters."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from shards.errors import typed
from shards.layout.walk import MAGIC, Walk

BEGUN = re.compile(r"\.(part|partial|crdownload|download|aria2|tmp)$", re.IGNORECASE)
COPY = re.compile(r" ?(\(\d+\)|- Copy)(?=(\.\w+)*$)")
"""What browsers and Windows add to the name of a second copy."""


def nearly(root: Path, patterns: Iterable[str]) -> str:
    """What to do about the first file that would be the table under another name; '' where there is none."""
    return next((said for pattern in patterns for said in _in_its_folder(root, pattern)), "")


def _in_its_folder(root: Path, pattern: str) -> Iterator[str]:
    folder, _, name = pattern.rpartition("/")
    for path in sorted(Walk(root, [f"{folder}/*" if folder else "*"]).names()):
        if (root / path).is_dir():
            continue
        shown = path.rpartition("/")[2]
        if BEGUN.search(shown):
            if not _is(BEGUN.sub("", shown), name):
                continue
            yield f"finish the download of '{path}', whose name says that it was begun"
        elif shown.lower().endswith(".gz") and _is(shown[:-3], name):
            yield f"gunzip {typed(root / path)}"
        elif _is(COPY.sub("", shown), name):
            right = COPY.sub("", shown) if MAGIC.search(name) else name
            yield f"rename '{path}' to '{f'{folder}/' * bool(folder)}{right}'"


def _is(name: str, pattern: str) -> bool:
    return fnmatchcase(name.lower(), pattern.lower())


def alike(root: Path, others: Iterable[str], wanted: Iterable[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """(file that is there, path that was looked for) where they differ in case, or in zeros that begin the name.

    Args:
        others: files below the root that nothing uses.
        wanted: the paths, `*` in some, by which one file was looked for.
    """
    there = defaultdict[str, list[str]](list)
    for other in others:
        there[_plain(other).rpartition("/")[2]].append(other)
    read = set[str]()
    for names in wanted:
        for name in names:
            folder, _, last = _plain(name).rpartition("/")
            beside = name.rpartition("/")[0]
            if "*" not in beside and beside not in read:
                read.add(beside)
                for found in _listed(root, beside):
                    there[_plain(found).rpartition("/")[2]].append(found)
            right = next((o for o in there[last] if fnmatchcase(_plain(o).rpartition("/")[0], folder)), None)
            if right and not fnmatchcase(right, name):
                yield right, name
                break


def _listed(root: Path, folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}".lstrip("/") for name in os.listdir(root / folder)]
    except OSError:
        return []


def _plain(path: str) -> str:
    """A path without what programs change in an id: case, and zeros that lead."""
    folder, _, last = path.lower().rpartition("/")
    return f"{folder}/{last.lstrip('0')}"
