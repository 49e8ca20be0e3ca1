"""What a person wants to know about a data set, as data and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shards.format.indexes import open_index
from shards.format.info import SPLITS, Adopted, DatasetInfo, load_info
from shards.format.meaning import not_stored, shown
from shards.format.seal import SampleRow, read_rows
from shards.read.dataset import Dataset

QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}
MAX_CLASSES = 12


def collect(folder: Path) -> dict[str, Any]:
    """Everything that `info` tells, as plain values.

    Raises:
        DataError: not a data set, or one whose side files were changed.
    """
    folder = Path(folder)
    info = load_info(folder)
    with Dataset.open(folder) as data:
        rows = read_rows(folder, info.labels)
        stored, bags = _stored(folder, info), _bag_sizes(data, info)
        stats = data.stats() if "stats.npz" in info.files else {}
    fields = {name: _field(name, info, stored[name], bags.get(name), stats) for name in info.fields if name != "meta"}
    return {
        "name": info.name,
        "version": info.version,
        "source": info.source,
        "licence": info.licence,
        "commercial": info.commercial,
        "citation": info.citation,
        "adopted": _adopted(info.adopted),
        "fingerprint": info.fingerprint,
        "samples": info.samples,
        "patients": info.patients,
        "shards": len(info.shards),
        "bytes": sum(s.bytes for s in info.shards),
        "fields": fields,
        "not_stored": not_stored(info),
        "modalities": _together(folder, info),
        "labels": {n: _label(n, info, rows) for n in info.labels},
        "splits": {s: _split(s, info, rows) for s in SPLITS if s in info.splits},
        "label_fractions": sorted(n for n in info.files if n.startswith("labels/")),
    }


def _stored(folder: Path, info: DatasetInfo) -> Counter[str]:
    """Bytes of each field over all shards."""
    total: Counter[str] = Counter()
    for shard in info.shards:
        members = open_index(folder / shard.name, shard.index_sha256)
        for name in np.unique(members["field"]):
            total[name.decode()] += int(members["size"][members["field"] == name].sum())
    return total


def _together(folder: Path, info: DatasetInfo) -> dict[str, int]:
    """How many samples have which set of fields."""
    sets: Counter[str] = Counter()
    for shard in info.shards:
        members = open_index(folder / shard.name, shard.index_sha256)
        of: dict[int, list[str]] = {}
        for sample, name in zip(members["sample"].tolist(), members["field"].tolist(), strict=True):
            of.setdefault(sample, []).append(name.decode())
        sets.update(" + ".join(n for n in sorted(names) if n != "meta") for names in of.values())
    return dict(sets.most_common())


def _bag_sizes(data: Dataset, info: DatasetInfo) -> dict[str, np.ndarray]:
    """Rows of every sample's bag, from the headers alone."""
    bags = [
        n for n, f in info.fields.items() if f.kind == "array" and f.shape and len(f.shape) == 2 and f.shape[0] is None
    ]
    return {n: np.array([rec.shape(n)[0] for rec in data if rec.has(n)]) for n in bags}


def _field(
    name: str, info: DatasetInfo, stored: int, bags: np.ndarray | None, stats: dict[str, np.ndarray]
) -> dict[str, Any]:
    one = info.fields[name]
    facts: dict[str, Any] = {
        "kind": one.kind,
        "dtype": one.dtype,
        "shape": one.shape,
        "samples": one.count,
        "coverage": one.count / info.samples,
        "bytes": stored,
        "vocabulary": one.vocab,
        "meaning": dict(one.meaning),
    }
    if bags is not None and len(bags):
        facts["rows"] = {n: int(np.quantile(bags, q)) for n, q in QUANTILES.items()} | {"sum": int(bags.sum())}
    if f"{name}.constant" in stats:
        facts["constant"] = int(stats[f"{name}.constant"].sum())
    return facts


def _label(name: str, info: DatasetInfo, rows: Sequence[SampleRow]) -> dict[str, Any]:
    one, values = info.labels[name], [r.labels[name] for r in rows if name in r.labels]
    if one.kind == "class":
        counts = Counter(values)
        return {"kind": "class", "missing": one.missing, "classes": {c: counts[c] for c in one.classes}}
    known = np.array(values, float)
    spread = {n: float(np.quantile(known, q)) for n, q in QUANTILES.items()} if len(known) else {}
    return {"kind": "number", "missing": one.missing, "quantiles": spread}


