"""Sources: what turns a public layout of files into a manifest; a layout in YAML (`shards.layout`), or a module for what YAML cannot say.

A layout is found by its name in configs/layout, or by the path of a file of one's own. A module here registers itself with `@register`;
nothing lists either.

A source adds its own options to a parser and returns a `Manifest`; packing, checking and splitting are the same for all.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.errors import bad
from shards.pack.manifest import Manifest


@dataclass
class Found:
    """What a source made of its files.

    notes: lines for the person who runs it (how many joined, what was detected).
    unmatched: (identifier, reason) of everything that was left out; becomes `unmatched.csv` beside the data set.
    pack: options for packing that the source knows best (transforms, stratify, licence); what the user gives wins. `scratch` is a folder
        that is removed when the data set is packed.
    """

    manifest: Manifest
    notes: list[str] = field(default_factory=list)
    unmatched: Sequence[tuple[str, str]] = ()
    pack: dict[str, Any] = field(default_factory=dict)


def left_out(unmatched: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each reason, with its count; what a reason adds in brackets is in unmatched.csv alone."""
    kinds = Counter(reason.partition(" (")[0] for _, reason in unmatched)
    return [f"  {n} x {reason}" for reason, n in kinds.most_common()]


@dataclass(frozen=True)
class Layout:
    """A registered source: `options` adds its arguments to a parser, `find` reads them into a manifest."""

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    find: Callable[[argparse.Namespace], Found]


Find = Callable[[argparse.Namespace], Found]
_registered: dict[str, Layout] = {}


def register(name: str, options: Callable[[argparse.ArgumentParser], None]) -> Callable[[Find], Find]:
    """Function decorator: makes `find(args) -> Found` known as the source `name`; its docstring's first line is the help."""

    def add(find: Find) -> Find:
        _registered[name] = Layout(name, (find.__doc__ or "").strip().splitlines()[0], options, find)
        return find

    return add


def source_names() -> list[str]:
    """All sources, by file name: modules and layouts."""
    # Here and below: what reads layouts takes longer to load than all else that packing a manifest needs.
    from shards.layout.files import layout_names

    return sorted(
        [*(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_")), *layout_names()]
    )


def is_file(name: str) -> bool:
    """Whether a source is given as the path of a layout."""
    return name.endswith((".yaml", ".yml"))


def get_source(name: str) -> Layout:
    """The source registered as `name`, or the layout of that name or path.

    Raises:
        DataError: unknown name, and the nearest is named; a layout that says what means nothing.
    """
    from shards.layout.files import layout_names
    from shards.sources._by_layout import by_layout

    if is_file(name) or name in layout_names():
        return by_layout(name)
    if name not in source_names():
        near = difflib.get_close_matches(name, source_names(), n=1, cutoff=0.4)
        raise bad(
            f"no source '{name}'",
            "source",
            f"did you mean '{near[0]}'?" if near else f"known: {', '.join(source_names())}",
        )
    importlib.import_module(f"shards.sources.{name}")
    return _registered[name]
