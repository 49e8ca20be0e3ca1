"""Bags: fields of one row a patch, [N, D]. Their names, the forms that tools write them in, and what their files say of the patches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shards.errors import Problem
from shards.format.canonical import canonical, same

if TYPE_CHECKING:
    import h5py

BAGS = ("patches", "coords")
JOB = re.compile(r"(\d+(?:\.\d+)?)x_(\d+)px_\d+px_overlap.*")
_OF_PATCHES = ("target_magnification", "extractor", "patch_size", "patch_level", "tile_size_px", "tile_size_um")
ATTRIBUTES = (*_OF_PATCHES, "unit", "feat_type")
FIX = "store it as [patches, features]: regions of patches (HIPT's [M, 256, 384]) reshaped, one vector a slide as a field of another name"


def is_bag(name: str) -> bool:
    """Fields whose rows are patches: `patches`, `coords`, and those named after them (`patches_uni`)."""
    return name.split("_")[0] in BAGS


def bag_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which a field is stored: a bag loses the leading axis of one that a batch of one slide left on it."""
    return shape[1:] if is_bag(name) and len(shape) == 3 and shape[0] == 1 else shape


class Told:
    """What the files of bags say of themselves, over all files of each field."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], tuple[str, str]] = {}  # (field, key) -> (value, the file that says so)
        self._others: dict[tuple[str, str, str], list[str]] = {}  # (field, key, other value) -> files
        self._telling: dict[tuple[str, str], set[str]] = {}  # (field, key) -> files that say it
        self._asked: dict[str, set[str]] = {}  # field -> its files

    def add(self, name: str, meaning: Mapping[str, str], place: str) -> None:
        """Takes note of what one file says, if only that it says nothing."""
        self._asked.setdefault(name, set()).add(place)
        for key, value in meaning.items():
            first, _ = self._first.setdefault((name, key), (value, place))
            self._telling.setdefault((name, key), set()).add(place)
            if not same(key, first, value):
                self._others.setdefault((name, key, value), []).append(place)

    def problems(self) -> list[Problem]:
        """Values that differ from the first, each once."""
        found = []
        for (name, key, value), places in self._others.items():
            first, where = self._first[name, key]
            more = f" and {len(places) - 1} more" if len(places) > 1 else ""
            what = f"{key} is '{first}' in {where} and '{value}' in {places[0]}{more}"
            alike = "bring bags of one encoder, magnification and patch size"
            fix = {"slices": "cut all volumes across one axis", "window": "bring volumes of one dtype"}.get(key, alike)
            found.append(Problem(what, f"field '{name}'", fix))
        return found

    def notes(self) -> list[str]:
        """What only some files of a field say."""
        lines = []
        for (name, key), files in self._telling.items():
            if len(files) < (total := len(self._asked[name])):
                value, _ = self._first[name, key]
                lines.append(
                    f"{name}: {key} {value} is said by {len(files)} of {total} files; the others say nothing of it"
                )
        return lines

    def meanings(self) -> dict[str, dict[str, str]]:
        """{field: {key: value}}"""
        out: dict[str, dict[str, str]] = {}
        for (name, key), (value, _) in self._first.items():
            out.setdefault(name, {})[key] = value
        return out


def told_by(told: Mapping[str, Any]) -> tuple[dict[str, str], str | None]:
    """(meaning of the patches, unit of the coordinates) from the attributes of TRIDENT, CLAM or STAMP."""
    found: dict[str, str] = {}
    for key, attribute in (
        ("magnification", "target_magnification"),
        ("encoder", "extractor"),
        ("patch_size", "patch_size"),
        ("patch_size", "tile_size_px"),
        ("patch_level", "patch_level"),
    ):
        if attribute in told:
            found[key] = canonical(key, _plain(told[attribute]))
    if {"tile_size_um", "tile_size_px"} <= set(told):
        try:
            found["mpp"] = canonical("mpp", f"{float(told['tile_size_um']) / float(told['tile_size_px']):.4f}")
        except (TypeError, ValueError, ZeroDivisionError):
            del found["patch_size"]
    # Coordinates of TRIDENT and CLAM are pixels of the finest level; STAMP's are micrometres, which it says since 2.0.
    other = "px" if "patch_size" in told else "um" if "tile_size_um" in told else None
    return found, _plain(told["unit"]) if "unit" in told else other


def whole_slide(told: Mapping[str, Any]) -> str | None:
    """`slide` or `patient` where STAMP says that its features are of that, and not of tiles."""
    kind = _plain(told["feat_type"]) if "feat_type" in told else "tile"
    return None if kind == "tile" else kind


def attributes(*holders: h5py.HLObject | None) -> dict[str, Any]:
    """Those attributes of HDF5 objects that `told_by` understands; None holds none. Nothing else is read of them."""
    return {name: h.attrs[name] for h in holders if h is not None for name in ATTRIBUTES if name in h.attrs}


def _plain(value: object) -> str:
    """An attribute as text, whether stored as bytes, number or array of one."""
    value = value.item() if isinstance(value, np.ndarray | np.generic) and np.size(value) == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def told_by_name(folder: Path) -> dict[str, str]:
    """What TRIDENT's folders say: 20x_256px_0px_overlap/features_conch_v15."""
    parts = folder.resolve().parts
    for at in range(len(parts) - 1, -1, -1):
        if job := JOB.fullmatch(parts[at]):
            found = {"magnification": canonical("magnification", job[1]), "patch_size": canonical("patch_size", job[2])}
            encoder = parts[at + 1] if at + 1 < len(parts) else ""
            return found | ({"encoder": encoder.removeprefix("features_")} if encoder.startswith("features_") else {})
    return {}
