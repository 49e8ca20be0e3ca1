"""One sample of a manifest as members of a shard: read, checked, converted as the survey has settled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from shards.errors import DataError, Problem
from shards.format.bags import bag_shape
from shards.format.codecs import decode
from shards.format.describe import HeaderError, header_of
from shards.format.image_tally import ImageTally
from shards.format.info import KINDS
from shards.pack.dtypes import TOLERANCE, TRANSFORMS, convert, rounding_loss
from shards.pack.manifest import Entry
from shards.pack.options import PackOptions
from shards.pack.pictures import Pictures, holds_boxes, scaled_boxes
from shards.pack.plan import PackPlan, cell_place
from shards.pack.reference import Reader, Reference
from shards.pack.write import npy_bytes

META = ("meta", "json")
_sorted = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def meta_bytes(patient: str, labels: Mapping[str, str | float], provenance: Mapping[str, str]) -> bytes:
    """meta.json of a sample."""
    meta = {"patient": patient, "labels": dict(labels), "provenance": dict(provenance)}
    return _sorted(meta).encode()


def members_of(
    entry: Entry, reader: Reader, plan: PackPlan, options: PackOptions, images: ImageTally, problems: list[Problem]
) -> dict[tuple[str, str], bytes]:
    """The members of a sample by (field, extension); what is wrong with its files goes to `problems`."""
    provenance = {n: r.text for n, r in entry.fields.items()} | dict.fromkeys(entry.texts, "manifest")
    members = {META: meta_bytes(entry.patient, entry.labels, provenance)}
    members |= {(n, "txt"): text.encode() for n, text in entry.texts.items()}
    pictures = Pictures(options.pictures, images)
    if not options.pictures.untouched and "image" in entry.fields:
        with suppress(HeaderError):  # which is told below
            pictures.begin((entry.fields["image"].ext, reader.raw("image", entry.fields["image"])))
    for name, ref in entry.fields.items():
        if (entry.sample, name) in plan.refused:
            continue
        try:
            if KINDS[ref.ext] == "image":
                ext, data = pictures.stored(entry.sample, name, ref.ext, reader.raw(name, ref))
                members[name, ext] = data
            else:
                members[name, ref.ext] = _content(name, ref, reader, plan, options, pictures.scale)
        except HeaderError as e:
            problems.append(Problem(str(e), cell_place(entry, name, ref), e.fix))
    problems += _uneven(entry, members)
    return members


def _uneven(entry: Entry, members: Mapping[tuple[str, str], bytes]) -> list[Problem]:
    """Patches without a place each."""
    bag, coords = (members.get((n, "npy")) for n in ("patches", "coords"))
    if not bag or not coords:
        return []
    rows = [header_of("patches", "npy", data).shape for data in (bag, coords)]
    if not all(rows) or rows[0][0] == rows[1][0]:  # type: ignore[index]
        return []
    what = f"{rows[0][0]} patches but {rows[1][0]} coordinates"  # type: ignore[index]
    return [Problem(what, f"{entry.where} ('{entry.sample}')", "both must come from the same slide")]


def _content(
    name: str, ref: Reference, reader: Reader, plan: PackPlan, options: PackOptions, scale: tuple[float, float]
) -> bytes:
    """Bytes of one member, checked."""
    if KINDS[ref.ext] != "array":
        data = reader.raw(name, ref)
        try:
            value = decode(ref.ext, data)
        except DataError as e:
            raise HeaderError(e.problems[0].what) from e
        if not value.strip():
            raise HeaderError("is empty")
        return data
    array, dtype = reader.array(ref), plan.dtypes.get(name, "float32")
    array = array.reshape(bag_shape(name, array.shape))
    if options.pictures.side and holds_boxes(name, options.meanings):
        if array.ndim != 2 or array.shape[1] != 4:
            raise HeaderError(f"has shape {array.shape}: boxes are rows of four numbers")
        array = scaled_boxes(array, scale)
    kind = options.transforms.get(name, "none")
    if kind != "none":
        array = TRANSFORMS[kind](array.astype(np.float32))
    if array.ndim == 1 and name in plan.fills:
        array = np.where(np.isfinite(array), array, plan.fills[name])
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise HeaderError(f"{int((~np.isfinite(array)).sum())} values are NaN or infinite")
    try:
        cast = convert(array, dtype)
    except HeaderError as e:
        raise HeaderError(str(e), f"choose another dtype, such as --dtype {name}=float32") from e
    if array.ndim > 1 and dtype == "float16" and (loss := rounding_loss(array, cast)) > TOLERANCE:
        raise HeaderError(f"float16 would cost {loss:.1%} of its standard deviation", f"--dtype {name}=float32")
    return npy_bytes(cast)
