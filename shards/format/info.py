"""What a data set is on disk: the typed form of dataset.json, the index's columns, the allowed members.

nsclc/
  dataset.json          this module's `DatasetInfo`
  splits.csv            sample,patient,split     one row a sample, in shard order (row i is sample i of the data set)
  labels.csv            sample,LABEL,...         same order; copied from meta.json so that an order needs no shard
  vocab/FIELD.txt       one feature a line, in column order
  stats.npz             FIELD.mean, FIELD.std    fitted on the training split only
  shard-000000.tar      KEY.FIELD.EXT, members of one sample adjacent
  shard-000000.idx.npy  `index_dtype`, one row a member, in tar order
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shards.errors import DataError, Problem, bad, typed

FORMAT: Literal["medpair-dataset/1"] = "medpair-dataset/1"
# The allow-list of design: what a member's extension may be, and so the only decoders that exist.
KINDS = {"jpg": "image", "jpeg": "image", "png": "image", "npy": "array", "txt": "text", "json": "json"}
MAX_PIXELS = 100_000_000
SPLITS = ("train", "val", "test")
# KEY.FIELD.EXT. WebDataset cuts the key at the first dot, so a key has none; no slash means nothing leaves the folder.
KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]*")
FIELD = re.compile(r"[a-z][a-z0-9_]*")


# What a number in dataset.json may be: no file system holds more, and sums of them stay in 64 bits.
Count = Annotated[int, Field(ge=0, le=2**40)]
Bytes = Annotated[int, Field(ge=0, le=2**50)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldInfo(_Frozen):
    """One field. `shape` has None where the size differs from sample to sample; images are [H, W, C]."""

    ext: Literal["jpg", "jpeg", "png", "npy", "txt", "json"]
    dtype: str | None = None
    shape: tuple[Count | None, ...] | None = None
    vocab: str | None = None
    vocab_sha256: str | None = None
    count: Count
    meaning: dict[str, str] = {}
    """What the numbers are where dtype and shape do not say it: unit, transform, bits used, patch encoder, reference build, ...
    Data sets that are mixed, resumed or fine-tuned on must agree in it (`shards.format.meaning`)."""

    @property
    def kind(self) -> str:
        return KINDS[self.ext]


class LabelInfo(_Frozen):
    """One label column: `class` with its names in code order, or `number`. `missing` counts the empty cells."""

    kind: Literal["class", "number"]
    classes: tuple[str, ...] = ()
    missing: Count = 0


class ShardInfo(_Frozen):
    name: str
    samples: Count
    bytes: Bytes
    sha256: str
    index_sha256: str | None = None
    """Of shard-....idx.npy, which says whose bytes lie where. None in data sets of earlier versions: their indexes are compared with
    the tars instead, by `lint` whole, by a reader with the tars' headers."""


class Adopted(_Frozen):
    """How tars that somebody else made were understood (`shards.format.members`); the index of a shard is built again by the same rule.

    members: what a member, or a value in a JSON member, is: {"jpg": "image", "json.id": "patient"}.
    skip: members that are left out.
    patient_from_key, patient_pattern: a sample's key, or what the pattern's group finds in it, names the patient.
    shard_in_key: the tar's name stands before each key, as keys are unique within a tar alone.
    """

    members: dict[str, str] = {}
    skip: tuple[str, ...] = ()
    patient_from_key: bool = False
    patient_pattern: str | None = None
    shard_in_key: bool = False


class DatasetInfo(_Frozen):
    """dataset.json. `fingerprint` covers all that decides what a training run reads: see `fingerprint_of`."""

    format: Literal["medpair-dataset/1"] = FORMAT
    name: str
    version: str = "1"
    source: str = ""
    licence: str = ""
    commercial: Literal["yes", "no", "unknown", ""] = ""
    citation: str = ""
    """Terms (shards/format/terms.py); empty where they were never stated."""
    fields: dict[str, FieldInfo]
    labels: dict[str, LabelInfo] = {}
    samples: Count
    patients: Count
    splits: dict[str, Count] = {}
    shards: tuple[ShardInfo, ...]
    files: dict[str, str] = {}
    leaking_splits: bool = False
    """Patients stand in two splits, as in a published list that was packed with `--accept-leaking-lists`; else that is refused."""
    seal: Literal[1, 2] = 1
    """What the fingerprint covers, see `fingerprint_of`; 1 in data sets of earlier versions."""
    adopted: Adopted | None = None
    """Of tars that `index` took; None where `pack` wrote them."""
    fingerprint: str = ""

    def sealed(self) -> DatasetInfo:
        """This description with its fingerprint computed."""
        return self.model_copy(update={"fingerprint": fingerprint_of(self)})


