"""Splits: patient-disjoint, proportional, whole sites, nested label fractions; and their use on a data set."""

from __future__ import annotations

import csv
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from manifests import snapshot, sources

from shards.errors import DataError
from shards.format.info import load_info
from shards.format.seal import SampleRow
from shards.pack.split import assign, leaks, nested_fractions, parse_fractions, patient_labels, resplit
from shards.read.dataset import Dataset

THREE = {"train": 0.6, "val": 0.2, "test": 0.2}


@given(st.integers(3, 200), st.integers(0, 1000), st.integers(1, 4))
def test_shares_are_met_to_a_patient(count: int, seed: int, classes: int) -> None:
    names = [f"p{i}" for i in range(count)]
    strata = {n: str(i % classes) for i, n in enumerate(names)}
    of = assign(names, THREE, seed, strata)
    assert set(of) == set(names)
    sizes = Counter(of.values())
    assert all(sizes[s] >= 1 for s in THREE)
    assert all(abs(sizes[s] - f * count) <= max(1, classes - 1) for s, f in THREE.items())


@given(st.integers(20, 100), st.integers(0, 100))
def test_every_class_gets_its_share(per_class: int, seed: int) -> None:
    strata = {f"p{i}": "ab"[i < per_class] for i in range(3 * per_class)}
    of = assign(list(strata), THREE, seed, strata)
    for c, size in (("b", per_class), ("a", 2 * per_class)):
        counts = Counter(of[p] for p in strata if strata[p] == c)
        assert all(abs(counts[s] - f * size) <= 1.0001 for s, f in THREE.items())


@given(st.permutations([f"p{i}" for i in range(12)]), st.integers(0, 5))
def test_order_and_repeats_of_the_patients_do_not_matter(names: list[str], seed: int) -> None:
    assert assign(names + names[:5], THREE, seed) == assign(sorted(names), THREE, seed)


def test_seed_decides() -> None:
    names = [f"p{i}" for i in range(50)]
    assert assign(names, THREE, 0) == assign(names, THREE, 0) != assign(names, THREE, 1)


@given(st.lists(st.integers(0, 9), min_size=30, max_size=120), st.integers(0, 50))
def test_sites_stay_whole(sites: list[int], seed: int) -> None:
    groups = {f"p{i}": f"site{s}" for i, s in enumerate(sites)}
    if len(set(groups.values())) < 3:
        return
    of = assign(list(groups), THREE, seed, groups=groups)
    homes: dict[str, set[str]] = {}
    for patient, site in groups.items():
        homes.setdefault(site, set()).add(of[patient])
    assert all(len(h) == 1 for h in homes.values())
    assert set(of.values()) == set(THREE)


def test_sites_meet_shares_nearly() -> None:
    rng = np.random.default_rng(0)
    groups = {f"p{i}": f"s{int(rng.integers(40))}" for i in range(600)}
    strata = {p: "ab"[int(rng.integers(2))] for p in groups}
    of = assign(list(groups), THREE, 3, strata, groups)
    sizes = Counter((of[p], strata[p]) for p in groups)
    for c in "ab":
        total = sum(strata[p] == c for p in groups)
        assert all(abs(sizes[s, c] / total - f) < 0.05 for s, f in THREE.items())


@pytest.mark.parametrize("seed", range(8))
def test_the_last_site_goes_where_the_shares_come_nearest(seed: int) -> None:
    """Sites of 2 to 21 patients, so that one is placed last; its error in every other split is counted anew."""
    rng = np.random.default_rng(seed)
    groups = {f"p{s}-{i}": f"s{s}" for s in range(2, 22) for i in range(s)}
    strata = {p: "ab"[int(rng.integers(2))] for p in groups}
    of = assign(list(groups), THREE, seed, strata, groups)
    total = Counter(strata.values())

    def error(last: str) -> float:
        placed = {p: last if groups[p] == "s2" else split for p, split in of.items()}
        have = Counter((placed[p], strata[p]) for p in groups)
        return sum((have[s, c] / (f * total[c]) - 1) ** 2 for s, f in THREE.items() for c in "ab")

    assert min(THREE, key=error) == of["p2-0"]


def test_too_few_patients_or_sites() -> None:
    with pytest.raises(DataError, match=r"2 patients cannot fill 3 splits .*Fix: ask for fewer"):
        assign(["a", "b"], THREE, 0)
    with pytest.raises(DataError, match=r"1 sites cannot fill"):
        assign(["a", "b", "c"], THREE, 0, groups=dict.fromkeys("abc", "x"))


@pytest.mark.parametrize("text", ["0.5,0.2,0.2", "1,1", "a,b", "0,0.5,0.5", "-0.2,1.2", "", "0.25,0.25,0.25,0.25"])
def test_fractions_that_make_no_sense(text: str) -> None:
    with pytest.raises(DataError, match=r"^--fractions: .* is not a list of fractions. Fix: "):
        parse_fractions(text, "--fractions")


