"""Small data sets like the demo cohort with something planted in them: other labels, other members, fewer patients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Labels = dict[str, str | float]


@functools.cache
def _drawn() -> Callable[[Any, int], Mapping[Any, bytes]]:
    """Members of a sample, drawn once a process: they are most of what a small set costs, and the same in all sets."""
    from shards import demo

    return functools.cache(demo.members_of)


def planted(
    folder: Path,
    labels: Callable[[int, str, Labels], Labels] = lambda i, split, given: given,
    members: Callable[[int, dict[Any, bytes]], dict[Any, bytes]] = lambda i, given: given,
    patients: int = 20,
    rename: Callable[[str], str] = lambda name: name,
) -> Path:
    """The cohort's generator over `patients` patients. `labels(i, split, given)` and `members(i, given)` change sample i."""
    from shards import demo

    samples, members_of = demo.samples, _drawn()
    number: dict[tuple[int, int], int] = {}

    def changed() -> Any:
        rows = samples()
        number.update({(who.patient, k): i for i, (_, who, k) in enumerate(rows)})
        return [
            (replace(row, labels=labels(i, row.split, dict(row.labels)), patient=rename(row.patient)), who, k)
            for i, (row, who, k) in enumerate(rows)
        ]

    def planted_members(who: Any, k: int) -> Any:
        return members(number[who.patient, k], dict(members_of(who, k)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PATIENTS", patients)
        patch.setattr(demo, "samples", changed)
        patch.setattr(demo, "members_of", planted_members)
        return demo.generate(folder)


def relabelled(folder: Path, change: Callable[[int, str], str]) -> Path:
    """The data set with other lines in labels.csv (`change(row, line)`, the header being row 1), sealed again."""
    from shards.format.info import load_info, save_info, sha256_of

    table = folder / "labels.csv"
    table.write_text("".join(change(i, line) + "\n" for i, line in enumerate(table.read_text().splitlines(), 1)))
    info = load_info(folder)
    save_info(folder, info.model_copy(update={"files": {**info.files, "labels.csv": sha256_of(table)}}))
    return folder


def png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(content)))


def other_scanner(i: int, given: dict[Any, bytes]) -> dict[Any, bytes]:
    """Brighter films and other bags: nobody's content is that of the first hospital."""
    out = dict(given)
    for key, content in given.items():
        if key[1] == "png" and not key[0].startswith("mask"):
            out[key] = png(np.clip(pixels(content).astype(int) + 20 + i % 3, 0, 255))
        elif key[0] == "patches":
            file = BytesIO()
            np.save(file, np.load(BytesIO(content)) + np.float16(0.5))
            out[key] = file.getvalue()
    return out