def fingerprint_of(info: DatasetInfo) -> str:
    """SHA-256 of fields, labels, shards (with their indexes) and side files (splits and statistics among them).

    Seal 2 covers the other counts too: patients, splits, `leaking_splits`. Name, version, source and terms do not count.
    """
    content = info.model_dump(mode="json") if info.seal > 1 else {}
    content = {k: content[k] for k in ("seal", "patients", "splits", "leaking_splits") if k in content}
    plain = _plain(info)
    content |= {k: plain[k] for k in ("format", "fields", "labels", "samples", "shards", "files")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _plain(info: DatasetInfo) -> dict[str, Any]:
    """As JSON; what was added to the format later stands there only where it says something, so older sets keep their fingerprint."""
    later = {"leaking_splits": info.leaking_splits, "seal": info.seal > 1, "adopted": info.adopted is not None}
    later |= {"commercial": bool(info.commercial), "citation": bool(info.citation)}
    content = info.model_dump(mode="json", exclude={k for k, said in later.items() if not said})
    for shard in content["shards"]:
        if shard["index_sha256"] is None:
            del shard["index_sha256"]
    for field in content["fields"].values():
        if not field["meaning"]:
            del field["meaning"]
    return content


def index_dtype(key_width: int, field_width: int) -> np.dtype:
    """Columns of an index: the sample's row in its shard, its key, the member's field and extension, where its bytes lie.

    `crc32` is that of the member's bytes (zlib), checked whenever a whole member is read.
    """
    return np.dtype(
        [
            ("sample", "<u4"),
            ("key", f"S{key_width}"),
            ("field", f"S{field_width}"),
            ("ext", "S4"),
            ("offset", "<u8"),
            ("size", "<u8"),
            ("crc32", "<u4"),
        ]
    )


def index_path(shard: Path) -> Path:
    """shard-000000.tar -> shard-000000.idx.npy"""
    return shard.with_suffix(".idx.npy")


def split_member(name: str) -> tuple[str, str, str] | None:
    """(key, field, ext) of a member name, or None when it is not KEY.FIELD.EXT of the allow-list."""
    parts = name.split(".")
    if len(parts) != 3 or not KEY.fullmatch(parts[0]) or not FIELD.fullmatch(parts[1]) or parts[2] not in KINDS:
        return None
    return parts[0], parts[1], parts[2]


def sha256_of(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes | Iterable[bytes], again: bool = False) -> None:
    """Writes under a temporary name, flushes to disk, renames: a reader sees the old bytes or the new ones.

    What a killed process left on its way to the same name is removed. `again`: a copy that is checked by its hash before it is used and
    can be had again; it is neither flushed, nor is the folder, which may hold thousands of them, searched for strays.
    """
    prefix = f".{path.name}."
    if not again:
        remove_strays(path.parent, prefix)
    fd, tmp = _temporary(path.parent, prefix)
    try:
        with os.fdopen(fd, "wb") as f:
            f.writelines([data] if isinstance(data, bytes) else data)
            f.flush()
            os.fchmod(f.fileno(), 0o644)
            if not again:
                os.fsync(f.fileno())
            os.replace(tmp, path)
    except BaseException:
        Path(tmp).unlink(missing_ok=True)
        raise


def _temporary(folder: Path, prefix: str) -> tuple[int, str]:
    """A new file, locked for as long as it is open: an unlocked one is nobody's."""
    while True:
        fd, tmp = tempfile.mkstemp(dir=folder, prefix=prefix)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:
            return fd, tmp
        os.close(fd)  # another writer took it for a stray before it was locked


def remove_strays(folder: Path, prefix: str = "") -> None:
    """Removes temporary files of `write_atomic` (whose names begin so) whose process has ended."""
    for entry in os.scandir(folder):
        if not entry.name.startswith(prefix) or not re.fullmatch(r"\..+\.[a-z0-9_]{8}", entry.name):
            continue
        with contextlib.suppress(OSError):  # gone, locked, or on a file system without locks
            fd = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)
            finally:
                os.close(fd)


def save_info(folder: Path, info: DatasetInfo) -> DatasetInfo:
    """Seals and writes dataset.json; returns the sealed description."""
    sealed = info.sealed()
    text = json.dumps(_plain(sealed), indent=1, sort_keys=True)
    write_atomic(folder / "dataset.json", text.encode() + b"\n")
    return sealed


def load_info(folder: Path) -> DatasetInfo:
    """Reads and checks dataset.json.

    Raises:
        DataError: no such file, not JSON, unknown or missing keys, or a fingerprint that is not that of its content.
    """
    path = folder / "dataset.json"
    old = folder.parent / f".{folder.name}.old"
    if not folder.exists() and (old / "dataset.json").is_file():
        what = f"a command was killed while it replaced this data set, which is {old} now"
        raise bad(
            what,
            folder,
            f"give the command again, or run `python -m shards seal {typed(folder)}`: it gives it its name back",
        )
    if not path.is_file():
        raise bad(
            "no dataset.json",
            folder,
            "give the folder that `python -m shards pack` wrote, or adopt tars with `python -m shards index DIR`",
        )
    return info_of(path.read_bytes(), path)


def info_of(text: bytes, place: Path | str) -> DatasetInfo:
    """A dataset.json's content, from `place`.

    Raises:
        DataError: as `load_info`.
    """
    try:
        info = DatasetInfo.model_validate_json(text)
    except ValidationError as e:
        raise DataError(
            Problem(
                f"{'.'.join(map(str, p['loc'])) or 'content'}: {p['msg']}",
                str(place),
                "pack or index the data set again",
            )
            for p in e.errors()
        ) from e
    if info.fingerprint != fingerprint_of(info):
        raise bad(
            "the fingerprint is not that of the content",
            place,
            "the file was edited: run `python -m shards index` on the folder",
        )
    return info
