"""Packs the samples of a manifest into a data set: looks at everything first, says all that is wrong at once, then writes.

What headers and tables can tell (missing files, widths, NaN genes, keys, labels, splits) is known before a byte is written. The
content of bags and images is checked while it streams into the staging folder; a problem there also ends with nothing written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from shards.errors import DataError, Problem
from shards.format.describe import FieldTally
from shards.format.image_tally import ImageTally
from shards.format.info import KINDS, DatasetInfo, write_atomic
from shards.format.journal import Journal
from shards.format.seal import SampleRow, csv_bytes, describe, label_infos, write_rows, write_vocab
from shards.format.staging import disk_errors
from shards.jobs import in_order, usable, waiting
from shards.pack.chunks import Packer, Slots, cut
from shards.pack.entries import Entry, bare, forms_of
from shards.pack.manifest import Manifest, one_name_each, read_manifest
from shards.pack.options import PackOptions
from shards.pack.plan import PackPlan
from shards.pack.reference import Reader
from shards.pack.resume import digests
from shards.pack.survey import Survey
from shards.pack.write import DatasetWriter, Keys, refuse_used, staging_of
from shards.read.stats import write_stats
from shards.terminal import Progress

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
    options = replace(options, meanings=_with_pictures(manifest, options))
    images = ImageTally(options.meanings, options.keep_orientation)
    with Reader(images.turned, options.features, options.labels.words) as reader:
        plan = Survey(manifest, options, reader).plan()
        if plan.problems and plan.files.bytes > SMALL:
            raise DataError(plan.problems)
        options = replace(options, meanings=plan.meanings)
        plan.not_features += unmatched
        return _write(manifest, out, options, reader, plan, images), merged + plan.notes


def _with_pictures(manifest: Manifest, options: PackOptions) -> dict[str, Mapping[str, str]]:
    """The meanings, with what is done to the images of each field."""
    names = {n for n, ext in forms_of(manifest.entries).kinds if KINDS.get(ext) == "image"}
    done = {n: options.pictures.meaning(n) for n in sorted(names)}
    return {**options.meanings, **{n: {**options.meanings.get(n, {}), **said} for n, said in done.items() if said}}


def _write(
    manifest: Manifest,
    out: Path,
    options: PackOptions,
    reader: Reader,
    plan: PackPlan,
    images: ImageTally,
) -> DatasetInfo:
    """Second pass: content. After a first problem nothing more is written, but everything is still looked at."""
    entries = manifest.entries
    writer = DatasetWriter(
        out,
        shard_bytes=options.shard_bytes,
        shard_samples=options.shard_samples,
        overwrite=options.overwrite,
        journal=Journal(staging_of(out), digests(options, plan)),
    )
    with writer:
        tally, problems = _content(entries, writer, options, reader, plan, images)
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


def _content(
    entries: Sequence[Entry],
    writer: DatasetWriter,
    options: PackOptions,
    reader: Reader,
    plan: PackPlan,
    images: ImageTally,
) -> tuple[FieldTally, list[Problem]]:
    """All samples in order, made by `options.jobs` processes and written by this one."""
    jobs, done = usable(options.jobs, len(entries)), writer.done
    tally, problems = done.fields, list(plan.problems)
    images.merge(done.images)
    for entry in islice(bare(entries), done.samples):
        writer.keys.add(entry.sample)
    reader.let_go()
    slots = Slots(waiting(jobs)) if jobs > 1 else None
    packer = Packer(entries, reader, plan, options, slots)
    chunks = [*cut(plan.sizes, done.tallied, waiting(jobs))]
    with (
        Progress("packed", len(entries), "samples", done.samples) as progress,
        closing(in_order(packer, chunks, jobs)) as packed,
    ):
        progress.say(_gone_on(writer))
        progress.say(packer.said)
        for part in packed:
            problems += part.problems
            tally.merge(part.fields)
            images.merge(part.images)
            if not problems:
                for laid in part.samples[max(0, done.samples - part.chunk.first) :]:
                    writer.put(laid if slots is None else slots.give(part.chunk.slot, laid))
                writer.counted(part.chunk.stop, part.fields, part.images)
            progress.reached(part.chunk.stop)
    return tally, problems


def _gone_on(writer: DatasetWriter) -> str:
    """What is said of a command that was killed before this one."""
    if writer.anew:
        what = " and ".join(writer.anew)
        return f"what a killed command had packed is left: its {what} differed; packing begins anew"
    done = writer.done
    return (
        f"goes on after {done.samples} samples in {len(done.shards)} whole shards of a killed command"
        if done.shards
        else ""
    )


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
    assert writer.keys == Keys(r.sample for r in rows)
    with disk_errors(writer.out):
        hashes = write_vocab(folder, vocab)
        labels = label_infos(rows, label_kinds)
        write_rows(folder, rows, labels)
        info = DatasetInfo(
            name=options.name or writer.out.name,
            version=options.version,
            source=options.source,
            licence=options.licence,
            commercial=options.commercial,
            citation=options.citation,
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
