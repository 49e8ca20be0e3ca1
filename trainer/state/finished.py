"""What a finished run says about itself, so that it can be used without the data it was trained on.

out/method.json     method, options, digests of the files that options name, fields, labels, data fingerprint, versions
out/schema.npz      the fields in full: shapes, vocabularies, statistics; enough to build the method again
out/patients.txt    a digest of every patient of pre-training and of the split it stood in: no names leave the data set, and
                    yet an overlap with another data set's test patients is found (trainer/downstream/task/leak.py)
out/contents.npz    size and CRC-32 of every image and bag of pre-training, by split: the same one under another name is found too
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from models.contract import Field, Label, Method, MethodError, Schema
from models.contract.assets import asset_digests, asset_problems
from models.registry import get_method
from shards.check.witness import contents_of, unique_codes
from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.tables.identity import person, person_forms
from trainer.config.schema import Config, by_todays_names, parse
from trainer.data import Data
from trainer.errors import UserError
from trainer.state.files import write_atomic
from trainer.state.run_folder import versions


def write_card(out: Path, config: Config, options: Mapping[str, Any], data: Data) -> None:
    """Writes method.json, schema.npz, patients.txt and contents.npz."""
    card = {
        "method": config.method_name,
        "options": options,
        "assets": asset_digests(get_method(config.method_name).Options, options),
        "data": {"fingerprint": data.fingerprint, "paths": data.paths, "sets": [about(d) for d in data.datasets]},
        "fields": {n: plain_field(f) for n, f in data.schema.fields.items()},
        "labels": {n: {"kind": v.kind, "classes": v.classes} for n, v in data.schema.labels.items()},
        "versions": versions(),
    }
    write_atomic(out / "schema.npz", schema_bytes(data.schema))
    write_atomic(out / "patients.txt", patients_text(data, config).encode())
    # What the run trained is not lost for an index that cannot be had any more: a fine-tune says that there is no record.
    with contextlib.suppress(DataError):
        write_atomic(out / CONTENTS, contents_bytes(data, config))
    write_atomic(out / "method.json", json.dumps(card, indent=1).encode())


def about(data: Dataset) -> dict[str, Any]:
    """Where a data set comes from and under which terms."""
    info = data.info
    return {
        **{
            n: getattr(info, n)
            for n in ("name", "version", "source", "licence", "commercial", "citation", "samples", "patients")
        },
        "splits": dict(info.splits),
        "fingerprint": data.fingerprint,
    }


def plain_field(f: Field) -> dict[str, Any]:
    """A field without its arrays; what its numbers mean where that is known."""
    plain = {"kind": f.kind, "dtype": f.dtype, "shape": f.shape}
    return {**plain, "meaning": dict(f.meaning)} if f.meaning else plain


def schema_bytes(schema: Schema) -> bytes:
    """A schema as npz: plain arrays, nothing that would be executed on loading."""
    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, Any] = {"fields": {}, "labels": {}}
    for name, f in schema.fields.items():
        plain["fields"][name] = plain_field(f)
        if f.vocabulary is not None:
            arrays[f"{name}.vocabulary"] = np.frombuffer("\n".join(f.vocabulary).encode(), np.uint8)
        for what, values in (("mean", f.mean), ("std", f.std)):
            if values is not None:
                arrays[f"{name}.{what}"] = values
    for name, v in schema.labels.items():
        plain["labels"][name] = {"kind": v.kind, "classes": v.classes}
    arrays["schema"] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    file = BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def read_schema(path: Path) -> Schema:
    """The inverse of `schema_bytes`.

    Raises:
        UserError: no such file, or a damaged one.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            plain = json.loads(arrays["schema"].tobytes())
            found = {n: arrays[n] for n in arrays.files}
    except FileNotFoundError as e:
        raise UserError(
            f"{path} is missing: give the run's own command again, it finishes at once and writes it"
        ) from e
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"{path}: damaged ({e}); give the run's own command again") from e
    fields = {}
    for name, f in plain["fields"].items():
        words = found.get(f"{name}.vocabulary")
        fields[name] = Field(
            name,
            f["kind"],
            f["dtype"],
            None if f["shape"] is None else tuple(f["shape"]),
            None if words is None else tuple(words.tobytes().decode().split("\n")),
            found.get(f"{name}.mean"),
            found.get(f"{name}.std"),
            f.get("meaning", {}),
        )
    labels = {n: Label(n, v["kind"], tuple(v["classes"])) for n, v in plain["labels"].items()}
    return Schema(fields, labels, source=f"the data of {path.parent}")


