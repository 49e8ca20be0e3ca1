"""The first look at a manifest before packing: headers, tables and vectors of every sample; collects problems and decides dtypes."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np

from shards.errors import DataError, Problem
from shards.format.bags import Told, bag_shape
from shards.format.describe import FieldTally, Header, HeaderError
from shards.format.info import KINDS
from shards.format.meaning import FLAG, joined
from shards.format.seal import vocab_problems
from shards.pack.dtypes import TRANSFORMS, VectorProfile, array_dtype
from shards.pack.entries import Entry, bare, forms_of, line_of
from shards.pack.feature_tables import differs
from shards.pack.files import Files
from shards.pack.logarithms import looks, no_logarithm
from shards.pack.manifest import Manifest
from shards.pack.options import PackOptions, check_options
from shards.pack.pictures import holds_boxes
from shards.pack.plan import PackPlan, cell_place
from shards.pack.reference import Reader, Reference
from shards.pack.rows import Rows
from shards.pack.split import shared_out
from shards.pack.write import MAX_NAME
from shards.read.stats import CODES, MISSING_CODE, odd_codes
from shards.tables.cells import number
from shards.tables.echoes import Echoes
from shards.tables.encoded import Encoded
from shards.tables.feature_names import without_version
from shards.tables.table_file import read_text


class Survey:
    """Call `plan` once."""

    def __init__(self, manifest: Manifest, options: PackOptions, reader: Reader):
        self.manifest, self.options, self.reader = manifest, options, reader
        self.problems = list(manifest.problems)
        self.tally = FieldTally()
        self.profiles: dict[str, VectorProfile] = {}
        self.sources: dict[str, str] = {}  # source dtype of the fields with two axes or more
        self.vocab: dict[str, list[str]] = {}
        self.missing: dict[str, int] = {}  # samples with NaN
        self.echoes = Echoes()
        self.files, self.sizes = Files(options.scratch), array("q")
        self._manifest = hashlib.sha256()
        self.refused: set[tuple[str, str]] = set()
        self.squeezed: dict[str, int] = {}  # bags that came as [1, N, D]
        self.told = Told()

    def plan(self) -> PackPlan:
        forms = forms_of(self.manifest.entries)
        check_options(self.options, forms.names)
        rows = self._rows()
        for name, path in self.options.vocab.items():
            self._read_vocab(name, path)
        strip = set(self.options.strip_version)
        if strip:
            self.reader.tables.strip = {
                r.path for e in self.manifest.entries for n, r in e.fields.items() if n in strip
            }
        self.reader.tables.asked = forms.asked
        for i, entry in enumerate(self.manifest.entries):
            self._manifest.update(line_of(entry))
            self.sizes.append(sum(map(len, entry.texts.values())))
            for name, ref in entry.fields.items():
                self._look(entry, name, ref, rows.split_of(i, entry) == "train")
            for name in entry.texts:
                self.tally.add(entry.sample, name, "txt", Header())
        self.vocab = {n: self._words(n) for n in sorted(self.vocab)}
        self.problems += [p for n, words in self.vocab.items() for p in vocab_problems(n, words)]
        self.problems += [*self.tally.problems(self.vocab), *self.told.problems(), *self.reader.tables.unused()]
        self.problems += self.echoes.problems(self.vocab, self.options.features)
        fills = self._fills()
        dtypes, notes = self._dtypes()
        notes = [*self.manifest.notes, *self.told.notes(), *self.reader.tables.notes(), *notes]
        meanings, said = self._meanings()
        left_out = self.reader.tables.left_out()
        return PackPlan(
            rows,
            dtypes,
            fills,
            self.vocab,
            notes + said,
            self.problems,
            self.refused,
            self.files,
            self._manifest.hexdigest(),
            self.sizes,
            meanings,
            left_out,
        )

    def _rows(self) -> Rows:
        entries, options = self.manifest.entries, self.options
        given = sum(bool(e.split) for e in bare(entries))
        if 0 < given < len(entries):
            self.problems.append(
                Problem(
                    "some lines have a split and some have none",
                    "column 'split'",
                    "fill all of them, or drop the column",
                )
            )
        if given or not entries or not all(e.patient for e in bare(entries)):
            return Rows(entries)
        by = options.stratify
        if by is not None and by not in self.manifest.label_kinds:
            fix = f"one of: {', '.join(self.manifest.label_kinds) or 'none'}"
            self.problems.append(Problem(f"no label '{by}'", "--stratify", fix))
        patients = Encoded(e.patient for e in bare(entries))
        stratum_P = np.zeros(len(patients.names), np.int32)
        if by:
            # Of a patient's samples the last one's.
            stratum_P[patients.code_N] = Encoded(str(e.labels.get(by, "")) for e in bare(entries)).code_N
        try:
            of_P = shared_out(stratum_P, options.fractions, options.split_seed)
        except DataError as e:
            self.problems += e.problems
            return Rows(entries)
        return Rows(entries, [*options.fractions], of_P[patients.code_N])

    def _read_vocab(self, name: str, path: Path) -> None:
        try:
            self.vocab[name] = read_text(path).splitlines()
        except DataError as e:
            fix = "give a text file with one feature name a line"
            self.problems.append(Problem(e.problems[0].what, f"--vocab {name}={path}", fix))

    def _look(self, entry: Entry, name: str, ref: Reference, in_train: bool) -> None:
        """Looks at one cell; whatever is wrong with it becomes a problem."""
        try:
            for part in ref.parts:
                self.files.note(part.path)
            if len(f"{entry.sample}.{name}.{ref.ext}") > MAX_NAME:
                raise HeaderError(f"name of over {MAX_NAME} characters", "shorten the sample's key")
            head = self._as_stored(name, self.reader.header(name, ref))
            self.tally.add(entry.sample, name, ref.ext, head, source=ref.text)
            self.sizes[-1] += self._expected(name, ref, head)
            for said in self.reader.told(name, ref):
                self.told.add(name, said, ref.text)
            if ref.is_table:
                self._same_vocab(name, ref)
            if KINDS[ref.ext] == "array":
                self._look_array(entry, name, ref, head, in_train)
        except HeaderError as e:
            self.refused.add((entry.sample, name))
            self.problems.append(Problem(str(e), cell_place(entry, name, ref), e.fix))
        except DataError as e:  # an unreadable table, said once
            self.refused.add((entry.sample, name))
            self.problems += [p for p in e.problems if p not in self.problems]

    def _expected(self, name: str, ref: Reference, head: Header) -> int:
        """Bytes that the member will have, more or less."""
        if head.shape is None or (KINDS[ref.ext] != "array" and ref.rows is None):
            return self.files.note(ref.path)
        return int(np.prod(head.shape)) * np.dtype(head.dtype or "float32").itemsize

    def _as_stored(self, name: str, head: Header) -> Header:
        """The form in which an array is stored: bags without a batch's axis of one, any dtype where one was asked for."""
        if head.shape is None:
            return head
        if name in self.options.dtypes and len(head.shape) > 1:
            head = replace(head, dtype=self.options.dtypes[name])
        assert head.shape is not None
        if (shape := bag_shape(name, head.shape)) != head.shape:
            self.squeezed[name] = self.squeezed.get(name, 0) + 1
            head = replace(head, shape=shape)
        return head

    def _look_array(self, entry: Entry, name: str, ref: Reference, head: Header, in_train: bool) -> None:
        assert head.shape is not None
        assert head.dtype is not None
        if len(head.shape) != 1:
            self.sources.setdefault(name, head.dtype)
            if 0 in head.shape or not head.shape:
                fix = "drop the reference; an empty cell means the field is missing"
                raise HeaderError(f"has shape {head.shape}: nothing in it", fix)
            return
        x_D = self.reader.array(ref)
        self.echoes.add(name, x_D, entry.labels)
        x_D = self._transformed(name, x_D)
        profile = self.profiles.setdefault(name, VectorProfile(len(x_D)))
        if profile.width != len(x_D):
            return  # the tally reports differing widths
        if wrong := odd_codes(name, x_D):
            raise HeaderError(wrong, f"code copies of one allele as 0, 1, 2 and a missing call as {MISSING_CODE[name]}")
        profile.add(x_D, in_train)
        if not np.isfinite(x_D).all():
            self.missing[name] = self.missing.get(name, 0) + 1
            if name not in self.options.impute:
                raise self._missing(name, x_D)

    def _transformed(self, name: str, x_D: np.ndarray) -> np.ndarray:
        kind = self.options.transforms.get(name, "none")
        if kind == "log2p1" and np.nanmin(x_D, initial=0) < 0:
            raise HeaderError(f"has negative values (down to {np.nanmin(x_D):g}): log2p1 is for counts and FPKM/TPM")
        return TRANSFORMS.get(kind, TRANSFORMS["none"])(x_D.astype(np.float32) if kind != "none" else x_D)

    def _missing(self, name: str, x_D: np.ndarray) -> HeaderError:
        bad_D = np.flatnonzero(~np.isfinite(x_D))
        words = self.vocab.get(name, [])
        which = ", ".join(words[i] if i < len(words) else f"column {i}" for i in bad_D[:3])
        fix = (
            f"mend the values, or say what they become: "
            f"--impute {name}=mean (over the training split) or --impute {name}=0"
        )
        return HeaderError(f"{len(bad_D)} of {len(x_D)} values are NaN or infinite ({which})", fix)

    def _same_vocab(self, name: str, ref: Reference) -> None:
        """The features of a field are those of its first table, in whichever order another table has them."""
        words = self.reader.vocab(ref)
        first = self.vocab.setdefault(name, words)
        if first is words or first == words or self.reader.tables.align(ref.path, ref.by_column, first):
            return
        raise differs(first, words, "*" * (name in self.options.strip_version))

    def _words(self, name: str) -> list[str]:
        words = self.vocab[name]
        return [without_version(w) for w in words] if name in self.options.strip_version else words

    def _fills(self) -> dict[str, np.ndarray]:
        fills = {}
        for name, how in self.options.impute.items():
            profile, where = self.profiles.get(name), f"--impute {name}={how}"
            if profile is None:
                continue
            if how != "mean":
                if (value := number(how)) is None:
                    self.problems.append(Problem(f"'{how}' is neither 'mean' nor a number", where, "give one of them"))
                else:
                    fills[name] = np.full(profile.width, value, np.float32)
                continue
            never = int((profile.train.count_D == 0).sum())
            if never:
                self.problems.append(
                    Problem(
                        f"{never} features have no value in the training split",
                        where,
                        f"drop them, or give a number: --impute {name}=0",
                    )
                )
            fills[name] = profile.train.mean_D.astype(np.float32)
        return fills

    def _dtypes(self) -> tuple[dict[str, str], list[str]]:
        dtypes = {n: self.options.dtypes.get(n, array_dtype(n, s)) for n, s in self.sources.items()}
        told = self.told.meanings()
        floats = [n for n, s in self.sources.items() if s.startswith("float")]
        micrometres = [n for n in floats if told.get(n, {}).get("unit") == "um"]
        # These have fractions, or get them.
        boxes = [n for n in self.sources if self.options.pictures.side and holds_boxes(n, self.options.meanings)]
        dtypes |= {n: "float32" for n in (*micrometres, *boxes) if n not in self.options.dtypes}
        notes = []
        for name, profile in self.profiles.items():
            best, why = profile.dtype()
            if self.missing.get(name) and best == "int8" and self.options.impute.get(name) == "mean":
                best, why = "float16", "imputed means are no whole numbers"
            dtypes[name] = self.options.dtypes.get(name, best)
            notes.append(f"{name}: {dtypes[name]}" + (f" ({why})" if dtypes[name] == best else " (as asked)"))
            if self.missing.get(name):
                how, count = self.options.impute.get(name), self.missing[name]
                notes.append(f"{name}: {profile.missing} missing values of {count} samples became {how}")
        notes += [f"{n}: {d}" for n, d in dtypes.items() if n in self.sources]
        notes += [
            f"{n}: {k} bags had a leading axis of one, [1, N, D], and are stored as [N, D]"
            for n, k in self.squeezed.items()
        ]
        return dtypes, notes

    def _meanings(self) -> tuple[dict[str, dict[str, str]], list[str]]:
        """What the fields' numbers are: as stated, as their files say, and what packing does to them; and what should be said of it."""
        done = {n: {"transform": kind} for n, kind in self.options.transforms.items() if kind != "none"}
        try:
            meanings = joined(
                self.options.meanings, done, FLAG, "state what packing does (--transform), or pack without it"
            )
            meanings = joined(
                meanings, self.told.meanings(), FLAG, "leave it out, or bring files that are what you state"
            )
        except DataError as e:
            self.problems += e.problems
            return {}, []
        notes = []
        for name, profile in self.profiles.items():
            if name not in done and (wrong := no_logarithm(name, profile, meanings.get(name, {}).get("transform", ""))):
                self.problems.append(wrong)
            if name not in CODES and "transform" not in meanings.setdefault(name, {}):
                meanings[name]["transform"] = "none"
                notes += looks(name, profile, "none")
            elif name in done:
                notes += looks(name, profile, done[name]["transform"])
        return {n: m for n, m in meanings.items() if m}, notes
