"""`import medpair`: files, Pillow's images and arrays give what a probe is fitted to, bit for bit; what is no image or bag is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

import medpair
from models.registry import get_method
from shards.errors import DataError
from shards.read.dataset import Dataset
from tests.trainer.untrained import untrained
from trainer.config import yaml_text
from trainer.config.recipe import find_recipe
from trainer.data import schema_of
from trainer.downstream.probes.features import extract
from trainer.embedding.encoder import Encoder
from trainer.errors import UserError
from trainer.export.export import export
from trainer.runtime import alone

SMALL = ("method.image.dim=16", "method.image.depth=1", "method.image.heads=2")
N = 7


@pytest.fixture(scope="module")
def pictured(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained("mae", cohort, tmp_path_factory.mktemp("runs") / "mae", *SMALL)


@pytest.fixture(scope="module")
def bagged(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained("gimp", cohort, tmp_path_factory.mktemp("runs") / "gimp", "method.dim=16", "method.heads=2")


@pytest.fixture(scope="module")
def encoder(pictured: Path) -> Encoder:
    return medpair.encoder(pictured, device="cpu")


@pytest.fixture(scope="module")
def of_bags(bagged: Path) -> Encoder:
    return medpair.encoder(bagged, device="cpu")


def probed(encoder: Encoder, data: Dataset) -> np.ndarray:
    """What the runner fits a linear probe to, of the first samples of the test split."""
    return extract(encoder.method, data, "test", alone("cpu"), batch=N).x_ND[:N]


def files_of(data: Dataset, field: str, ending: str, folder: Path) -> list[Path]:
    """The first test samples' members as files."""
    paths = []
    for i in data.subset("test").indices[:N].tolist():
        paths.append(folder / f"{i}.{ending}")
        paths[-1].write_bytes(data.raw(i, [field])[0])
    return paths


# ---------------------------------------------------------------------------------------------------------------- the same


def test_images_are_encoded_as_fine_tuning_does(encoder: Encoder, cohort: Path, tmp_path: Path) -> None:
    data = medpair.open(cohort)
    expected, paths = probed(encoder, data), files_of(data, "image", "png", tmp_path)
    assert encoder.reads == "images"
    for given in (
        paths,
        [str(p) for p in paths],
        [Image.open(p) for p in paths],
        [np.asarray(Image.open(p)) for p in paths],
    ):
        found = encoder.encode(given, batch=N)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(encoder.encode(data, split="test", batch=N)[:N], expected)
    np.testing.assert_allclose(encoder.encode((p for p in paths), batch=3), expected, rtol=1e-4, atol=1e-5)


