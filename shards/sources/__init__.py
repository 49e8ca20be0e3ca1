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
from shards.layout import engine, sourced
from shards.layout.begun import remove
from shards.layout.files import about, layout_names, load, path_of, source_of
from shards.layout.schema import Layout as Whole
from shards.layout.schema import Sourced, Terms
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
    if is_file(name) or name in layout_names():
        return _by_python(name, inner) if (inner := source_of(name)) else _by_engine(name)
    if name not in source_names():
        near = difflib.get_close_matches(name, source_names(), n=1, cutoff=0.4)
        raise bad(
            f"no source '{name}'",
            "source",
            f"did you mean '{near[0]}'?" if near else f"known: {', '.join(source_names())}",
        )
    importlib.import_module(f"shards.sources.{name}")
    return _registered[name]


def _by_engine(name: str) -> Layout:
    def find(args: argparse.Namespace) -> Found:
        layout = load(name)
        assert isinstance(layout, Whole)
        laid = engine.find(layout, args)
        return Found(laid.manifest, laid.notes, laid.unmatched, {**laid.pack, **terms_of(layout)})

    return Layout(name, about(name), engine.options, find)


def _by_python(name: str, inner: str) -> Layout:
    """A layout that names a source in Python."""
    layout = load(name)
    assert isinstance(layout, Sourced)
    if inner not in (p.stem for p in Path(__file__).parent.glob("[!_]*.py")):
        raise bad(f"no source '{inner}' in Python", path_of(name), "mend the layout (docs/layouts.md lists its keys)")
    of = get_source(inner)

    def find(args: argparse.Namespace) -> Found:
        notes, scratch = sourced.resolve(layout, args)
        try:
            found = of.find(args)
        except BaseException:
            if scratch is not None:
                remove(scratch)
            raise
        more = {"scratch": scratch} if scratch is not None else {}
        return Found(
            found.manifest, [*notes, *found.notes], found.unmatched, {**found.pack, **terms_of(layout), **more}
        )

    return Layout(name, layout.about, lambda parser: sourced.options(layout, parser, of.options), find)


def terms_of(layout: Terms) -> dict[str, str]:
    return {"licence": layout.licence, "commercial": layout.commercial, "citation": layout.citation}
