"""Archives that lie where their files should: named, and opened where it matters whether something is in them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from shards.format.archive import no_twins
from shards.tables.identity import few

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar", ".z01", ".zip.001", ".zip.part")
ENDING = re.compile(f"(?:{'|'.join(map(re.escape, sorted(ARCHIVES, key=len, reverse=True)))})$", re.IGNORECASE)


def archives(root: Path) -> list[str]:
    """Archives in the root or a folder in it, by name."""
    found = [p for pattern in ("*", "*/*") for p in root.glob(pattern) if ENDING.search(p.name) and p.is_file()]
    return sorted(p.relative_to(root).as_posix() for p in no_twins(found))


def packed_fix(root: Path, found: Sequence[str] | None = None) -> str:
    """What to do about archives that lie there (all, or those that were found); '' where there are none."""
    found = archives(root) if found is None else found
    return (
        f"unpack the {len(found)} archives that lie there ({few(found)}), each in a folder of its own name or in --root"
        if found
        else ""
    )


def packed_away(root: Path, patterns: Iterable[str]) -> list[str]:
    """Archives that hold what patterns find: by the names in a zip, by its own name of any other that cannot be looked into."""
    wanted = [[p for p in pattern.split("/") if p != "**"] for pattern in patterns]
    return [name for name in archives(root) if any(_holds(parts, wanted) for parts in _members(root / name))]


def _members(path: Path) -> list[list[str]]:
    """Paths in an archive, below a folder of its own name."""
    stem = ENDING.sub("", path.name)
    try:
        with zipfile.ZipFile(path) as packed:
            return [[stem, *name.strip("/").split("/")] for name in packed.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile):
        return [[stem]]


def _holds(parts: Sequence[str], wanted: Iterable[Sequence[str]]) -> bool:
    """Whether a path holds the parts of a pattern one after another."""
    return any(
        all(map(fnmatchcase, parts[i : i + len(form)], form))
        for form in wanted
        for i in range(len(parts) - len(form) + 1)
    )
