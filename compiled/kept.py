"""Where machine code is kept between processes, and which sources it is of.

The machine code of a function holds the functions that it calls and the constants that it reads, which may stand in other files. numba
looks at the file of the function alone; here a folder is named by the content of every file that counts, so that none is ever out of date.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

_IMPORT = re.compile(r"^[ \t]*(?:from +([\w.]+) +import +(\([^)]*\)|.*)|import +(.+))", re.MULTILINE)


ROOM = 1 << 16
"""Bytes that are written to see that there is room."""


class NotKeptError(RuntimeError):
    """No folder for machine code can be written."""

    def __init__(self, refused: Mapping[Path, OSError]):
        """`refused`: the folders that were tried, and why they cannot be."""
        tried = " and ".join(f"{place} ({e.strerror})" for place, e in refused.items())
        super().__init__(
            f"compiled machine code cannot be kept: {tried} cannot be written; name a folder that can be, on a disk of this "
            "machine or a shared one: export NUMBA_CACHE_DIR=FOLDER"
        )


@cache
def folder(module: str, file: str) -> Path:
    """A folder that can be written, for machine code of a module (its dotted name and its file) as its sources are now.

    Raises:
        NotKeptError: there is none; which were tried, and what to do.
    """
    refused = {}
    for place in places(Path(file)):
        path = place / f"compiled-{digest(module, file)}"
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path) as tried:
                tried.write(bytes(ROOM))
        except OSError as e:
            refused[place] = e
        else:
            return path
    raise NotKeptError(refused)


def places(file: Path) -> list[Path]:
    """Where machine code may be kept, best first: where the user says, else beside the source or in the user's cache."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(given)]
    users = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [file.with_name("__pycache__"), Path(users) / "medpair"]


@cache
def digest(module: str, file: str) -> str:
    """Of all that decides the machine code of a module, but for the processor."""
    sha = hashlib.sha256(repr([version(name) for name in ("numba", "llvmlite", "numpy")]).encode())
    for path in sources(module, Path(file)):
        sha.update(f"{path.name}\n".encode() + path.read_bytes())
    return sha.hexdigest()[:20]


def sources(module: str, file: Path) -> list[Path]:
    """Files of a module's own package that it imports, at any depth, itself and those of this package included; sorted."""
    root, package = file.resolve().parents[module.count(".")], module.partition(".")[0]
    found, waiting, asked = set(Path(__file__).resolve().parent.glob("*.py")), [module], {module}
    while waiting:
        place = root.joinpath(*waiting.pop().split("."))
        path = next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)
        if path is not None and path not in found:
            found.add(path)
            named = {name for name in _named(path.read_text()) if name.partition(".")[0] == package} - asked
            asked |= named
            waiting += named
    return sorted(found)


def _named(text: str) -> Iterator[str]:
    """Names of modules that a source imports, and of what is taken from them, which may be modules too."""
    for source, taken, plain in _IMPORT.findall(text):
        yield from re.findall(r"[\w.]+", plain)
        yield from filter(None, [source])
        yield from (f"{source}.{name}" for name in re.findall(r"\w+", taken))
