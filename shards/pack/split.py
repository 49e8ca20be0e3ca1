"""Patient-disjoint splits: a pure function of (patients, strata, groups, fractions, seed), and its use on a data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from shards.errors import Problem, bad
from shards.format.info import SPLITS, DatasetInfo, load_info, save_info, write_atomic
from shards.format.sample_rows import SampleRow, SampleRows
from shards.format.seal import csv_bytes, describe, read_rows, write_rows
from shards.format.staging import rewriting, settle
from shards.read.stats import write_stats
from shards.tables.cells import number
from shards.tables.encoded import Encoded
from shards.tables.identity import barcode, one_spelling, person
from shards.tables.repeats import torn

WHERE = "--split-fractions"
AGAIN = "--fractions"
"""What packing calls the shares, and what `split` calls them."""
PART = 1 << 14
"""Patients whose samples are counted at a time."""


def parse_fractions(text: str, where: str = WHERE) -> dict[str, float]:
    """'0.8,0.1,0.1' -> {'train': 0.8, 'val': 0.1, 'test': 0.1}; two numbers mean train and val. `where`: the option it was given to.

    Raises:
        DataError: not two or three numbers from 0 to 1 that add up to 1, or nothing for training.
    """
    values = [-1.0 if (v := number(part)) is None else v for part in text.split(",")]
    good = (
        len(values) in (1, 2, 3) and all(0 <= v <= 1 for v in values) and abs(sum(values) - 1) < 1e-6 and values[0] > 0
    )
    if not good:
        raise bad(
            f"'{text}' is not a list of fractions",
            where,
            "give train,val,test as numbers that add up to 1, such as 0.8,0.1,0.1",
        )
    return {s: v for s, v in zip(SPLITS, values, strict=False) if v > 0}


def assign(
    patients: Iterable[str],
    fractions: Mapping[str, float],
    seed: int,
    strata: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
    where: str = WHERE,
) -> dict[str, str]:
    """The split of each patient.

    Args:
        patients: any order, repeats allowed; the result depends on the set alone.
        strata: class of a patient; each split gets its share of every class.
        groups: site of a patient; a site stays whole. Shares are then met as nearly as whole sites allow.
        where: the option that the fractions were given to.

    Raises:
        DataError: a split would be empty.
    """
    names = sorted(set(patients))
    if not groups:
        rank = {stratum: i for i, stratum in enumerate(sorted({*(strata or {}).values(), ""}))}
        stratum_P = np.array([rank[(strata or {}).get(name, "")] for name in names], np.int32)
        splits = [*fractions]
        return {name: splits[i] for name, i in zip(names, shared_out(stratum_P, fractions, seed, where), strict=True)}
    units: dict[str, list[str]] = defaultdict(list)
    for name in names:
        units[groups[name]].append(name)
    _check_count(len(units), "sites", fractions, where)
    of_unit = _greedy(units, fractions, np.random.default_rng(seed), strata or {})
    _fill_empty(of_unit, {u: len(m) for u, m in units.items()}, fractions)
    return {name: of_unit[unit] for unit, members in units.items() for name in members}


def _check_count(count: int, of: str, fractions: Mapping[str, float], where: str) -> None:
    if count < len(fractions):
        what = f"{count} {of} cannot fill {len(fractions)} splits ({', '.join(fractions)})"
        raise bad(what, where, f"ask for fewer splits ({where} 1), or bring more data")


def shared_out(stratum_P: np.ndarray, fractions: Mapping[str, float], seed: int, where: str = WHERE) -> np.ndarray:
    """int8 [P]: the split of each patient, as its number in `fractions`.

    Each stratum is shuffled and cut; what rounding leaves over goes where most is owed so far, so totals fit too.

    Args:
        stratum_P: of patients in ascending order of their names, numbers in the order of the strata.

    Raises:
        DataError: a split would be empty.
    """
    _check_count(len(stratum_P), "patients", fractions, where)
    rng, share_S = np.random.default_rng(seed), [*fractions.values()]
    owed_S, given_S = [0.0] * len(share_S), [0] * len(share_S)
    split_P, taken = np.empty(len(stratum_P), np.int8), []
    for stratum in np.unique(stratum_P):
        members = np.flatnonzero(stratum_P == stratum)
        members = members[rng.permutation(len(members))]
        count_S = [int(f * len(members) + 1e-9) for f in share_S]
        for s, share in enumerate(share_S):
            owed_S[s] += share * len(members)
            given_S[s] += count_S[s]
        for _ in range(len(members) - sum(count_S)):
            neediest = max(range(len(share_S)), key=lambda s: owed_S[s] - given_S[s])
            count_S[neediest] += 1
            given_S[neediest] += 1
        split_P[members] = np.repeat(np.arange(len(share_S)), count_S)
        taken.append(members)
    _fill_each(split_P, len(share_S), np.concatenate(taken))
    return split_P


def _fill_each(split_P: np.ndarray, splits: int, order_P: np.ndarray) -> None:
    """A split that rounding left empty takes the first patient of the split that has most, and the one met first of several such."""
    for empty in range(splits):
        count_S = np.bincount(split_P, minlength=splits)
        if not count_S[empty]:
            most = split_P[order_P][count_S[split_P[order_P]] == count_S.max()][0]
            split_P[np.flatnonzero(split_P == most)[0]] = empty


def _greedy(
    units: Mapping[str, Sequence[str]],
    fractions: Mapping[str, float],
    rng: np.random.Generator,
    strata: Mapping[str, str],
) -> dict[str, str]:
    """Sites from large to small, each to the split whose class counts it brings nearest to the target."""
    classes = sorted({strata.get(n, "") for members in units.values() for n in members})
    count_UC = {u: np.array([sum(strata.get(n, "") == c for n in m) for c in classes], float) for u, m in units.items()}
    total_C = sum(count_UC.values())
    have = {s: np.zeros(len(classes)) for s in fractions}
    sites = sorted(units)
    tie = dict(zip(sites, rng.permutation(len(sites)), strict=True))
    result = {}
    for unit in sorted(sites, key=lambda u: (-len(units[u]), tie[u])):

        def gain(s: str, unit: str = unit) -> float:
            # Error relative to the split's size, or the large training split would swallow every site first.
            target_C = np.maximum(fractions[s] * total_C, 1e-9)
            before, after = (have[s] - target_C) / target_C, (have[s] + count_UC[unit] - target_C) / target_C
            return float((before**2).sum() - (after**2).sum())

        result[unit] = max(fractions, key=gain)
        have[result[unit]] += count_UC[unit]
    return result


def _fill_empty(of_unit: dict[str, str], sizes: Mapping[str, int], fractions: Mapping[str, float]) -> None:
    """A split that rounding left empty takes the smallest site of the split that has most sites."""
    for split in fractions:
        counts = Counter(of_unit.values())
        if not counts[split]:
            donor = counts.most_common(1)[0][0]
            moved = min((u for u, s in of_unit.items() if s == donor), key=lambda u: (sizes[u], u))
            of_unit[moved] = split


def respelling(rows: Sequence[SampleRow]) -> dict[str, str]:
    """The first spelling of each person that is written in several ways, by each of them."""
    several = torn((person(r.patient), r.patient) for r in rows)
    return one_spelling(r.patient for r in rows if hash(person(r.patient)) in several)


def one_name_each(rows: Sequence[SampleRow]) -> list[SampleRow]:
    """The rows with one spelling for each person, the first."""
    spelling = respelling(rows)
    return [replace(r, patient=spelling[r.patient]) if r.patient in spelling else r for r in rows]


def patient_labels(rows: Sequence[SampleRow], label: str) -> dict[str, str]:
    """A patient's class: the most frequent one of its samples ('' where none is known)."""
    patients, values = (
        Encoded(row.patient for row in rows),
        Encoded(str(row.labels.get(label, "")) for row in rows),
    )
    of_P = strata_of(patients, values)
    return {name: values.names[i] for name, i in zip(patients.names, of_P.tolist(), strict=True)}


