"""Layouts as files: by name in configs/layout, or by a path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from shards.errors import DataError, Problem, bad
from shards.layout.schema import Layout, Sourced
from shards.yaml_text import MOST_BYTES, parse

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "layout"


def layout_names() -> list[str]:
    """The layouts that come with medpair."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def path_of(name: str) -> Path:
    """The file of a layout: itself, or a name in `FOLDER`."""
    return Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"


def about(name: str) -> str:
    """The line `about`, without reading the whole layout: every command line lists all sources."""
    path = path_of(name)
    found = (
        re.search(r'^about: *"?(.*?)"? *$', path.read_text(errors="replace"), re.MULTILINE) if path.is_file() else None
    )
    return found[1] if found else "a layout of one's own"


def source_of(name: str) -> str | None:
    """The source in Python that a layout names, without reading the whole layout; None where the engine reads the set itself."""
    path = path_of(name)
    found = re.search(r"^source: *(\w+)", path.read_text(errors="replace"), re.MULTILINE) if path.is_file() else None
    return found[1] if found else None


def load(name: str) -> Layout | Sourced:
    """A layout by its name, or a file of one's own.

    Raises:
        DataError: not there, not YAML, or it says what means nothing; all of it at once.
    """
    path = path_of(name)
    values = _read(path)
    try:
        sourced = isinstance(values, dict) and "source" in values
        return Sourced.model_validate(values) if sourced else Layout.model_validate(values)
    except ValidationError as e:
        raise DataError([_problem(path, dict(one)) for one in e.errors()]) from e


def _read(path: Path) -> object:
    fix = "give a layout as docs/layouts.md describes it"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise bad(f"more than {MOST_BYTES:,} bytes, no layout that a person wrote", path, fix)
        return parse(path.read_bytes().decode("utf-8-sig"))
    except OSError as e:
        raise bad(f"cannot be read ({e.strerror})", path, fix) from e
    except (UnicodeDecodeError, yaml.YAMLError) as e:
        raise bad(f"is no YAML in UTF-8 ({' '.join(str(e).split())})", path, fix) from e


def _problem(path: Path, error: dict[str, Any]) -> Problem:
    place = ".".join(str(p) for p in error["loc"] if p not in ("str", "Listed"))
    said = error["msg"].removeprefix("Value error, ")
    return Problem(
        f"{place + ': ' if place else ''}{said}", str(path), "mend the layout (docs/layouts.md lists its keys)"
    )
