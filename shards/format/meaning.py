"""What the numbers of a field are where dtype and shape do not say it, and whether two data sets agree in it.

`dataset.json` holds it as fields.FIELD.meaning, words by key. It is filled by what packing did (transforms), by what sources find in
their files (encoder, magnification), and by `--meaning FIELD.KEY=VALUE`. A key that is not there is not known. Two data sets, or a run
and a data set, that both know a key must agree in it: the same vector of 1,024 numbers may come from two encoders, the same gene be
counted or logarithmic, the same code count either allele, and nothing but these words can tell.

This module knows no field in particular: a source, or a reader of images or genotypes, stores what it knows under a key of `KEYS`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from shards.errors import DataError, Problem
from shards.format.canonical import canonical, same
from shards.format.images import reading_of
from shards.format.info import FIELD, DatasetInfo, load_info, save_info
from shards.format.staging import disk_errors, locked, settle

Meaning = Mapping[str, str]
Meanings = Mapping[str, Meaning]
FLAG = "--meaning"

KEYS = {
    "transform": "what was done to the values: none, log2p1 (log2(x + 1)), log2, z, ...",
    "unit": "what a value counts or measures: counts, FPKM, TPM; of coordinates px (of the slide's finest level) or um",
    "encoder": "the network that made a bag's features, such as conch_v15",
    "magnification": "objective power at which the encoder saw the patches, such as 20x",
    "patch_size": "side of a patch in pixels at that magnification, such as 256",
    "patch_level": "level of the slide's pyramid at which patches were cut, 0 the finest (CLAM); patch_size counts its pixels",
    "mpp": "micrometres a pixel, such as 0.5",
    "allele": "which allele a genotype code counts",
    "build": "reference genome of positions, such as GRCh38",
    "bits": "bits of a pixel that are used, such as 12",
    "orientation": "of photographs with an EXIF orientation: exif (turned by it when read) or stored",
    "opacity": "what lies under transparent pixels of an image: black, white, or ignore (colours as stored)",
    "object": "of a mask: the least value of the object, or any",
    "values": "the values that occur in a mask",
    "slices": "of volumes, across which axis they were cut: axial, coronal, sagittal",
    "window": "which values of a volume become black and white",
    "scaled": "size and coding that larger images were given when packed (--image-side, --image-format)",
    "study_view": "which of the images of a study, and by what order: 1 of 3, position (docs/data.md) or listed",
}
# How the files of one data set become pixels (shards/format/images.py): what is read is the same in all, so these need not agree.
OF_FILES = ("orientation", "opacity", "object", "values", "scaled")
# What a reader of a field cannot do without. `lint` and `info` name those that a data set does not hold.
WANTED = {
    "patches": ("encoder", "magnification", "patch_size"),
    "rna": ("transform",),
    "snp": ("allele", "build"),
}
_KEY = re.compile(r"[a-z][a-z0-9_]*")


# ------------------------------------------------------------------------------------------------------------------- stating


def parse_meanings(given: Sequence[str] | None, flag: str = FLAG, forget: bool = False) -> dict[str, dict[str, str]]:
    """['patches.encoder=uni_v1'] -> {'patches': {'encoder': 'uni_v1'}}; with `forget`, `FIELD.KEY=` has an empty value.

    Raises:
        DataError: another form, a key that looks like a known one misspelt, one key with two values.
    """
    found: dict[str, dict[str, str]] = {}
    problems = []
    for text in given or ():
        place, mark, value = text.partition("=")
        name, _, key = place.partition(".")
        if not (mark and (value.strip() or forget) and FIELD.fullmatch(name) and _KEY.fullmatch(key)):
            problems.append(
                Problem(f"'{text}' is not FIELD.KEY=VALUE", flag, f"such as {flag} patches.encoder=conch_v15")
            )
        elif key not in KEYS and (near := difflib.get_close_matches(key, KEYS, n=1, cutoff=0.75)):
            problems.append(Problem(f"no key '{key}' in '{text}'", flag, f"did you mean '{near[0]}'?"))
        elif key in (known := found.setdefault(name, {})) and not same(key, known[key], value):
            problems.append(Problem(f"{place} is both '{known[key]}' and '{value}'", flag, "give one of them"))
        else:
            known[key] = canonical(key, value)
    if problems:
        raise DataError(problems)
    return found


def joined(stated: Meanings, found: Meanings, where: str, fix: str) -> dict[str, dict[str, str]]:
    """Both together: what the user stated and what was found in the files, or done to them.

    Raises:
        DataError: they contradict each other.
    """
    problems = [
        Problem(f"{name}.{key} is stated as '{mine}' and is '{theirs}'", where, fix)
        for name, key, mine, theirs in _differences(stated, found)
    ]
    if problems:
        raise DataError(problems)
    return {n: {**found.get(n, {}), **stated.get(n, {})} for n in sorted({*stated, *found})}


def restate(folder: Path, changes: Meanings, overwrite: bool = False) -> DatasetInfo:
    """States meanings of a packed data set (an empty value: not known), which seals it anew with another fingerprint.

    Raises:
        DataError: no such field; a key that says something else already, without `overwrite`.
    """
    settle(Path(folder))
    info, problems, fields = load_info(folder), [], {}
    for name, words in changes.items():
        if name not in info.fields:
            problems.append(
                Problem(f"no field '{name}'", str(folder), f"fields: {', '.join(sorted(set(info.fields) - {'meta'}))}")
            )
            continue
        old = info.fields[name].meaning
        for key, value in words.items():
            if not overwrite and key in old and not (value and same(key, old[key], value)):
                what = f"{name}.{key} is '{old[key]}', not '{value}'" if value else f"{name}.{key} is '{old[key]}'"
                problems.append(Problem(what, str(folder), "give --overwrite if what is stored is wrong"))
        kept = {k: canonical(k, v) for k, v in {**old, **words}.items() if v}
        fields[name] = info.fields[name].model_copy(update={"meaning": kept})
        if fields[name].kind == "image":
            reading_of(name, kept, folder)
    if problems:
        raise DataError(problems)
    with disk_errors(Path(folder), "the data set is as it was"), locked(Path(os.path.realpath(folder))):
        return save_info(Path(folder), info.model_copy(update={"fields": {**info.fields, **fields}}))


# ----------------------------------------------------------------------------------------------------------------- comparing


def meanings_of(info: DatasetInfo) -> dict[str, dict[str, str]]:
    """{field: {key: value}} of the fields that have any."""
    return {n: dict(f.meaning) for n, f in info.fields.items() if f.meaning}


def stored_meanings(folder: Path) -> dict[str, dict[str, str]]:
    """What a folder's dataset.json says of its fields, even if the file was edited by hand; nothing where there is none."""
    try:
        return meanings_of(DatasetInfo.model_validate_json((Path(folder) / "dataset.json").read_bytes()))
    except (OSError, ValueError):
        return {}