def strata_of(patients: Encoded, values: Encoded) -> np.ndarray:
    """int64 [P]: of each patient the value that most of its samples have, the least of several such."""
    most = max(len(values.names), 1)
    pair_N = patients.code_N.astype(np.int64)
    pair_N *= most
    pair_N += values.code_N
    pair_N.sort()
    count = len(patients.names)
    value_P, begin = np.empty(count, np.int64), 0
    for first in range(0, count, PART):  # not the pairs of all patients at once
        end = int(np.searchsorted(pair_N, (first + PART) * most))
        value_P[first : first + PART] = _commonest(pair_N[begin:end], most)
        begin = end
    return value_P


def _commonest(pair_M: np.ndarray, most: int) -> np.ndarray:
    """Of each patient in ascending pairs of patient and value the commonest value, the least of several such."""
    begin_K = np.flatnonzero(np.concatenate([np.ones(1, bool), pair_M[1:] != pair_M[:-1]]))
    count_K = np.diff(begin_K, append=len(pair_M))
    patient_K, value_K = np.divmod(pair_M[begin_K], most)
    order_K = np.lexsort((value_K, -count_K, patient_K))
    return value_K[order_K][np.unique(patient_K[order_K], return_index=True)[1]]


def leaks(rows: Sequence[SampleRow]) -> list[Problem]:
    """One problem for each patient that stands in several splits, in whatever spelling."""
    parted = torn((person(row.patient), row.split) for row in rows)
    seen: dict[str, tuple[set[str], dict[str, None]]] = {}
    for row in (r for r in rows if hash(person(r.patient)) in parted):
        splits, names = seen.setdefault(person(row.patient), (set(), {}))
        splits.add(row.split)
        names[row.patient] = None
    fix = "put all samples of a patient into one split, or run `python -m shards split`"
    return [
        Problem(f"patient '{' = '.join(names)}' is in {' and '.join(sorted(splits))}", "splits", fix)
        for splits, names in seen.values()
        if len(splits) > 1
    ]


