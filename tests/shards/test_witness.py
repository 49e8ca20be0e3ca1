"""Equal images and bags under different names: what counts as a witness, what does not, and that it is quick on a million samples."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from manifests import Sources, sources
from PIL import Image

from shards.__main__ import main
from shards.check.lint import lint
from shards.check.witness import (
    MANY,
    Contents,
    across,
    codes_of,
    contents_of,
    is_witness,
    split_lines,
    tells,
    twin_lines,
    unique_codes,
)
from shards.format.info import FieldInfo
from shards.pack.options import PackOptions
from shards.read.cache import Cache
from shards.read.dataset import Dataset
from tests.shards.servers import http_server

SPLITS = ("train", "val", "test")


def split_evenly(made: Sources) -> Sources:
    for i, row in enumerate(made.rows):
        row["split"] = SPLITS[i % 3]
    return made


def shared(folder: Path) -> list[str]:
    """The samples that stand together in `split_lines`, and that lint agrees."""
    with Dataset.open(folder) as data:
        lines = split_lines(data)
    found = [p for p in lint(folder).problems if "under different patients" in p.what]
    assert len(found) == len(lines)
    return lines


def test_an_image_under_two_names(tmp_path: Path) -> None:
    made = split_evenly(sources(tmp_path / "in", count=30))
    assert shared(made.pack(tmp_path / "clean")) == []
    made.rows[8]["field:image"] = made.rows[0]["field:image"]  # test and train
    made.rows[9]["field:image"] = made.rows[3]["field:image"]  # both train
    made.rows[20]["field:image"] = made.rows[19]["field:image"]  # test and val
    (line,) = shared(made.pack(tmp_path / "set"))
    assert line.startswith("2 x the same 'image' under different patients in different splits: ")
    assert "s00 (p00, train) = s08 (p08, test)" in line
    assert "s19 (p19, val) = s20 (p20, test)" in line
    assert "s09" not in line


def test_where_nothing_stands_twice_no_table_is_read(tmp_path: Path) -> None:
    made = split_evenly(sources(tmp_path / "in", count=12))
    made.pack(tmp_path / "clean")
    made.rows[8]["field:image"] = made.rows[0]["field:image"]
    made.pack(tmp_path / "set")
    for name in ("clean", "set"):
        with Dataset.open(tmp_path / name) as data:
            assert bool(split_lines(data)) == ("_splits" in vars(data)) == (name == "set")


def test_a_bag_under_two_names(tmp_path: Path) -> None:
    made = split_evenly(sources(tmp_path / "in", count=30))
    made.rows[5]["field:patches"] = made.rows[4]["field:patches"]
    (line,) = shared(made.pack(tmp_path / "set"))
    assert line.startswith("1 x the same 'patches'")


def test_one_person_may_have_an_image_twice(tmp_path: Path) -> None:
    """In one split, or in whatever spelling: what patients say already is not said again."""
    made = split_evenly(sources(tmp_path / "in", count=30))
    made.rows[3] |= {"patient": "P00", "field:image": made.rows[0]["field:image"]}
    assert shared(made.pack(tmp_path / "set")) == []


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_black_images_are_nobodys(tmp_path: Path, form: str) -> None:
    made = split_evenly(sources(tmp_path / "in", count=30))
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "in" / f"black.{form}")
    for i in range(9):
        made.rows[i]["field:image"] = f"black.{form}" if form == "jpg" or i < 3 else made.rows[i]["field:image"]
    if form == "jpg":
        for i, row in enumerate(made.rows):
            if i >= 9:
                Image.open(tmp_path / "in" / row["field:image"]).save(tmp_path / "in" / f"p{i}.jpg")
                row["field:image"] = f"p{i}.jpg"
    assert shared(made.pack(tmp_path / "set")) == []


@pytest.mark.parametrize(("people", "found"), [(MANY, 1), (MANY + 1, 0)])
def test_a_placeholder_of_many_people_is_nobodys(tmp_path: Path, people: int, found: int) -> None:
    made = split_evenly(sources(tmp_path / "in", count=30))
    for row in made.rows[:people]:
        row["field:image"] = "p0.png"
    assert len(shared(made.pack(tmp_path / "set"))) == found


def test_equal_size_and_crc_are_not_enough(tmp_path: Path) -> None:
    """Two other contents of one code are told apart by their bytes."""
    made = split_evenly(sources(tmp_path / "in", count=30))
    folder = made.pack(tmp_path / "set")
    with Dataset.open(folder) as data:
        found = contents_of(data)
        alike = Contents(
            found.fields, np.where(found.sample_M < 2, np.uint64(7), found.code_M), found.sample_M, found.field_M
        )
        assert [*across(data, alike, data.split_codes)] == []


def test_what_is_a_witness() -> None:
    def info(ext: str, shape: tuple[int | None, ...] | None) -> FieldInfo:
        return FieldInfo(ext=ext, shape=shape, count=1)  # type: ignore[arg-type]

    assert is_witness("image", info("jpg", (None, None, 3)))
    assert is_witness("patches", info("npy", (None, 8)))
    assert not is_witness("coords", info("npy", (None, 2)))
    assert not is_witness("mask_a", info("png", (8, 8, 1)))
    assert not is_witness("snp", info("npy", (100,))), "few SNPs are equal in many people"
    assert not is_witness("report", info("txt", None))
    triplets = FieldInfo(ext="npy", dtype="int8", shape=(51, 75), count=1)
    assert not is_witness("triplets", triplets), "two reports often say the same"
    assert is_witness("triplets", triplets.model_copy(update={"dtype": "float16"}))
    assert tells(np.arange(16))
    assert not tells(np.arange(15))
    assert not tells(np.full((40, 40), 7))


def test_packing_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = split_evenly(sources(tmp_path / "in", count=30))
    made.rows[8]["field:image"] = "p0.png"
    assert main(["pack", str(made.write()), "--out", str(tmp_path / "set")]) == 0
    assert "LEAK: 1 x the same 'image' under different patients in different splits: s00" in capsys.readouterr().out
    assert main(["split", str(tmp_path / "set"), "--fractions", "1"]) == 0
    assert "LEAK" not in capsys.readouterr().out


class Many:
    """A data set of a million samples, of which only the tables are there; reading one tells which content it is."""

    def __init__(self, n: int):
        rng = np.random.default_rng(0)
        self.patient_codes = np.arange(n) // 3
        self.split_codes = rng.integers(0, 3, n // 3 + 1)[self.patient_codes]
        self.code = rng.integers(0, 2**63, n).astype(np.uint64)
        self.code[-50:] = self.code[:50]
        self.contents = Contents(("image",), self.code, np.arange(n), np.zeros(n, np.int64))

    def raw(self, i: int, fields: list[str]) -> list[bytes]:
        return [int(self.code[i]).to_bytes(8, "little")]

    def __getitem__(self, i: int) -> Many:
        self.at = i
        return self

    def read(self, field: str) -> np.ndarray:
        return np.arange(64) + self.at

    def keys_of(self, at: np.ndarray) -> list[str]:
        return [f"s{i}" for i in at]

    patients_of = keys_of


def test_a_million_samples_take_seconds() -> None:
    data = Many(1_000_000)
    began = time.process_time()
    found = [*across(data, data.contents, data.split_codes)]  # type: ignore[arg-type]
    assert time.process_time() - began < 20
    expected = sum(data.split_codes[:50] != data.split_codes[-50:])
    assert len(found) == expected > 0
    assert len(unique_codes(data.contents, np.arange(1000))) == 1000


def test_codes_hold_size_and_crc() -> None:
    index = np.array([(5, 7), (5, 8), (6, 7), (2**40, 7)], [("size", "<u8"), ("crc32", "<u4")])
    codes = codes_of(index)
    assert len(set(codes.tolist())) == 4
    assert codes[0] == (5 << 32) + 7
    assert codes[3] >> np.uint64(32) == 2**32 - 1


def test_lines_are_few(tmp_path: Path) -> None:
    made = split_evenly(sources(tmp_path / "in", count=30))
    for i in range(0, 30, 3):
        made.rows[i + 1]["field:image"] = made.rows[i]["field:image"]
    with Dataset.open(made.pack(tmp_path / "set")) as data:
        (line,) = twin_lines(data, data.split_codes, SPLITS)
    assert line.startswith("10 x the same 'image'")
    assert line.endswith("; ...")
    assert line.count(" = ") == 3


def test_far_data_are_compared_by_their_indexes_alone(tmp_path: Path) -> None:
    made = split_evenly(sources(tmp_path / "in", count=12))
    folder = made.pack(tmp_path / "far" / "set", PackOptions(shard_samples=5))
    with http_server(tmp_path / "far") as server:
        cache = Cache(tmp_path / "cache", 10**9)
        with Dataset.open(folder) as near, Dataset.open(f"{server.url}/set", cache=cache) as far:
            one, two = contents_of(near), contents_of(far)
            np.testing.assert_array_equal(one.code_M, two.code_M)
            assert two.fields == ("image", "patches")
            assert not [name for name in server.sent if name.endswith(".tar")]
            assert far.raw(0, ["image"]) == near.raw(0, ["image"]), "an index that came alone is no harm to its shard"