def test_fractions_may_leave_splits_out() -> None:
    assert parse_fractions("0.8,0,0.2") == {"train": 0.8, "test": 0.2}
    assert parse_fractions("1") == {"train": 1.0}


def rows(count: int, classes: int = 2) -> list[SampleRow]:
    return [SampleRow(f"s{i}", f"p{i // 2}", "train", {"y": f"c{(i // 2) % classes}"}) for i in range(2 * count)]


@given(st.integers(4, 300), st.lists(st.floats(0.005, 1), min_size=2, max_size=4, unique=True), st.integers(0, 20))
def test_label_fractions_are_nested_by_patient_and_have_every_class(
    count: int, fractions: list[float], seed: int
) -> None:
    lists = [({r.sample for r in v}, v) for v in nested_fractions(rows(count), "y", sorted(fractions), seed).values()]
    for (small, _), (large, _) in pairwise(lists):
        assert small <= large
    for (_, chosen), fraction in zip(lists, sorted(fractions), strict=False):
        patients = {r.patient for r in chosen}
        assert len(chosen) == 2 * len(patients)  # all samples of a patient, or none
        assert len(patients) == max(round(fraction * count), 2)
        assert {r.labels["y"] for r in chosen} == {"c0", "c1"}
        shares = Counter(r.labels["y"] for r in chosen)
        assert abs(shares["c0"] - shares["c1"]) <= 4


def test_rare_class_is_in_the_smallest_fraction() -> None:
    many = [SampleRow(f"s{i}", f"p{i}", "train", {"y": "rare" if i == 77 else "common"}) for i in range(100)]
    for seed in range(20):
        chosen = nested_fractions(many, "y", [0.02], seed)["train-2.csv"]
        assert {r.labels["y"] for r in chosen} == {"rare", "common"}
        assert len(chosen) == 2


def test_a_fraction_has_the_shares_of_the_classes() -> None:
    many = [SampleRow(f"s{i}", f"p{i}", "train", {"y": "rare" if i < 10 else "common"}) for i in range(100)]
    chosen = nested_fractions(many, "y", [0.5], 0)["train-50.csv"]
    assert Counter(r.labels["y"] for r in chosen) == {"rare": 5, "common": 45}


def test_leaks_are_named() -> None:
    found = leaks(
        [SampleRow("a", "p1", "train", {}), SampleRow("b", "p1", "test", {}), SampleRow("c", "p2", "val", {})]
    )
    assert [str(p) for p in found] == [
        "splits: patient 'p1' is in test and train. Fix: put all samples of a patient into one split, or run `python -m shards split`"
    ]


def test_a_person_written_in_two_ways_leaks_too() -> None:
    found = leaks(
        [SampleRow("a", "Ann", "train", {}), SampleRow("b", "ann", "test", {}), SampleRow("c", "b", "val", {})]
    )
    assert [p.what for p in found] == ["patient 'Ann = ann' is in test and train"]


def test_a_patients_class_is_that_of_most_samples() -> None:
    classes = {"p1": "abb", "p2": "aab", "p3": "ba"}
    many = [SampleRow(f"{p}{i}", p, "train", {"y": c}) for p, of in classes.items() for i, c in enumerate(of)]
    assert patient_labels(many, "y") == {"p1": "b", "p2": "a", "p3": "a"}
    assert patient_labels(many[::-1], "y") == {"p1": "b", "p2": "a", "p3": "a"}


def test_a_split_that_rounding_left_empty_takes_the_smallest_site() -> None:
    groups = {f"{site}{i}": site for site, size in {"a": 40, "b": 3, "c": 20}.items() for i in range(size)}
    of = assign(list(groups), {"train": 0.98, "val": 0.01, "test": 0.01}, 0, None, groups)
    splits = {site: of[f"{site}0"] for site in "abc"}
    assert sorted(splits.values()) == ["test", "train", "val"]
    assert splits["a"] == "train"


# -------------------------------------------------------------------------------------------------------- on a data set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sources(tmp_path / "in", count=40).pack(tmp_path / "out")


