"""Layouts as sources: read by the engine, or by the source in Python that they name."""

from __future__ import annotations

import argparse
from pathlib import Path

from shards.errors import bad
from shards.layout import engine, sourced
from shards.layout.begun import remove
from shards.layout.files import about, load, path_of, source_of
from shards.layout.schema import Layout as Whole
from shards.layout.schema import Sourced, Terms
from shards.sources import Found, Layout, get_source


def by_layout(name: str) -> Layout:
    """The source that a layout, by name or path, is."""
    return _by_python(name, inner) if (inner := source_of(name)) else _by_engine(name)


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
        notes, scratch, unmatched = sourced.resolve(layout, args)
        try:
            found = of.find(args)
        except BaseException:
            if scratch is not None:
                remove(scratch)
            raise
        more = {"scratch": scratch} if scratch is not None else {}
        return Found(
            found.manifest,
            [*notes, *found.notes],
            [*unmatched, *found.unmatched],
            {**found.pack, **terms_of(layout), **more},
        )

    return Layout(name, layout.about, lambda parser: sourced.options(layout, parser, of.options), find)


def terms_of(layout: Terms) -> dict[str, str]:
    return {"licence": layout.licence, "commercial": layout.commercial, "citation": layout.citation}