CONTENTS = "contents.npz"


def contents_bytes(data: Data, config: Config) -> bytes:
    """The codes of `shards.check.witness`, ascending, of what was learned from (`train`) and of what was held back to choose by (`val`)."""
    return codes_bytes(
        (which, part, part.subset(split).indices)
        for part in data.datasets
        for which, split in (("train", config.data.split), ("val", config.data.val_split))
        if split and part.info.splits.get(split)
    )


def codes_bytes(parts: Iterable[tuple[str, Dataset, np.ndarray]]) -> bytes:
    """contents.npz of (`train` or `val`, data set, its samples)."""
    codes: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    found = functools.cache(contents_of)
    for which, part, indices in parts:
        codes[which].append(unique_codes(found(part), indices))
    file = BytesIO()
    train, val = (np.unique(np.concatenate([np.empty(0, np.uint64), *codes[n]])) for n in ("train", "val"))
    np.savez(file, train=train, val=val)
    return file.getvalue()


FORMS = "forms"
"""First line of a patients.txt whose digests are of `identity.person_forms`; without it they are of names as they were written."""


OTHER = "other"
"""Marks a further form of a patient, which counts as no further patient."""


def digest(form: str) -> str:
    return hashlib.blake2b(form.encode(), digest_size=12).hexdigest()


def digests(patient: str) -> list[str]:
    """Of every form that the patient's name may have in another data set, its own first."""
    return [digest(form) for form in person_forms(patient)]


def patients_text(data: Data, config: Config) -> str:
    parts = [
        ("train" if split == config.data.split else "val", part, part.subset(split).indices)
        for split in (config.data.val_split, config.data.split)
        for part in data.datasets
        if split and part.info.splits.get(split)
    ]
    return listed_patients(parts)


def listed_patients(parts: Iterable[tuple[str, Dataset, np.ndarray]]) -> str:
    """patients.txt of (`train` or `val`, data set, its samples); of a patient who is in several the last one counts."""
    lines: dict[str, str] = {}
    for which, part, indices in parts:
        forms = [digests(name) for name in dict.fromkeys(part.patients_of(indices))]
        lines |= {d: f"{which} {OTHER}" for _, *others in forms for d in others}
        lines |= {own: which for own, *_ in forms}
    return "".join([f"{FORMS}\n", *(f"{d} {which}\n" for d, which in sorted(lines.items()))])


@dataclass(frozen=True)
class Listed:
    """patients.txt, read; see `Finished`."""

    trained_on: frozenset[str]
    validation: frozenset[str]
    by_form: bool
    patients: int


def read_patients(text: str) -> Listed:
    """The inverse of `listed_patients`; an empty text is a list that is missing."""
    rows = [line.split(" ") for line in text.removeprefix(f"{FORMS}\n").splitlines()]
    by = {which: frozenset(d for d, w, *_ in rows if w == which) for which in ("train", "val")}
    return Listed(by["train"], by["val"], text.startswith(f"{FORMS}\n"), sum(OTHER not in row for row in rows))


