"""Packs the samples of a manifest into a data set: looks at everything first, says all that is wrong at once, then writes.

What headers and tables can tell (missing files, widths, NaN genes, keys, labels, splits) is known before a byte is written. The
content of bags and images is checked while it streams into the staging folder; a problem there also ends with nothing written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.codecs import decode
from shards.convert import DTYPES, TOLERANCE, TRANSFORMS, VectorProfile, array_dtype, convert, rounding_loss
from shards.describe import FieldTally, Header, HeaderError, header_of, is_mask
from shards.errors import DataError, Problem
from shards.format import KINDS, DatasetInfo, write_atomic
from shards.manifest import Entry, Manifest, read_manifest
from shards.reference import Reader, Reference
from shards.seal import SampleRow, describe, label_infos, vocab_problems, write_rows, write_vocab
from shards.split import assign
from shards.stats import write_stats
from shards.write import MAX_NAME, SHARD_BYTES, DatasetWriter, disk_errors, npy_bytes, refuse_used

META = ("meta", "json")
MAX_LISTED = 200  # problems of one pack; a wrong path prefix makes one a sample


@dataclass(frozen=True)
class PackOptions:
    """How to pack. Dictionaries map a field's name to its choice.

    dtypes: dtype on disk; default: the most compact that keeps the values (vectors), float16 (float arrays), int32 (coords).
    impute: what a NaN in a vector becomes: 'mean' (over the training split) or a number. Without it a NaN is a problem.
    transforms: 'log2p1' for log2(x + 1); applied before anything else.
    vocab: feature names of a vector field that does not come from a table, one a line in a text file.
    strip_version: fields whose feature names are Ensembl ids, cut at the point (ENSG00000141510.18 -> ENSG00000141510).
    """

    name: str | None = None
    version: str = "1"
    source: str = ""
    licence: str = ""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    impute: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, str] = field(default_factory=dict)
    vocab: Mapping[str, Path] = field(default_factory=dict)
    strip_version: Sequence[str] = ()
    fractions: Mapping[str, float] = field(default_factory=lambda: {"train": 0.8, "val": 0.1, "test": 0.1})
    split_seed: int = 0
    stratify: str | None = None
    shard_bytes: int = SHARD_BYTES
    shard_samples: int | None = None
    overwrite: bool = False


@dataclass
class _Plan:
    """What the inspection settled: everything that converting one sample needs."""

    rows: list[SampleRow]
    dtypes: dict[str, str]
    fills: dict[str, np.ndarray]
    vocab: dict[str, list[str]]
    notes: list[str]


def pack(manifest: Path, out: Path, options: PackOptions | None = None) -> tuple[DatasetInfo, list[str]]:
    """Packs a manifest file; see `pack_entries`."""
    return pack_entries(read_manifest(Path(manifest)), Path(out), options or PackOptions())


def pack_entries(
    manifest: Manifest, out: Path, options: PackOptions, side: Mapping[str, bytes] | None = None
) -> tuple[DatasetInfo, list[str]]:
    """Writes the data set `out` and returns its description with notes on what was decided (dtypes, imputed values).

    `side` holds further files to lie in the folder, by name; nothing reads them.

    Raises:
        DataError: all problems of the manifest and of what it refers to; `out` is then as it was.
    """
    refuse_used(out, options.overwrite)
    with Reader() as reader:
        plan = _Inspection(manifest, options, reader).plan()
        return _write(manifest, out, options, reader, plan, side or {}), plan.notes


class _Inspection:
    """First pass: headers, tables and vectors of every sample; collects problems and decides dtypes."""

    def __init__(self, manifest: Manifest, options: PackOptions, reader: Reader):
        self.manifest, self.options, self.reader = manifest, options, reader
        self.problems = list(manifest.problems)
        self.tally = FieldTally()
        self.profiles: dict[str, VectorProfile] = {}
        self.sources: dict[str, str] = {}  # source dtype of the fields with two axes or more
        self.vocab: dict[str, list[str]] = {}
        self.tables: set[Path] = set()
        self.missing: dict[str, list[str]] = {}

    def plan(self) -> _Plan:
        names = sorted({n for e in self.manifest.entries for n in (*e.fields, *e.texts)})
        self._check_options(names)
        rows = self._rows()
        split_of = {r.sample: r.split for r in rows}
        for name, path in self.options.vocab.items():
            self._read_vocab(name, path)
        for entry in self.manifest.entries:
            for name, ref in entry.fields.items():
                self._look(entry, name, ref, split_of.get(entry.sample) == "train")
            for name in entry.texts:
                self.tally.add(entry.sample, name, "txt", Header())
        self.vocab = {n: self._words(n) for n in sorted(self.vocab)}
        self.problems += [p for n, words in self.vocab.items() for p in vocab_problems(n, words)]
        self.problems += self.tally.problems(self.vocab)
        fills = self._fills()
        dtypes, notes = self._dtypes()
        if self.problems:
            raise _listed(self.problems)
        return _Plan(rows, dtypes, fills, self.vocab, notes)

    def _check_options(self, names: Sequence[str]) -> None:
        options = self.options
        flags: list[tuple[str, Sequence[str]]] = [
            ("--dtype", [*options.dtypes]),
            ("--impute", [*options.impute]),
            ("--transform", [*options.transforms]),
            ("--vocab", [*options.vocab]),
            ("--strip-version", options.strip_version),
        ]
        for flag, given in flags:
            for name in set(given) - set(names):
                self.problems.append(Problem(f"no field '{name}'", flag, f"fields of this manifest: {', '.join(names)}"))
        checks: list[tuple[str, Mapping[str, str], Sequence[str]]] = [("--dtype", options.dtypes, DTYPES), ("--transform", options.transforms, [*TRANSFORMS])]
        for flag, given_to, known in checks:
            for name, value in given_to.items():
                if value not in known:
                    self.problems.append(Problem(f"'{name}={value}'", flag, f"one of {', '.join(known)}"))

    def _rows(self) -> list[SampleRow]:
        entries, options = self.manifest.entries, self.options
        given = [e.split for e in entries]
        if any(given) and not all(given):
            self.problems.append(Problem("some lines have a split and some have none", "column 'split'", "fill all of them, or drop the column"))
        of: dict[str, str] = {}
        if not any(given) and entries and all(e.patient for e in entries):
            if options.stratify is not None and options.stratify not in self.manifest.label_kinds:
                self.problems.append(Problem(f"no label '{options.stratify}'", "--stratify", f"one of: {', '.join(self.manifest.label_kinds) or 'none'}"))
            strata = {e.patient: str(e.labels.get(options.stratify or "", "")) for e in entries}
            try:
                of = assign([e.patient for e in entries], options.fractions, options.split_seed, strata)
            except DataError as e:
                self.problems += e.problems
        return [SampleRow(e.sample, e.patient, e.split or of.get(e.patient, "train"), e.labels) for e in entries]

    def _read_vocab(self, name: str, path: Path) -> None:
        try:
            self.vocab[name] = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            self.problems.append(Problem(f"cannot be read ({e})", f"--vocab {name}={path}", "give a text file with one feature name a line"))

    def _look(self, entry: Entry, name: str, ref: Reference, in_train: bool) -> None:
        where = f"{entry.where} ('{entry.sample}'), field '{name}', {ref.text}"
        if not ref.path.is_file():
            self.problems.append(Problem("no such file", where, f"looked at {ref.path}; paths are relative to the manifest"))
            return
        if len(f"{entry.sample}.{name}.{ref.ext}") > MAX_NAME:
            self.problems.append(Problem(f"name of over {MAX_NAME} characters", where, "shorten the sample's key"))
        try:
            if ref.is_table and ref.path not in self.tables:
                self.tables.add(ref.path)
                self.problems += self.reader.table(ref.path).problems
            head = self.reader.header(name, ref)
            self.tally.add(entry.sample, name, ref.ext, head)
            if ref.is_table:
                self._same_vocab(name, ref, where)
            if KINDS[ref.ext] == "array":
                self._look_array(name, ref, head, where, in_train)
        except HeaderError as e:
            self.problems.append(Problem(str(e), where, "mend the reference or the file it names"))
        except DataError as e:
            self.problems += [p for p in e.problems if p not in self.problems]

    def _look_array(self, name: str, ref: Reference, head: Header, where: str, in_train: bool) -> None:
        assert head.shape is not None and head.dtype is not None
        if len(head.shape) != 1:
            self.sources.setdefault(name, head.dtype)
            if 0 in head.shape or not head.shape:
                self.problems.append(Problem(f"has shape {head.shape}: nothing in it", where, "drop the reference; an empty cell means the field is missing"))
            return
        x_D = self._transformed(name, self.reader.array(ref), where)
        profile = self.profiles.setdefault(name, VectorProfile(len(x_D)))
        if profile.width != len(x_D):
            return  # the tally reports differing widths
        if not np.isfinite(x_D).all():
            self.missing.setdefault(name, []).append(where)
            if name not in self.options.impute:
                self._report_missing(name, x_D, where)
        profile.add(x_D, in_train)

    def _transformed(self, name: str, x_D: np.ndarray, where: str) -> np.ndarray:
        kind = self.options.transforms.get(name, "none")
        if kind == "log2p1" and np.nanmin(x_D, initial=0) < 0:
            raise HeaderError(f"has negative values (down to {np.nanmin(x_D):g}): log2p1 is for counts and FPKM/TPM")
        return TRANSFORMS.get(kind, TRANSFORMS["none"])(x_D.astype(np.float32) if kind != "none" else x_D)

    def _report_missing(self, name: str, x_D: np.ndarray, where: str) -> None:
        bad_D = np.flatnonzero(~np.isfinite(x_D))
        words = self.vocab.get(name, [])
        which = ", ".join(words[i] if i < len(words) else f"column {i}" for i in bad_D[:3])
        fix = f"mend the values, or say what they become: --impute {name}=mean (over the training split) or --impute {name}=0"
        self.problems.append(Problem(f"{len(bad_D)} of {len(x_D)} values are NaN or infinite ({which})", where, fix))

    def _same_vocab(self, name: str, ref: Reference, where: str) -> None:
        words = self.reader.vocab(ref)
        if self.vocab.setdefault(name, words) is not words and self.vocab[name] != words:
            raise HeaderError("this table's features are not those of the field's first table, or in another order")

    def _words(self, name: str) -> list[str]:
        words = self.vocab[name]
        return [w.split(".")[0] for w in words] if name in self.options.strip_version else words

    def _fills(self) -> dict[str, np.ndarray]:
        fills = {}
        for name, how in self.options.impute.items():
            profile, where = self.profiles.get(name), f"--impute {name}={how}"
            if profile is None:
                continue
            if how != "mean":
                try:
                    fills[name] = np.full(profile.width, float(how), np.float32)
                except ValueError:
                    self.problems.append(Problem(f"'{how}' is neither 'mean' nor a number", where, "give one of them"))
                continue
            never = int((profile.train.count_D == 0).sum())
            if never:
                self.problems.append(Problem(f"{never} features have no value in the training split", where, f"drop them, or give a number: --impute {name}=0"))
            fills[name] = profile.train.mean_D.astype(np.float32)
        return fills

    def _dtypes(self) -> tuple[dict[str, str], list[str]]:
        dtypes = {n: self.options.dtypes.get(n, array_dtype(n, s)) for n, s in self.sources.items()}
        notes = []
        for name, profile in self.profiles.items():
            best, why = profile.dtype()
            if self.missing.get(name) and best == "int8" and self.options.impute.get(name) == "mean":
                best, why = "float16", "imputed means are no whole numbers"
            dtypes[name] = self.options.dtypes.get(name, best)
            notes.append(f"{name}: {dtypes[name]}" + (f" ({why})" if dtypes[name] == best else " (as asked)"))
            if self.missing.get(name):
                how, count = self.options.impute.get(name), len(self.missing[name])
                notes.append(f"{name}: {profile.missing} missing values of {count} samples became {how}")
        notes += [f"{n}: {d}" for n, d in dtypes.items() if n in self.sources]
        return dtypes, notes


def _write(
    manifest: Manifest, out: Path, options: PackOptions, reader: Reader, plan: _Plan, side: Mapping[str, bytes]
) -> DatasetInfo:
    """Second pass: content. After a first problem nothing more is written, but everything is still looked at."""
    problems: list[Problem] = []
    tally = FieldTally()
    with DatasetWriter(out, shard_bytes=options.shard_bytes, shard_samples=options.shard_samples, overwrite=options.overwrite) as writer:
        for entry in manifest.entries:
            members = _members(entry, reader, plan, options, problems)
            if problems:
                continue
            for (name, ext), data in members.items():
                tally.add(entry.sample, name, ext, header_of(name, ext, data))
            writer.add(entry.sample, members)
        if problems:
            raise _listed(problems)
        with disk_errors(out):
            for name, data in side.items():
                write_atomic(writer.staging / name, data)
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
            fields=tally.infos(hashes),
            labels=labels,
            samples=len(rows),
            patients=0,
            shards=tuple(shards),
        )
        write_stats(folder, info, rows)
        info = describe(info, folder, rows)
    return writer.finish(info)


def meta_bytes(patient: str, labels: Mapping[str, str | float], provenance: Mapping[str, str]) -> bytes:
    """meta.json of a sample."""
    meta = {"patient": patient, "labels": dict(labels), "provenance": dict(provenance)}
    return json.dumps(meta, sort_keys=True, ensure_ascii=False).encode()


def _members(entry: Entry, reader: Reader, plan: _Plan, options: PackOptions, problems: list[Problem]) -> dict[tuple[str, str], bytes]:
    provenance = {n: r.text for n, r in entry.fields.items()} | dict.fromkeys(entry.texts, "manifest")
    members = {META: meta_bytes(entry.patient, entry.labels, provenance)}
    members |= {(n, "txt"): text.encode() for n, text in entry.texts.items()}
    for name, ref in entry.fields.items():
        try:
            members[name, ref.ext] = _content(name, ref, reader, plan, options)
        except HeaderError as e:
            where = f"{entry.where} ('{entry.sample}'), field '{name}', {ref.text}"
            problems.append(Problem(str(e), where, "mend the file it names"))
    bag, coords = (members.get((n, "npy")) for n in ("patches", "coords"))
    if bag and coords and (a := header_of("patches", "npy", bag).shape) and (b := header_of("coords", "npy", coords).shape) and a[0] != b[0]:
        problems.append(Problem(f"{a[0]} patches but {b[0]} coordinates", f"{entry.where} ('{entry.sample}')", "both must come from the same slide"))
    return members


def _content(name: str, ref: Reference, reader: Reader, plan: _Plan, options: PackOptions) -> bytes:
    """Bytes of one member, checked."""
    if KINDS[ref.ext] != "array":
        data = reader.raw(ref)
        try:
            value = decode(ref.ext, data, indexed=is_mask(name))
        except DataError as e:
            raise HeaderError(e.problems[0].what) from e
        if KINDS[ref.ext] == "text" and not value.strip():
            raise HeaderError("is empty")
        return data
    array, dtype = reader.array(ref), plan.dtypes[name]
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
        raise HeaderError(f"{e}; choose another: --dtype {name}=float32 or int64") from e
    if array.ndim > 1 and dtype == "float16" and (loss := rounding_loss(array, cast)) > TOLERANCE:
        raise HeaderError(f"float16 would cost {loss:.1%} of its standard deviation; give --dtype {name}=float32")
    return npy_bytes(cast)


def _listed(problems: Sequence[Problem]) -> DataError:
    unique = list(dict.fromkeys(problems))
    if len(unique) <= MAX_LISTED:
        return DataError(unique)
    rest = len(unique) - MAX_LISTED
    return DataError([*unique[:MAX_LISTED], Problem(f"{rest} more problems", "manifest", "mend those above first")])