def test_bags_are_encoded_as_fine_tuning_does(of_bags: Encoder, cohort: Path, tmp_path: Path) -> None:
    data = medpair.open(cohort)
    expected, paths = probed(of_bags, data), files_of(data, "patches", "npy", tmp_path)
    assert of_bags.reads == "bags"
    bags = [np.load(p) for p in paths]
    for i, bag in enumerate(bags):
        with h5py.File(tmp_path / f"{i}.h5", "w") as file:
            file["features"], file["coords"] = bag[None], np.zeros((1, len(bag), 2))
    trident = [tmp_path / f"{i}.h5" for i in range(N)]
    for given in (paths, bags, [b.astype(np.float32) for b in bags], trident, [f"{p}#features" for p in trident]):
        np.testing.assert_allclose(of_bags.encode(given, batch=N), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(of_bags.encode(bags[:1]), of_bags.encode(paths[:1]))


def test_the_lines_of_the_docs(pictured: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/api.md shows, line by line."""
    monkeypatch.chdir(tmp_path)
    for name, there in (("runs/mgi", pictured), ("data/mine", cohort)):
        Path(name).parent.mkdir()
        Path(name).symlink_to(there)
    Path("images").mkdir()
    files_of(Dataset.open(cohort), "image", "png", Path("images"))
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", (Path(__file__).parents[2] / "docs/api.md").read_text(), re.M | re.S)
    shapes = []
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), names)
        shapes.append(names["vectors"].shape)
    tested = len(Dataset.open(cohort).subset("test").indices)
    assert shapes == [(N, 16), (tested, 16)]
    assert len(names["names"]) == tested


def test_exports_are_encoded_as_their_run(pictured: Path, encoder: Encoder, tmp_path: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 255, (40, 50, 3), dtype=np.uint8) for i in range(2)]
    whole, _ = export(pictured, "safetensors", tmp_path / "whole")
    np.testing.assert_array_equal(medpair.encoder(whole, device="cpu").encode(images), encoder.encode(images))
    timm, _ = export(pictured, "timm", tmp_path / "timm")
    with pytest.raises(UserError, match=r"is an export for timm: load it there .* or an export --to safetensors"):
        medpair.encoder(timm)


def test_a_photograph_is_turned_by_its_exif_orientation(encoder: Encoder, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(tmp_path / "lying.png", exif=exif)
    given = [tmp_path / "lying.png", Image.open(tmp_path / "lying.png"), pixels]
    found = encoder.encode(given)
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[2])


def test_films_of_12_bits_and_transparent_images_are_read_as_told(encoder: Encoder, pictured: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 4096, (32, 32), dtype=np.uint16)
    with pytest.raises(DataError, match=r"images\[0\]: a 16-bit image.*medpair.encoder\(RUN, bits=12\)"):
        encoder.encode([grey])
    told = medpair.encoder(pictured, bits=12, opacity="black", device="cpu")
    eight = ((grey.astype(int) * 510 + 4095) // (2 * 4095)).astype(np.uint8)
    np.testing.assert_array_equal(told.encode([grey]), encoder.encode([eight]))
    half = np.dstack([np.full((8, 8, 3), 200, np.uint8), np.full((8, 8, 1), 51, np.uint8)])
    with pytest.raises(DataError, match=r"partly transparent.*opacity=\"black\""):
        encoder.encode([half])
    np.testing.assert_array_equal(told.encode([half]), encoder.encode([np.full((8, 8, 3), 40, np.uint8)]))


# --------------------------------------------------------------------------------------------------------------- bad input

GREY = np.zeros((8, 8), np.uint8)
NO_IMAGES: dict[str, tuple[Any, str]] = {
    "floats": (np.zeros((8, 8)), r"ndarray of float64 is no image.*uint16 with bits="),
    "channels first": (np.zeros((3, 8, 8), np.uint8), r"channels come first: array.transpose\(1, 2, 0\)"),
    "empty": (np.zeros((0, 8), np.uint8), r"shape \[0, 8\] is no image"),
    "16-bit colour": (np.zeros((8, 8, 3), np.uint16), r"16 bits a channel in colour"),
    "text": ("none.png", r"none.png: no such file"),
    "a number": (3, r"a int is no image"),
    "nothing": (None, r"a NoneType is no image"),
    "cmyk": (Image.new("CMYK", (8, 8)), r"mode CMYK.*image.convert\('RGB'\)"),
    "no field": ({}, r"a mapping without any field. Fix: give image, or leave it out"),
    "fields": ({"report": GREY}, r"report: not read by this encoder.*give image"),
}  # fmt: skip


def test_images_of_the_wrong_kind_are_refused_all_at_once(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "scan.tif").write_bytes(b"II*\0")
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    for given, said in NO_IMAGES.values():
        with pytest.raises(DataError, match=said):
            encoder.encode([GREY, given])
    files = [tmp_path / "scan.tif", tmp_path / "torn.jpg"]
    with pytest.raises(DataError) as found:
        encoder.encode([GREY, *(g for g, _ in NO_IMAGES.values()), *files], batch=2)
    assert len(found.value.problems) == len(NO_IMAGES) + 2
    said = [str(p) for p in found.value.problems[-2:]]
    assert re.search(r"scan.tif: a '.tif' file is not read as an image \(those are .jpg, .jpeg, .png\)", said[0])
    assert re.search(r"torn.jpg: cannot be decoded as jpg.*save the image again", said[1])


def test_bags_of_the_wrong_kind_are_refused_all_at_once(of_bags: Encoder, tmp_path: Path) -> None:
    width = of_bags.method.schema.need("patches").width
    holes = np.ones((5, width), np.float32)
    holes[3, 1] = np.nan
    np.savez(tmp_path / "two.npz", a=holes, b=holes)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["features"] = np.ones((5, width), np.float32)
        file["features"].attrs["extractor"] = "another_encoder"
    bad: list[tuple[Any, str]] = [
        (holes, r"1 of 5 patches hold NaN or infinity \(the first is row 3\).*numpy.isfinite\(bag\)"),
        (np.ones((5, width + 1)), rf"shape \[5, {width + 1}\]; the encoder was trained on bags \[patches, {width}\]"),
        (np.ones(width), rf"shape \[{width}\]"), (np.ones((0, width)), "a bag without a patch"), (["a"], "is no bag"),
        (tmp_path / "two.npz", r"holds a, b, and none of them is called 'features'.*FILE.npz#NAME"),
        (tmp_path / "none.h5", "no such file"), (tmp_path / "other.h5", "encoder is '.*' in the run and 'another_encoder' in"),
    ]  # fmt: skip
    for given, said in bad:
        with pytest.raises(DataError, match=said):
            of_bags.encode([given])
    with pytest.raises(DataError, match="8 problems"):
        of_bags.encode([given for given, _ in bad])


def test_what_is_no_list_no_run_and_no_split_is_refused(
    encoder: Encoder, of_bags: Encoder, pictured: Path, cohort: Path, tmp_path: Path
) -> None:
    def refused(call: Callable[[], object], said: str) -> None:
        with pytest.raises(UserError, match=said):
            call()

    for one in ("a.png", tmp_path / "a.png", GREY, Image.new("L", (8, 8)), {"image": GREY}, 3):
        refused(lambda one=one: encoder.encode(one), r"give a list, encode\(\[...\]\)")
    refused(lambda: encoder.encode(tmp_path), r"is a folder: give encode\(medpair.open\(DIR\)\)")
    refused(lambda: encoder.encode([]), "no images were given")
    refused(lambda: encoder.encode([GREY], split="test"), "leave it out here")
    refused(lambda: encoder.encode([GREY], batch=0), "batch=0: at least 1")
    refused(lambda: medpair.encoder(cohort), "is a data set, and no run: give it to medpair.open")
    refused(lambda: medpair.encoder(tmp_path / "none"), "no such folder")
    refused(lambda: medpair.encoder(tmp_path), "is no run of pre-training")
    refused(lambda: medpair.encoder(pictured, device="cuda:99"), "torch has no such device here")
    with pytest.raises(DataError, match=r"dataset.json"):
        medpair.open(tmp_path)
    assert encoder.encode(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 16), "an array of several is several"


def test_a_system_that_needs_genes_takes_data_sets_alone(cohort: Path) -> None:
    data, cls = medpair.open(cohort), get_method("porpoise")
    options = yaml_text.read(find_recipe("porpoise", "demo", False))["method"]
    needy = Encoder(cls(cls.Options.parse(options), schema_of(data)).eval(), device="cpu")
    assert needy.reads == "data sets"
    with pytest.raises(
        UserError, match=r"reads patches, rna together: pack them and give encode\(medpair.open\(DIR\)\)"
    ):
        needy.encode([np.ones((3, 4))])
    assert len(needy.encode(data, split="test")) == len(data.subset("test"))


# --------------------------------------------------------------------------------------------------------------- progress


def test_the_bar_is_for_terminals_alone(
    encoder: Encoder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.encode([GREY])
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    encoder.encode([GREY] * 3, batch=2)
    assert "3/3" in capsys.readouterr().err
    encoder.encode([GREY], progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_door_is_cheap_to_enter_and_leads_down_alone() -> None:
    code = "import sys, medpair; assert not {'torch', 'pyarrow', 'deepspeed', 'launch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(medpair.__file__).parent, check=True)
    assert medpair.__all__ == ["encoder", "open"]
