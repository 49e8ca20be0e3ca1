"""Packs the samples of a manifest into a data set: looks at everything first, says all that is wrong at once, then writes.

What headers and tables can tell (missing files, widths, NaN genes, keys, labels, splits) is known before a byte is written. The
content of bags and images is checked while it streams into the staging folder; a problem there also ends with nothing written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from shards.errors import DataError, Problem
from shards.format.bags import bag_shape
from shards.format.codecs import decode
from shards.format.describe import FieldTally, HeaderError, header_of
from shards.format.image_tally import ImageTally
from shards.format.info import KINDS, DatasetInfo, write_atomic
from shards.format.seal import SampleRow, csv_bytes, describe, label_infos, write_rows, write_vocab
from shards.format.staging import disk_errors
from shards.pack.dtypes import TOLERANCE, TRANSFORMS, convert, rounding_loss
from shards.pack.manifest import Entry, Manifest, one_name_each, read_manifest
from shards.pack.reference import Reader, Reference
from shards.pack.survey import PackOptions, PackPlan, Survey, cell_place
from shards.pack.write import DatasetWriter, npy_bytes, refuse_used
from shards.read.stats import write_stats

META = ("meta", "json")
SMALL = (
    1 << 30
)  # bytes of sources that are read to the end although something is wrong already, to tell all of it at once


def pack(manifest: Path, out: Path, options: PackOptions | None = None) -> tuple[DatasetInfo, list[str]]:
    """Packs a manifest file; see `pack_entries`."""
    options = options or PackOptions()
    return pack_entries(read_manifest(Path(manifest), options.labels), Path(out), options)


def pack_entries(
    manifest: Manifest, out: Path, options: PackOptions, unmatched: Sequence[tuple[str, str]] = ()
) -> tuple[DatasetInfo, list[str]]:
    """Writes the data set `out` and returns its description with notes on what was decided (dtypes, imputed values).

    `unmatched` are (id, reason) of what a source left out; with the rows and columns of tables that are no features they become
    `unmatched.csv` in the folder.

    Raises:
        DataError: all problems of the manifest and of what it refers to; `out` is then as it was.
    """
    refuse_used(out, options.overwrite)
    manifest, merged = one_name_each(manifest)
    images = ImageTally(options.meanings, options.keep_orientation)
    with Reader(images.turned, options.features, options.labels.words) as reader:
        plan = Survey(manifest, options, reader).plan()
        if plan.problems and plan.source_bytes > SMALL:
            raise DataError(plan.problems)
        options = replace(options, meanings=plan.meanings)
        plan.not_features += unmatched
        return _write(manifest, out, options, reader, plan, images), merged + plan.notes


def _write(
    manifest: Manifest,
    out: Path,
    options: PackOptions,
    reader: Reader,
    plan: PackPlan,
    images: ImageTally,
) -> DatasetInfo:
    """Second pass: content. After a first problem nothing more is written, but everything is still looked at."""
    problems = list(plan.problems)
    tally = FieldTally()
    with DatasetWriter(
        out, shard_bytes=options.shard_bytes, shard_samples=options.shard_samples, overwrite=options.overwrite
    ) as writer:
        for entry in manifest.entries:
            members = _members(entry, reader, plan, options, problems, images)
            if problems:
                continue
            for (name, ext), data in members.items():
                tally.add(entry.sample, name, ext, header_of(name, ext, data, images.turned(name)))
            writer.add(entry.sample, members)
        settled = images.settle()
        problems += settled.problems
        if problems:
            raise DataError(problems)
        plan.notes += [*settled.notes, *(f"warning: {w}" for w in settled.warnings)]
        options = replace(options, meanings={**options.meanings, **settled.meanings})
        with disk_errors(out):
            if plan.not_features:
                rows = sorted(plan.not_features)
                write_atomic(writer.staging / "unmatched.csv", csv_bytes(("id", "reason"), rows))
                plan.notes.append(f"what did not join or is no feature is listed in {out / 'unmatched.csv'}")
        return finish(writer, tally, plan.rows, manifest.label_kinds, plan.vocab, options)


def finish(
    writer: DatasetWriter,
    tally: FieldTally,
    rows: Sequence[SampleRow],
    label_kinds: Mapping[str, str],
    vocab: Mapping[str, Sequence[str]],
    options: PackOptions,
) -> DatasetInfo:
    """Side files and description of the samples that `writer` took, then the move to the final name."""
    shards, folder = writer.close_shards(), writer.staging
    assert writer.keys == [r.sample for r in rows]
    with disk_errors(writer.out):
        hashes = write_vocab(folder, vocab)
        labels = label_infos(rows, label_kinds)
        write_rows(folder, rows, labels)
        info = DatasetInfo(
            name=options.name or writer.out.name,
            version=options.version,
            source=options.source,
            licence=options.licence,
            fields=tally.infos(hashes, options.meanings),
            labels=labels,
            samples=len(rows),
            patients=0,
            shards=tuple(shards),
            leaking_splits=options.leaking_splits,
        )
        write_stats(folder, info, rows)
        info = describe(info, folder, rows)
    return writer.finish(info)


def meta_bytes(patient: str, labels: Mapping[str, str | float], provenance: Mapping[str, str]) -> bytes:
    """meta.json of a sample."""
    meta = {"patient": patient, "labels": dict(labels), "provenance": dict(provenance)}
    return json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()


def _members(
    entry: Entry, reader: Reader, plan: PackPlan, options: PackOptions, problems: list[Problem], images: ImageTally
) -> dict[tuple[str, str], bytes]:
    provenance = {n: r.text for n, r in entry.fields.items()} | dict.fromkeys(entry.texts, "manifest")
    members = {META: meta_bytes(entry.patient, entry.labels, provenance)}
    members |= {(n, "txt"): text.encode() for n, text in entry.texts.items()}
    for name, ref in entry.fields.items():
        if (entry.sample, name) in plan.refused:
            continue
        try:
            if KINDS[ref.ext] == "image":
                members[name, ref.ext] = data = reader.raw(ref)
                images.add(entry.sample, name, ref.ext, data)
            else:
                members[name, ref.ext] = _content(name, ref, reader, plan, options)
        except HeaderError as e:
            problems.append(Problem(str(e), cell_place(entry, name, ref), e.fix))
    bag, coords = (members.get((n, "npy")) for n in ("patches", "coords"))
    if (
        bag
        and coords
        and (a := header_of("patches", "npy", bag).shape)
        and (b := header_of("coords", "npy", coords).shape)
        and a[0] != b[0]
    ):
        problems.append(
            Problem(
                f"{a[0]} patches but {b[0]} coordinates",
                f"{entry.where} ('{entry.sample}')",
                "both must come from the same slide",
            )
        )
    return members


def _content(name: str, ref: Reference, reader: Reader, plan: PackPlan, options: PackOptions) -> bytes:
    """Bytes of one member, checked."""
    if KINDS[ref.ext] != "array":
        data = reader.raw(ref)
        try:
            value = decode(ref.ext, data)
        except DataError as e:
            raise HeaderError(e.problems[0].what) from e
        if not value.strip():
            raise HeaderError("is empty")
        return data
    array, dtype = reader.array(ref), plan.dtypes.get(name, "float32")
    array = array.reshape(bag_shape(name, array.shape))
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