def _split(name: str, info: DatasetInfo, rows: Sequence[SampleRow]) -> dict[str, Any]:
    inside = [r for r in rows if r.split == name]
    classes = {
        label: dict(sorted(Counter(str(r.labels[label]) for r in inside if label in r.labels).items()))
        for label, one in info.labels.items()
        if one.kind == "class" and len(one.classes) <= MAX_CLASSES
    }
    return {"samples": len(inside), "patients": len({r.patient for r in inside}), "classes": classes}


def size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def text(facts: dict[str, Any]) -> str:
    """The facts for a terminal."""
    head = [
        f"{facts['name']} (version {facts['version']})",
        f"  source       {facts['source'] or 'not stated'}",
        f"  licence      {facts['licence'] or 'not stated'}; commercial use: {facts['commercial'] or 'not stated'}",
        f"  citation     {facts['citation'] or 'not stated'}",
        f"  samples      {facts['samples']:,} of {facts['patients']:,} patients; {facts['shards']} shards, {size(facts['bytes'])}",
        f"  fingerprint  {facts['fingerprint']}",
    ]
    if facts["adopted"]:
        head.append(f"  members      {facts['adopted']}")
    fields = ["fields", *(_field_line(n, f) for n, f in facts["fields"].items())]
    sets = facts["modalities"]
    complete = [f"  {n:,} samples have {names}" for names, n in sets.items()] if len(sets) > 1 else []
    labels = ["labels", *(_label_line(n, one) for n, one in facts["labels"].items())] if facts["labels"] else []
    splits = ["splits", *(line for n, one in facts["splits"].items() for line in _split_lines(n, one))]
    fractions = [f"  label fractions: {', '.join(facts['label_fractions'])}"] if facts["label_fractions"] else []
    lacking = [
        f"  not stored: {n}: {', '.join(keys)} (state it: python -m shards meaning DIR {n}.{keys[0]}=VALUE)"
        for n, keys in facts["not_stored"].items()
    ]
    return "\n".join(head + fields + lacking + complete + labels + splits + fractions)


def _adopted(how: Adopted | None) -> str:
    """What was said of the members of adopted tars."""
    if how is None:
        return ""
    said = [f"{m} = {meaning}" for m, meaning in how.members.items()] + [f"{m} left out" for m in how.skip]
    said += [f"patients by {how.patient_pattern}"] if how.patient_pattern else []
    return ", ".join(said + ["a sample is a patient where none is named"] * how.patient_from_key)


def _field_line(name: str, one: dict[str, Any]) -> str:
    shape = "[" + ", ".join("N" if n is None else str(n) for n in one["shape"]) + "]" if one["shape"] else ""
    form = f"{one['dtype'] or one['kind']} {shape}".strip()
    line = f"  {name:<12} {form:<22} {one['coverage']:>4.0%}  {size(one['bytes']):>9}"
    if "rows" in one:
        line += "  N: " + ", ".join(f"{q} {n:,}" for q, n in one["rows"].items() if q != "sum")
    if one.get("constant"):
        line += f"  {one['constant']} features constant in train"
    return line + (f"\n{'':<15}{shown(one['meaning'])}" if one["meaning"] else "")


def _label_line(name: str, one: dict[str, Any]) -> str:
    missing = f"  ({one['missing']} missing)" if one["missing"] else ""
    if one["kind"] == "class":
        classes = one["classes"]
        few = list(classes.items())[:MAX_CLASSES]
        more = f", ... ({len(classes)} classes)" if len(classes) > len(few) else ""
        return f"  {name:<16} {', '.join(f'{c} {n}' for c, n in few)}{more}{missing}"
    return f"  {name:<16} {', '.join(f'{q} {v:g}' for q, v in one['quantiles'].items())}{missing}"


def _split_lines(name: str, one: dict[str, Any]) -> list[str]:
    classes = [
        f"      {label}: {', '.join(f'{c} {n}' for c, n in counts.items())}" for label, counts in one["classes"].items()
    ]
    return [f"  {name:<6} {one['samples']:>7,} samples of {one['patients']:,} patients", *classes]