def test_resplit_refits_statistics_and_reseals(folder: Path) -> None:
    before = load_info(folder)
    shards = {p.name: p.read_bytes() for p in folder.glob("*.tar")}
    info = resplit(folder, THREE, 7, stratify="subtype", label_fractions=[0.25, 0.5])
    assert info.splits == {"train": 24, "val": 8, "test": 8}
    assert info.fingerprint != before.fingerprint
    assert {p.name: p.read_bytes() for p in folder.glob("*.tar")} == shards
    with Dataset.open(folder) as data:
        train = np.stack([data[int(i)].read("rna") for i in data.subset("train").indices]).astype(np.float64)
        np.testing.assert_allclose(data.stats()["rna.mean"], train.mean(0), rtol=1e-5, atol=1e-6)
        assert [Counter(data.subset(s).labels["subtype"].tolist()) for s in THREE] == [
            {0: 12, 1: 12},
            {0: 4, 1: 4},
            {0: 4, 1: 4},
        ]
        training = {data.keys[int(i)] for i in data.subset("train").indices}
    quarter, half = (
        {r["sample"] for r in csv.DictReader((folder / "labels" / n).read_text().splitlines())}
        for n in ("train-25.csv", "train-50.csv")
    )
    assert quarter < half < training
    assert (len(quarter), len(half)) == (6, 12)
    assert {"labels/train-25.csv", "labels/train-50.csv"} <= set(info.files)


def test_resplit_is_repeatable_and_drops_old_fractions(folder: Path) -> None:
    resplit(folder, THREE, 7, label_fractions=[0.25])
    first = snapshot(folder)
    resplit(folder, THREE, 8, label_fractions=[0.5])
    assert not (folder / "labels" / "train-25.csv").exists()
    resplit(folder, THREE, 7, label_fractions=[0.25])
    assert snapshot(folder) == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stratify": "subtip"}, r"--stratify: no label 'subtip'. Fix: one of: age, subtype"),
        ({"group": "hospital"}, r"--group: no label 'hospital'"),
        ({"label_fractions": [1.5]}, r"--label-fractions: \[1.5\]"),
    ],
)
def test_bad_options_change_nothing(folder: Path, options: dict, message: str) -> None:
    before = snapshot(folder)
    with pytest.raises(DataError, match=message):
        resplit(folder, THREE, **options)
    assert snapshot(folder) == before


def test_group_by_a_label_that_some_patients_lack(tmp_path: Path) -> None:
    made = sources(tmp_path / "in")
    for i, row in enumerate(made.rows):
        row["label:site:class"] = "" if i == 3 else f"h{i % 4}"
    folder = made.pack(tmp_path / "out")
    with pytest.raises(DataError, match=r"--group: 1 patients have no 'site' or several: p03"):
        resplit(folder, THREE, group="site")


def test_a_patient_of_two_sites_cannot_be_grouped(tmp_path: Path) -> None:
    made = sources(tmp_path / "in")
    for i, row in enumerate(made.rows):
        row["label:site:class"] = f"h{i % 4}"
        row["patient"] = "p-two" if i in (3, 4) else row["patient"]
    folder = made.pack(tmp_path / "out")
    with pytest.raises(DataError, match=r"--group: 1 patients have no 'site' or several: p-two"):
        resplit(folder, THREE, group="site")


def test_label_fractions_go_by_the_one_label_of_classes(tmp_path: Path) -> None:
    """Without --stratify: one class in twenty would be missing from most fractions of a tenth."""
    made = sources(tmp_path / "in", count=40)
    for i, row in enumerate(made.rows):
        row["label:subtype"] = "rare" if i < 2 else "common"
    folder = made.pack(tmp_path / "out")
    for seed in range(3):
        resplit(folder, {"train": 1.0}, seed, label_fractions=[0.1])
        lines = (folder / "labels" / "train-10.csv").read_text().splitlines()[1:]
        assert len(lines) == 4
        assert {line.split(",")[0] for line in lines} & {made.rows[0]["sample"], made.rows[1]["sample"]}, seed


def test_tcga_site_comes_from_the_barcode(tmp_path: Path) -> None:
    made = sources(tmp_path / "in")
    for i, row in enumerate(made.rows):
        row["patient"] = f"TCGA-{10 + i % 4}-{1000 + i}"
    resplit(made.pack(tmp_path / "out"), THREE, group="tss")
    with Dataset.open(tmp_path / "out") as data:
        homes = [{p[5:7] for p in data.patients_of(data.subset(s).indices)} for s in THREE]
    assert sum(map(len, homes)) == 4


def test_a_crash_between_files_leaves_the_set_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = snapshot(folder)
    with monkeypatch.context() as patch:
        patch.setattr("shards.pack.split.save_info", stop)
        with pytest.raises(KeyboardInterrupt):
            resplit(folder, THREE, 99)
    assert snapshot(folder) == before
    resplit(folder, THREE, 99)
    Dataset.open(folder).close()


def test_samples_of_a_patient_stay_together(tmp_path: Path) -> None:
    made = sources(tmp_path / "in", count=30)
    for i, row in enumerate(made.rows):
        row["patient"] = f"p{i // 3}"
    folder = made.pack(tmp_path / "out")
    text = (folder / "splits.csv").read_text()
    homes: dict[str, set[str]] = {}
    for patient, split in re.findall(r"s\d+,(p\d+),(\w+)", text):
        homes.setdefault(patient, set()).add(split)
    assert len(homes) == 10
    assert all(len(h) == 1 for h in homes.values())
