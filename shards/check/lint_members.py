"""Lint's look at every member: do its bytes match the index, does it decode, does it say what dataset.json and splits.csv say."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from struct import pack, unpack

import numpy as np
from isal import isal_zlib

from shards.check.image_lint import image_problems
from shards.check.twins import Twins
from shards.check.view_lint import ViewTally
from shards.check.witness import FIX_NAMES, MANY, is_answers, is_witness, tells
from shards.errors import DataError, Problem
from shards.format.codecs import decode
from shards.format.describe import MEND_FILE, FieldTally, HeaderError, header_of
from shards.format.image_tally import ImageTally
from shards.format.info import KINDS, DatasetInfo, FieldInfo
from shards.format.sample_rows import BySample, SampleRow
from shards.format.seal import cell
from shards.read.stats import MISSING_CODE, Moments, odd_codes, vector_fields
from shards.tables.columns import Texts
from shards.tables.identity import person
from shards.tables.likeness import Likeness, codes
from shards.tables.repeats import repeated
from shards.untyped import Decoded, Json

FIX = "store the member again from its source and pack again"
FIX_COPY = "copy the shard again from its source, or pack again"
FIX_INDEX = "run `python -m shards index` on the folder"
MAX_SIZE = 8 << 30
JPEG = ("jpg", "jpeg")  # of which the tally may give an eighth, whose few values may be alike where the whole's are not
WITNESS = 16
"""Bytes of a SHA-256 by which contents are told apart: of 10^9 of them two are taken for one once in 10^20 sets."""
NARROW = 4096
"""Columns up to which equal vectors may be chance; wider ones that are equal are one person's."""