def _differences(mine: Meanings, theirs: Meanings) -> Iterator[tuple[str, str, str, str]]:
    """(field, key, my value, their value) where both know a key and do not agree."""
    for name in sorted(set(mine) & set(theirs)):
        for key in sorted(set(mine[name]) & set(theirs[name]) - set(OF_FILES)):
            if not same(key, mine[name][key], theirs[name][key]):
                yield name, key, mine[name][key], theirs[name][key]


_REMEDY = {
    "encoder": "bring features of one encoder, or use one of the two",
    "magnification": "bring features of one magnification, or use one of the two",
    "patch_size": "bring features of one patch size, or use one of the two",
    "patch_level": "bring patches cut at one level, or use one of the two",
    "transform": "pack both with the same --transform",
    "allele": "count the same allele in both",
    "bits": "state the same bits for both, those of the devices",
    "build": "lift one of them over to the other's reference",
}


def disagreements(
    mine: Meanings, my_place: object, theirs: Meanings, their_place: object, fields: Iterable[str] | None = None
) -> list[Problem]:
    """What two data sets (or a run and a data set) say differently of the same field; of `fields` alone, if given."""
    chosen = None if fields is None else set(fields)
    found = []
    for name, key, a, b in _differences(mine, theirs):
        if chosen is None or name in chosen:
            what = f"{key} is '{a}' in {my_place} and '{b}' in {their_place}"
            state = f"python -m shards meaning DIR {name}.{key}=VALUE --overwrite"
            fix = f"{_REMEDY.get(key, 'pack both alike')}; if a stored word is wrong: {state}"
            found.append(Problem(what, f"field '{name}'", fix))
    return found


def check_agreement(sets: Sequence[tuple[object, Meanings]]) -> None:
    """All data sets against each other, as (path, meanings); a later one need only be compared with the first that knows a key.

    Raises:
        DataError: every field and key in which two disagree.
    """
    known: dict[str, dict[str, tuple[object, str]]] = {}
    problems = []
    for place, meanings in sets:
        for name, words in meanings.items():
            for key, value in words.items():
                first, said = known.setdefault(name, {}).setdefault(key, (place, value))
                problems += disagreements({name: {key: said}}, first, {name: {key: value}}, place)
    if problems:
        raise DataError(problems)


def one_sided(sets: Sequence[tuple[object, Meanings, Iterable[str]]]) -> list[str]:
    """Lines on what only some of the data sets say of a field that all of them hold: (path, meanings, fields)."""
    common = set.intersection(*(set(fields) for _, _, fields in sets)) if sets else set()
    lines = []
    for name in sorted(common):
        for key in sorted({k for _, m, _ in sets for k in m.get(name, {})} - set(OF_FILES)):
            lacking = [str(place) for place, m, _ in sets if key not in m.get(name, {})]
            if lacking:
                place, value = next((p, m[name][key]) for p, m, _ in sets if key in m.get(name, {}))
                lines.append(
                    f"field '{name}': {key} is '{value}' in {place} and not stored in {', '.join(lacking)}, so nothing can be compared; "
                    f"state it: python -m shards meaning DIR {name}.{key}=VALUE"
                )
    return lines


def merged(sets: Sequence[Meanings]) -> dict[str, dict[str, str]]:
    """What is known of data sets that agree, taken together."""
    out: dict[str, dict[str, str]] = {}
    for meanings in sets:
        for name, words in meanings.items():
            for key, value in words.items():
                out.setdefault(name, {}).setdefault(key, value)
    return out


def not_stored(info: DatasetInfo) -> dict[str, list[str]]:
    """{field: keys of WANTED that the data set does not hold}, for `patches_uni` those of `patches`."""
    lacking = {n: [k for k in WANTED.get(n.split("_")[0], ()) if k not in f.meaning] for n, f in info.fields.items()}
    return {n: keys for n, keys in lacking.items() if keys}


def shown(meaning: Meaning) -> str:
    """`encoder conch_v15, magnification 20x`"""
    return ", ".join(f"{k} {v}" for k, v in sorted(meaning.items()))