def nested_fractions(
    rows: Sequence[SampleRow], label: str | None, fractions: Sequence[float], seed: int
) -> dict[str, list[SampleRow]]:
    """Training samples of each label fraction by file name; a smaller fraction lies inside every larger one.

    Patients are ranked once, classes interleaved in proportion; a fraction is a prefix of that ranking, of at least one patient a class.
    """
    if not fractions:
        return {}
    strata = patient_labels([r for r in rows if r.split == "train"], label) if label else {}
    by_stratum: dict[str, list[str]] = defaultdict(list)
    for patient in sorted({r.patient for r in rows if r.split == "train"}):
        by_stratum[strata.get(patient, "")].append(patient)
    rng, ranked = np.random.default_rng(seed), []
    for stratum in sorted(by_stratum):
        members = by_stratum[stratum]
        ranked += [((i + 0.5) / len(members), stratum, members[k]) for i, k in enumerate(rng.permutation(len(members)))]
    # The first of every class comes before anything else, so that no fraction lacks a class.
    firsts = {min(r for r in ranked if r[1] == s) for s in by_stratum}
    order = [r[2] for r in sorted(ranked, key=lambda r: (r not in firsts, r))]
    lists = {}
    for fraction in fractions:
        chosen = set(order[: max(round(fraction * len(order)), len(by_stratum))])
        lists[f"train-{100 * fraction:g}.csv"] = [r for r in rows if r.split == "train" and r.patient in chosen]
    return lists


