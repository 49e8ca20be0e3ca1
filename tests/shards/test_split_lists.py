"""Splits by published lists: joined by whatever they call an image, refused where they leak, unless that is accepted aloud."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from manifests import png, snapshot

from shards.__main__ import main
from shards.errors import DataError
from shards.format.info import load_info, save_info
from shards.read.dataset import Dataset


class Cohort:
    """Twelve films of eight patients: p0 to p3 have two each."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "films").mkdir(parents=True)
        patients = [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7]
        with open(folder / "manifest.csv", "w", newline="") as f:
            rows = csv.writer(f)
            rows.writerow(["sample", "patient", "field:image"])
            for i, p in enumerate(patients):
                (folder / "films" / f"film.{i:02d}.png").write_bytes(png(i))
                rows.writerow([f"s{i:02d}", f"p{p}", f"films/film.{i:02d}.png"])

    def lists(self, **names: list[str]) -> list[str]:
        words = []
        for split, lines in names.items():
            path = self.folder / f"{split}.txt"
            path.write_text("\n".join(lines) + "\n")
            words += ["--split-list", f"{split}={path}"]
        return words

    def pack(self, *words: str) -> int:
        return main(["pack", str(self.folder / "manifest.csv"), "--out", str(self.folder / "set"), *words])

    def splits(self) -> dict[str, str]:
        with open(self.folder / "set" / "splits.csv", newline="") as f:
            return {r["sample"]: r["split"] for r in csv.DictReader(f)}


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path / "in")


def test_lists_name_samples_by_key_or_file(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys, file names with and without folder or extension, labels behind them; the rest is left out, counted and listed."""
    words = cohort.lists(
        train=["s00", "film.01.png 0 1 0", "films/film.02.png,1", "film.03", ""],
        val=["s08"],
        test=["film.09.png", "s10.dcm"],
    )
    assert cohort.pack(*words) == 0
    assert cohort.splits() == {
        **dict.fromkeys(["s00", "s01", "s02", "s03"], "train"),
        "s08": "val",
        "s09": "test",
        "s10": "test",
    }
    said = capsys.readouterr().out
    assert "5 samples are in no split list and were left out" in said
    assert "LEAK" not in said
    left = (cohort.folder / "set" / "unmatched.csv").read_text().splitlines()
    assert left[1:] == [f"{s},in no split list" for s in ("s04", "s05", "s06", "s07", "s11")]
    assert main(["lint", str(cohort.folder / "set")]) == 0


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"train": ["s00", "film.77.png", "film.78.png"]}, "2 names are no sample of the manifest: film.77.png, film.78.png"),
        ({"train": ["s00", "s01", "film.00.png"]}, "1 samples stand twice: s00"),
        ({"val": ["s00"]}, "no list for 'train'"),
        ({"train": [""]}, "no name in it"),
        ({"train": ["s00"], "hold": ["s01"]}, "is not SPLIT=FILE"),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit_are_refused(
    lists: dict[str, list[str]], says: str, cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cohort.pack(*cohort.lists(**lists)) == 2
    assert says in capsys.readouterr().err
    assert not (cohort.folder / "set").exists()


def test_a_manifest_with_splits_of_its_own_takes_no_lists(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    table = cohort.folder / "manifest.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0] + ",split", *(f"{line},train" for line in lines[1:])]))
    assert cohort.pack(*cohort.lists(train=["s00"])) == 2
    assert "the manifest has a split column" in capsys.readouterr().err


LEAKING = {"train": ["s00", "s02", "s04", "s05", "s08"], "val": ["s01", "s09"], "test": ["s00", "s03", "s10"]}


def test_leaking_lists_are_refused_with_counts(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert cohort.pack(*cohort.lists(**LEAKING)) == 2
    said = capsys.readouterr().err
    assert "train and val share 1 patients and 0 images: 1 of the 2 images of val are of patients in train (p0)" in said
    assert (
        "train and test share 2 patients and 1 images: 2 of the 3 images of test are of patients in train (p0, p1)"
        in said
    )
    assert "val and test share 1 patients and 0 images" in said
    assert "--accept-leaking-lists" in said
    assert not (cohort.folder / "set").exists()


def test_accepted_leaks_are_packed_as_published_and_stay_visible(
    cohort: Cohort, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image of two splits stands in both; lint goes on naming the patients, and a new split mends them."""
    assert cohort.pack(*cohort.lists(**LEAKING), "--accept-leaking-lists") == 0
    said = capsys.readouterr().out
    assert said.count("LEAKING SPLITS, accepted:") == 3
    splits = cohort.splits()
    assert Counter(splits.values()) == {"train": 5, "test": 3, "val": 2}
    assert (splits["s00"], splits["s00-in-test"]) == ("train", "test")
    data = Dataset.open(cohort.folder / "set")
    twice = [data[i].read("image") for i, k in enumerate(data.keys_of(np.arange(len(data)))) if k.startswith("s00")]
    assert len(twice) == 2
    assert (twice[0] == twice[1]).all()
    data.close()
    assert load_info(cohort.folder / "set").leaking_splits
    before = snapshot(cohort.folder / "set")
    assert main(["lint", str(cohort.folder / "set")]) == 2
    assert "patient 'p0' is in" in "".join(capsys.readouterr())
    assert snapshot(cohort.folder / "set") == before
    info = load_info(cohort.folder / "set")
    save_info(cohort.folder / "set", info.model_copy(update={"leaking_splits": False}))
    with pytest.raises(DataError, match="2 patients stand in two splits"):
        Dataset.open(cohort.folder / "set").patients_of(np.array([0]))
    save_info(cohort.folder / "set", info)
    assert main(["split", str(cohort.folder / "set"), "--fractions", "0.5,0.25,0.25"]) == 0
    assert main(["lint", str(cohort.folder / "set")]) == 0
    assert not load_info(cohort.folder / "set").leaking_splits


def test_lists_in_another_case_and_with_another_ending(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    assert cohort.pack(*cohort.lists(train=["FILM.00.PNG", "Films\\film.01.jpeg", "S02"], test=["Film.09"])) == 0
    assert cohort.splits() == {"s00": "train", "s01": "train", "s02": "train", "s09": "test"}
    assert "8 samples are in no split list and were left out, such as s03" in capsys.readouterr().out


def test_a_person_of_two_lists_in_two_spellings(cohort: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    table = cohort.folder / "manifest.csv"
    table.write_text(table.read_text().replace("s01,p0,", "s01,0,").replace("s03,p1,", "s03,P001,"))
    words = cohort.lists(train=["s00", "s02"], test=["s01", "s03", "s08"])
    assert cohort.pack(*words) == 2
    said = capsys.readouterr().err
    assert (
        "train and test share 2 patients and 0 images: 2 of the 3 images of test are of patients in train (0, P001)"
        in said
    )