class MemberCheck:
    """Walks the members of all shards and remembers what only the whole can tell: counts, constant features, twins across splits."""

    def __init__(self, info: DatasetInfo, rows: BySample):
        self.info, self.rows = info, rows
        self.members = self.bytes = 0
        self.keys = Texts()
        self.counts: Counter[str] = Counter()
        self.tally = FieldTally()
        self.images = ImageTally({n: f.meaning for n, f in info.fields.items() if f.meaning})
        self.views = ViewTally(info)
        self.warnings: list[Problem] = []
        self.vectors = set(vector_fields(info.fields))
        self.moments: dict[str, Moments] = {}
        self.spoilt: set[str] = set()
        """Fields with a member that could not be used: their statistics cannot be told."""
        self.unread = 0
        """Shards whose members could not be looked at."""
        self.numbers = {name: i for i, name in enumerate(info.fields)}
        self.seen = Twins(24)
        """By number of the field, size and checksum."""
        self.likeness: dict[str, Likeness] = {}
        self.codes: dict[tuple[str, int, int], bytes] = {}
        """Of vectors: what they hold, as far as it is to be told from others."""
        self.witness = Twins(WITNESS)
        """Images and bags that tell whose they are, by the SHA-256 of their bytes, half of it."""

    def __getstate__(self) -> dict[str, object]:
        """Without what every process has."""
        return {n: v for n, v in vars(self).items() if n not in ("info", "rows", "numbers")}

    def merge(self, later: MemberCheck) -> None:
        """Takes in what another check has seen, of members that come after those of this one."""
        self.members, self.bytes, self.unread = (
            self.members + later.members,
            self.bytes + later.bytes,
            self.unread + later.unread,
        )
        self.seen.merge(later.seen, len(self.keys))
        self.witness.merge(later.witness, len(self.keys))
        self.keys += later.keys
        self.counts += later.counts
        self.warnings += later.warnings
        self.spoilt |= later.spoilt
        self.tally.merge(later.tally)
        self.images.merge(later.images)
        self.views.merge(later.views)
        for name, moments in later.moments.items():
            self._merge_moments(name, moments)
        for name, likeness in later.likeness.items():
            if (mine := self.likeness.setdefault(name, Likeness(likeness.width))).width == likeness.width:
                mine.merge(likeness)
        self.codes = later.codes | self.codes

    def _merge_moments(self, name: str, moments: Moments) -> None:
        mine = self.moments.setdefault(name, Moments(len(moments.mean_D)))
        if len(mine.mean_D) == len(moments.mean_D):  # another width is told as a problem
            mine.merge(moments)

    def shard(self, path: Path, members: np.ndarray) -> list[Problem]:
        """Problems of every member of a shard."""
        problems: list[Problem] = []
        with open(path, "rb") as f:
            end = os.fstat(f.fileno()).st_size
            last = None
            for row in members:
                key, name, ext = (row[c].decode() for c in ("key", "field", "ext"))
                where = f"{path.name}: {key}.{name}.{ext}"
                if key != last:
                    self.keys.append(key)
                    last = key
                offset, size = int(row["offset"]), int(row["size"])
                # Never more than the file has: a size is a number that was read.
                data = os.pread(f.fileno(), max(min(size, end - offset, MAX_SIZE), 0), min(offset, end))
                self.members += 1
                self.bytes += len(data)
                self.counts[name] += 1
                if len(data) != size:
                    found = [Problem(f"cut short: {len(data)} of {size} bytes", where, FIX_COPY)]
                elif isal_zlib.crc32(data) != int(row["crc32"]):
                    found = [Problem("bytes changed since packing (crc32)", where, FIX_COPY)]
                else:
                    found = self._member(key, name, ext, data, where)
                problems += found
                self.spoilt |= {name} if found else set()
        return problems

    def _member(self, key: str, name: str, ext: str, data: bytes, where: str) -> list[Problem]:
        info = self.info.fields.get(name)
        if info is None:
            return [Problem(f"field '{name}' is not in dataset.json", where, FIX_INDEX)]
        try:
            head = header_of(name, ext, data, info.meaning.get("orientation") == "exif")
            value: Decoded = (
                self.images.add(key, name, ext, data) if KINDS[ext] == "image" else decode(ext, data, where)
            )
        except HeaderError as e:
            return [Problem(str(e), where, FIX if e.fix == MEND_FILE else e.fix)]
        except DataError as e:
            return e.problems
        self.tally.add(key, name, ext, head)
        self.views.add(key, name)
        if is_witness(name, info):
            if tells(np.asarray(value)) or (ext in JPEG and tells(decode(ext, data, where))):
                self.witness.add(hashlib.sha256(data).digest()[:WITNESS], len(self.keys) - 1, self.numbers[name])
        # Masks with nothing on them are all alike, so are vectors of nothing, the places of patches, and what reports say of findings.
        elif self._may_tell(name, info) and value.size and value.min() < value.max():
            mark = (name, len(data), zlib.adler32(data) << 32 | zlib.crc32(data))
            self.seen.add(pack("<QQQ", self.numbers[name], *mark[1:]), len(self.keys) - 1, self.numbers[name])
            if value.ndim == 1:
                self._vector(mark, value)
        if KINDS[ext] == "array":
            return self._array(key, name, value, info, where)
        if KINDS[ext] == "text" and not value.strip():
            return [Problem("empty text", where, "drop the member: a missing report is no member at all")]
        return list(self._meta(key, value, where)) if name == "meta" else []

    @staticmethod
    def _may_tell(name: str, info: FieldInfo) -> bool:
        """Whether equal contents of a field that is no witness are worth a warning."""
        return KINDS[info.ext] in ("array", "image") and name != "coords" and not is_answers(info)

    def _vector(self, mark: tuple[str, int, int], x_D: np.ndarray) -> None:
        likeness = self.likeness.setdefault(mark[0], Likeness(len(x_D)))
        if len(x_D) != likeness.width:
            return  # told as a problem
        likeness.add(x_D)
        if len(x_D) <= NARROW and mark not in self.codes:
            self.codes[mark] = codes(x_D).tobytes()

    def _array(self, key: str, name: str, array: np.ndarray, info: FieldInfo, where: str) -> list[Problem]:
        problems = []
        if info.shape and (
            len(info.shape) != array.ndim
            or any(w not in (None, n) for w, n in zip(info.shape, array.shape, strict=True))
        ):
            shape = [w if w is not None else "N" for w in info.shape]
            problems.append(Problem(f"wrong width: {list(array.shape)}, the field is {shape}", where, FIX))
        if info.dtype and array.dtype.name != info.dtype:
            problems.append(Problem(f"dtype {array.dtype}, the field is {info.dtype}", where, FIX))
        if array.ndim > 1 and not array.shape[0]:
            problems.append(Problem("empty bag", where, "drop the member: a missing field is no member at all"))
        if array.dtype.kind == "f" and (count := int((~np.isfinite(array)).sum())):
            problems.append(
                Problem(
                    f"{count} of {array.size} values are NaN or infinite",
                    where,
                    f"mend the source, or pack with --impute {name}=mean",
                )
            )
        if array.ndim == 1 and (wrong := odd_codes(name, array)):
            problems.append(Problem(wrong, where, "code copies of one allele as 0, 1, 2 and a missing call as -1"))
        row, code = self.rows.get(key), MISSING_CODE.get(name)
        if not problems and name in self.vectors and row is not None and row.split == "train":
            # As wide as what is there: the width in dataset.json is a number that was read.
            known = np.where(array == code, np.nan, array) if code is not None else array
            self.moments.setdefault(name, Moments(array.shape[0])).add(known)
        return problems

    def _meta(self, key: str, meta: Json, where: str) -> Iterator[Problem]:
        row = self.rows.get(key)
        if not isinstance(meta, dict):
            yield Problem("is not a JSON object", where, FIX)
            return
        if row is None:
            return  # reported as a sample that splits.csv lacks
        if "patient" in meta and person(str(meta["patient"])) != person(row.patient):
            yield Problem(f"patient '{meta['patient']}', splits.csv says '{row.patient}'", where, FIX_INDEX)
        labels = meta.get("labels") or {}
        for name in self.info.labels:
            value = labels.get(name) if isinstance(labels, dict) else None
            if value is not None and name in row.labels and cell(value) != cell(row.labels[name]):
                yield Problem(
                    f"label '{name}' is '{value}', labels.csv says '{cell(row.labels[name])}'", where, FIX_INDEX
                )

    def finish(self, rows: Sequence[SampleRow]) -> list[Problem]:
        """What only the whole can tell."""
        problems = self.tally.problems({})
        if len(rows) and (
            len(rows) != len(self.keys) or any(r.sample != k for r, k in zip(rows, self.keys, strict=True))
        ):
            listed = {r.sample for r in rows}
            lacking, extra = sorted(set(self.keys) - listed), sorted(listed - set(self.keys))
            detail = f"{len(lacking)} not in it, {len(extra)} in no shard" + (
                f" ({', '.join((lacking + extra)[:4])})" if lacking or extra else "; the order differs"
            )
            problems.append(Problem(f"does not list the samples of the shards: {detail}", "splits.csv", FIX_INDEX))
        again = repeated(self.keys)
        twice = [k for k, n in Counter(k for k in self.keys if hash(k) in again).items() if n > 1]
        if twice:
            problems.append(
                Problem(
                    f"{len(twice)} keys stand in several places: {', '.join(twice[:5])}",
                    "shards",
                    "give every sample a key of its own",
                )
            )
        for name, info in self.info.fields.items():
            if info.count != self.counts[name]:
                problems.append(
                    Problem(
                        f"{self.counts[name]} members of field '{name}', dataset.json says {info.count}",
                        "shards",
                        FIX_COPY,
                    )
                )
        wrong, odd = image_problems(self.info, self.images)
        names = list(self.info.fields)
        same = [[(self.keys[k], names[n]) for k, n in members] for _, members in self.witness.groups()]
        problems += [*wrong, *self._leaks(same)]
        self.warnings += [*self._constant(), *self._twins(), *odd, *self.views.warnings(same)]
        return problems

    def _constant(self) -> Iterator[Problem]:
        for name, moments in self.moments.items():
            constant = int((moments.std_D == 0).sum())
            if constant and moments.count_D.max() > 1:
                what = f"{constant} of {len(moments.std_D)} features are constant over the training split"
                yield Problem(
                    what, f"field '{name}'", "they teach nothing (they are scaled to 0): drop them if you can"
                )

    def _leaks(self, same: Sequence[Sequence[tuple[str, str]]]) -> Iterator[Problem]:
        """Equal images and bags under different patients in different splits; a content of over MANY people is nobody's."""
        found: dict[str, list[str]] = defaultdict(list)
        for members in same:
            rows = [self.rows[k] for k, _ in members if k in self.rows]
            who = {(person(r.patient), r.split): r for r in reversed(rows)}
            if len({p for p, _ in who}) > MANY:
                continue
            if pair := next((p for p in combinations(who, 2) if p[0][0] != p[1][0] and p[0][1] != p[1][1]), None):
                named = [f"{who[p].sample} ({who[p].patient}, {who[p].split})" for p in reversed(pair)]
                found[members[0][1]].append(" = ".join(named))
        for name, pairs in found.items():
            shown = "; ".join(pairs[:3]) + ("; ..." if len(pairs) > 3 else "")
            what = f"{len(pairs)} x the same '{name}' under different patients in different splits: {shown}"
            yield Problem(what, "splits.csv", FIX_NAMES)

    def _twins(self) -> Iterator[Problem]:
        """Equal bytes under different patients in different splits, of what is not somebody's own by itself."""
        pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
        names = list(self.info.fields)
        for packed, members in self.seen.groups():
            number, *content = unpack("<QQQ", packed)
            name = names[number]
            mark = (name, content[0], content[1])
            known = [row for k, _ in members if (row := self.rows.get(self.keys[k]))]
            first = known[0] if known else None
            other = next((r for r in known if first and r.patient != first.patient and r.split != first.split), None)
            if first and other and self._tells(mark, len({r.patient for r in known})):
                pairs[name].append((first.sample, other.sample))
        for name, found in pairs.items():
            what = f"{len(found)} pairs of patients in different splits have the same '{name}', such as {found[0][0]} and {found[0][1]}"
            yield Problem(
                what, "splits.csv", "is one patient known by two names? Give both the same patient and split again"
            )

    def _tells(self, mark: tuple[str, int, int], patients: int) -> bool:
        """Whether equal bytes under so many patients are more than chance."""
        codes_D = self.codes.get(mark)
        return codes_D is None or self.likeness[mark[0]].says_who(np.frombuffer(codes_D, np.uint8), patients)