def resplit(
    folder: Path,
    fractions: Mapping[str, float],
    seed: int = 0,
    *,
    stratify: str | None = None,
    group: str | None = None,
    label_fractions: Sequence[float] = (),
) -> DatasetInfo:
    """Gives a data set new splits: rewrites splits.csv and labels/, refits stats.npz on the new training split, reseals dataset.json.

    All in one step: another process sees the old data set or the new one (`staging.rewriting`).

    Raises:
        DataError: unknown label, a patient in two sites, fractions out of range, a split that would be empty.
    """
    settle(folder)
    load_info(folder)  # a folder that is no data set is not worth a lock
    with rewriting(folder) as staging:
        return _resplit(staging, fractions, seed, stratify, group, label_fractions)


def _resplit(
    folder: Path,
    fractions: Mapping[str, float],
    seed: int,
    stratify: str | None,
    group: str | None,
    label_fractions: Sequence[float],
) -> DatasetInfo:
    info = load_info(folder)
    rows = read_rows(folder, info.labels)
    if spelling := respelling(rows):
        rows = rows.respelt(lambda name: spelling.get(name, name))
    barcodes = group == "tss" and "tss" not in info.labels and all(barcode(r.patient) for r in rows)
    _check_asked(info, stratify, None if barcodes else group, label_fractions)
    # The second field of a barcode is the tissue source site.
    sites = {r.patient: (barcode(r.patient) or "")[5:7] for r in rows} if barcodes else None
    groups = sites or (_sites(rows, group) if group else None)
    if groups:
        of = assign(
            rows.patients.names, fractions, seed, patient_labels(rows, stratify) if stratify else None, groups, AGAIN
        )
        splits = [*fractions]
        of_P = np.array([splits.index(of[name]) for name in rows.patients.names], np.int8)
    else:
        of_P = shared_out(_strata(rows, stratify), fractions, seed, AGAIN)
    rows = rows.moved([*fractions], of_P)
    classes = [n for n, i in info.labels.items() if i.kind == "class" and n != group]
    by = stratify or (classes[0] if len(classes) == 1 else None)
    write_rows(folder, rows, info.labels)
    _write_fractions(folder, nested_fractions(rows, by, label_fractions, seed))
    write_stats(folder, info, rows)
    return save_info(folder, describe(info, folder, rows))


def _strata(rows: SampleRows, label: str | None) -> np.ndarray:
    if label is None:
        return np.zeros(len(rows.patients.names), np.int64)
    return strata_of(rows.patients, Encoded(str(row.labels.get(label, "")) for row in rows))


def _check_asked(info: DatasetInfo, stratify: str | None, group: str | None, label_fractions: Sequence[float]) -> None:
    for option, name in (("--stratify", stratify), ("--group", group)):
        if name is not None and name not in info.labels:
            known = ", ".join(info.labels) or "none, the data set has no labels"
            raise bad(f"no label '{name}'", option, f"one of: {known}")
    if any(not 0 < f <= 1 for f in label_fractions):
        what, fix = (
            f"{list(label_fractions)} is not a list of fractions",
            "numbers over 0 and up to 1, such as 0.01,0.1",
        )
        raise bad(what, "--label-fractions", fix)


def _write_fractions(folder: Path, lists: Mapping[str, Sequence[SampleRow]]) -> None:
    for old in folder.glob("labels/train-*.csv"):  # of an earlier split: its patients may be in another split now
        old.unlink()
    if lists:
        (folder / "labels").mkdir(exist_ok=True)
    for name, rows in lists.items():
        write_atomic(folder / "labels" / name, csv_bytes(("sample", "patient"), ((r.sample, r.patient) for r in rows)))


def _sites(rows: Sequence[SampleRow], label: str) -> dict[str, str]:
    """Site of each patient; patients seen at two sites, or with no site, cannot be grouped."""
    sites: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        sites[row.patient].add(str(row.labels.get(label, "")))
    odd = [p for p, s in sites.items() if len(s) > 1 or "" in s]
    if odd:
        what = f"{len(odd)} patients have no '{label}' or several: {', '.join(odd[:5])}"
        raise bad(what, "--group", "group by a label that every patient has exactly once")
    return {p: next(iter(s)) for p, s in sites.items()}
