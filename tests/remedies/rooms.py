"""All scenarios, by importing the files that hold them."""

from __future__ import annotations

from tests.remedies import (
    adopting,
    finetuning,
    mending,
    packing,
    sources_expression,
    sources_films,
    sources_layouts,
    sources_people,
    sources_slices,
    sources_slides,
    sources_studies,
    sources_survival,
    sources_tables,
    training,
)
from tests.remedies.scenario import ALL

__all__ = [
    "SCENARIOS",
    "adopting",
    "finetuning",
    "mending",
    "packing",
    "sources_expression",
    "sources_films",
    "sources_layouts",
    "sources_people",
    "sources_slices",
    "sources_slides",
    "sources_studies",
    "sources_survival",
    "sources_tables",
    "training",
]
SCENARIOS = tuple(ALL)