class Seen:
    """What a training learned from and what it chose by, as far as it kept a record: digests of patients, codes of images and bags."""

    path: Path
    trained_on: frozenset[str]
    validation: frozenset[str]
    by_form: bool
    patients: int
    sources: tuple[tuple[str, str], ...]

    def contents(self) -> dict[str, np.ndarray] | None:
        """Codes of the images and bags that were learned from and held back; None for a run of before they were kept.

        Raises:
            UserError: damaged.
        """
        try:
            with np.load(self.path / CONTENTS, allow_pickle=False) as arrays:
                return {n: arrays[n] for n in ("train", "val")}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as e:
            raise UserError(f"{self.path / CONTENTS}: damaged ({e}); give the run's own command again") from e

    def overlap(self, patients: Iterable[str]) -> tuple[list[str], list[str]]:
        """Those of `patients` that were learned from, and those that were selected on."""
        known = {p: {*digests(p), digest(p)} for p in sorted(set(patients))}
        if not self.by_form:  # the spellings that were usual then
            known = {p: d | {digest(f"{before}{person(p)}") for before in ("p", "P")} for p, d in known.items()}
        return [p for p, d in known.items() if d & self.trained_on], [
            p for p, d in known.items() if d & self.validation
        ]


@dataclass(frozen=True)
class Finished(Seen):
    """A finished run, opened. `trained_on` and `validation` hold digests of patients; both are empty where patients.txt is missing.
    `by_form`: the digests are of forms; runs of before have them of names as they were written."""

    path: Path
    config: Config
    options: Mapping[str, Any]
    schema: Schema
    fingerprint: str
    trained_on: frozenset[str]
    validation: frozenset[str]
    by_form: bool = True
    patients: int = 0
    sources: tuple[tuple[str, str], ...] = ()
    """(path, fingerprint) of each data set it was trained on."""

    @property
    def method_name(self) -> str:
        return self.config.method_name

    @property
    def weights(self) -> Path:
        return self.path / "weights.safetensors"

    def sha256(self) -> str:
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def build(self, changes: Mapping[str, Any] | None = None) -> Method:
        """The method with the weights of torch's current random state; `changes` to its options."""
        cls = get_method(self.method_name)
        return cls(cls.Options.parse(cls.Options.over(self.options, changes or {})), self.schema)


def open_run(path: Path) -> Finished:
    """A finished run.

    Raises:
        UserError: no run, an unfinished one, or one with damaged files.
    """
    wanted = ("weights.safetensors", "config.json", "method.json", "schema.npz")
    missing = [n for n in wanted if not (path / n).is_file()]
    if len(missing) == len(wanted):
        raise UserError(f"{path} is no run of pre-training (it has none of {', '.join(wanted)})")
    if missing:
        raise UserError(
            f"{path} is no finished run ({', '.join(missing)} missing): give its own command again to finish it"
        )
    try:
        card = json.loads((path / "method.json").read_bytes())
        stored = by_todays_names(json.loads((path / "config.json").read_bytes())["config"])
        listed = (path / "patients.txt").read_text() if (path / "patients.txt").is_file() else ""
        known = read_patients(listed)
        options, fingerprint = get_method(card["method"]).Options.stored(card["options"]), card["data"]["fingerprint"]
        if gone := list(asset_problems(get_method(card["method"]).Options, options, card.get("assets", {}), "the run")):
            raise MethodError(gone)
        _check_options(card["method"], options)
        sets = zip(card["data"].get("paths", ()), card["data"].get("sets", ()), strict=False)
        sources = tuple((str(p), str(s.get("fingerprint", ""))) for p, s in sets)
    except MethodError as e:
        raise MethodError([f"{path}: {p}" for p in e.problems]) from e
    except (ValueError, KeyError) as e:
        raise UserError(f"{path}: damaged ({e!r}); give the run's own command again") from e
    schema = read_schema(path / "schema.npz")
    return Finished(
        path, parse(stored), options, schema, fingerprint, known.trained_on, known.validation, known.by_form, known.patients, sources
    )  # fmt: skip


def open_encoder(path: Path) -> Finished:
    """A finished run that trained an encoder.

    Raises:
        UserError: see `open_run`; one that trained something else alone.
    """
    run = open_run(path)
    cls = get_method(run.method_name)
    if why := cls.unlearned(cls.Options.parse(run.options)):
        raise UserError(f"{path}: {why}")
    return run


def _check_options(method: str, options: Mapping[str, Any]) -> None:
    try:
        get_method(method).Options.parse(options)
    except MethodError as e:
        left = "its options are not those of this version; take the version that made it (`versions` in its config.json), or pre-train anew"
        raise MethodError([*e.problems, left]) from e