def _places(members: np.ndarray) -> dict[str, tuple[int, int]]:
    names = (f"{r['key'].decode()}.{r['field'].decode()}.{r['ext'].decode()}" for r in members)
    return {n: (int(r["offset"]), int(r["size"])) for n, r in zip(names, members, strict=True)}


def differences(shard: str, saved: np.ndarray, built: np.ndarray, checksums: bool = False) -> Iterator[Problem]:
    """What an index says against what its tar holds, column by column: members missing, extra, moved, of another sample.

    `checksums`: the tar is the sealed one, so another checksum is the index's fault; else changed bytes are found when read.
    """
    old, new = _places(saved), _places(built)
    for name in old.keys() - new.keys():
        yield Problem("missing member: in the index but not in the tar", f"{shard}: {name}", FIX_COPY)
    for name in new.keys() - old.keys():
        yield Problem(
            "extra member: in the tar but not in the index", f"{shard}: {name}", f"if it belongs there: {FIX_INDEX}"
        )
    moved = [n for n in old.keys() & new.keys() if old[n] != new[n]]
    if moved:
        yield Problem(f"{len(moved)} members lie elsewhere than the index says, such as {min(moved)}", shard, FIX_INDEX)
    if old.keys() != new.keys() or moved:
        return
    for column, what in (("sample", "samples"), ("crc32", "checksums"))[: 1 + checksums]:
        wrong = np.flatnonzero(saved[column] != built[column])
        if wrong.size:
            first = list(new)[int(wrong[0])]
            yield Problem(f"the index gives {wrong.size} members other {what}, such as {first}", shard, FIX_INDEX)
