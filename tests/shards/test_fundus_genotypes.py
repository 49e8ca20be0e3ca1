"""The fundus source: circles, brightness, PLINK and npz genotypes, pairing; and the real sample."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bed_reader import to_bed
from PIL import Image

from shards.__main__ import main
from shards.check.lint import lint
from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.sources._fundus_quality import Circle, crop, find_circle, otsu, tails
from shards.sources._genotypes import Genotypes, checked_codes, impute_mode, read_genotypes, thinned


def fundus(height: int, width: int, x: float, y: float, radius: float, level: float = 120, seed: int = 0) -> np.ndarray:
    """A textured disc, darker towards its rim, on a nearly black frame."""
    rng, (row, column) = np.random.default_rng(seed), np.mgrid[:height, :width]
    far = np.hypot(column - x, row - y) / radius
    disc = (level * (1 - 0.4 * far) + rng.normal(0, 8, (height, width))) * (far <= 1)
    grey = np.clip(disc + rng.integers(0, 6, (height, width)), 0, 255)
    return (grey[..., None] * np.array([1.0, 0.6, 0.3])).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "x", "y", "radius"),
    [(256, 382, 190, 128, 148), (256, 256, 128, 128, 110), (400, 600, 250, 210, 180), (1200, 1200, 580, 610, 500)],
)
def test_the_circle_is_found_whole_or_cut_by_the_frame(height, width, x, y, radius):
    found = find_circle(fundus(height, width, x, y, radius))
    assert found is not None
    tolerance = 0.02 * radius + 2
    assert abs(found.x - x) < tolerance
    assert abs(found.y - y) < tolerance
    assert abs(found.radius - radius) < tolerance


def test_what_is_no_retina_has_no_circle():
    rng = np.random.default_rng(0)
    assert find_circle(np.zeros((200, 300, 3), np.uint8)) is None, "black"
    assert find_circle(np.full((200, 300, 3), 250, np.uint8)) is None, "overexposed"
    square = np.zeros((200, 300, 3), np.uint8)
    square[30:170, 40:260] = 150
    assert find_circle(square) is None, "a rectangle"
    assert find_circle(fundus(256, 256, 60, 60, 20)) is None, "a spot"
    assert find_circle(rng.integers(0, 8, (200, 300, 3), dtype=np.uint8)) is None, "noise of the sensor"


def test_crop_is_a_square_around_the_circle():
    image = fundus(256, 382, 190, 128, 148)
    square = crop(image, Circle(190, 128, 148))
    assert square.shape == (306, 306, 3)
    np.testing.assert_array_equal(square[25 : 25 + 256], image[:, 190 - 153 : 190 + 153])
    assert not square[:25].any()
    assert not square[25 + 256 :].any()


def test_otsu_separates_two_levels():
    grey = np.concatenate([np.full(500, 10), np.full(700, 90)]).astype(np.uint8).reshape(30, 40)
    assert 10 <= otsu(grey) < 90


def test_brightness_tails_are_cut_in_each_eye():
    light = {f"{e}{i}": float(i) + (1000 if e == "R" else 0) for e in "LR" for i in range(20)}
    gone = tails(light, {n: n[0] for n in light}, 0.1)
    assert {n for n, why in gone.items() if why == "darkest"} == {"L0", "L1", "R0", "R1"}
    assert {n for n, why in gone.items() if why == "brightest"} == {"L18", "L19", "R18", "R19"}
    assert tails(light, {n: n[0] for n in light}, 0.005) == {}


# ---------------------------------------------------------------------------------------------------------- genotypes


def test_thinning_takes_every_nth_snp_of_each_autosome_by_position():
    chromosomes = np.array(["2", "1", "1", "X", "1", "2", "1", "chr1", "23"])
    positions = np.array([5, 40, 10, 1, 30, 2, 20, 50, 1])
    assert thinned(chromosomes, positions, 1).tolist() == [2, 6, 4, 1, 7, 5, 0]
    assert thinned(chromosomes, positions, 2).tolist() == [2, 4, 7, 5]


def test_mode_imputation_counts_what_it_does():
    codes = np.array([[0, 2, -1, 1], [0, -1, -1, 1], [-1, 2, -1, 1], [1, 0, -1, 1]], np.int8)
    done = impute_mode(Genotypes(codes, list("abcd"), ["s0", "s1", "s2", "s3"], []))
    assert done.snps == ["s0", "s1", "s3"]
    np.testing.assert_array_equal(done.codes, [[0, 2, 1], [0, 2, 1], [0, 2, 1], [1, 0, 1]])
    text = "\n".join(done.notes)
    assert "2 missing calls" in text
    assert "1 SNPs without a single call dropped" in text
    assert "1 SNPs never vary; they are kept" in text


def test_other_codes_are_refused_with_their_places():
    codes = np.array([[0, 1, 2], [3, -1, -127], [4, 0, 9]])
    with pytest.raises(DataError, match=r"2 genotypes are none of 0, 1, 2 or missing \(c at s0: 4, c at s2: 9\)"):
        checked_codes(codes, ["a", "b", "c"], ["s0", "s1", "s2"], Path("x.npz"))
    np.testing.assert_array_equal(
        checked_codes(codes[:2], ["a", "b"], ["s0", "s1", "s2"], Path("x")), [[0, 1, 2], [-1] * 3]
    )
    assert checked_codes(np.array([[np.nan, 1.0]]), ["a"], ["s", "t"], Path("x")).tolist() == [[-1, 1]]
    with pytest.raises(DataError, match="none of 0, 1, 2"):
        checked_codes(np.array([[0.5]]), ["a"], ["s"], Path("x"))


def plink(path: Path, codes: np.ndarray, people: list[str], chromosomes: list[str], ids: list[str]) -> Path:
    to_bed(
        path,
        np.where(codes < 0, np.nan, codes.astype(float)),
        properties={"iid": people, "sid": ids, "chromosome": chromosomes, "bp_position": list(range(len(ids)))},
        num_threads=1,
    )
    return path


def test_plink_and_npz_give_the_same(tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.integers(-1, 3, (7, 30)).astype(np.int8)
    people, ids = [f"p{i}" for i in range(7)], [f"rs{i}" for i in range(30)]
    chromosomes = ["1"] * 14 + ["2"] * 12 + ["X"] * 4
    bed = plink(tmp_path / "g.bed", codes, people, chromosomes, ids)
    np.savez(
        tmp_path / "g.npz",
        genotype=np.where(codes < 0, 3, codes), sample_id=people, rsid=ids, chrom=chromosomes, pos=np.arange(30),
    )  # fmt: skip
    a, b = read_genotypes(bed, 5), read_genotypes(tmp_path / "g.npz", 5)
    assert a.snps == b.snps == ["rs0", "rs5", "rs10", "rs14", "rs19", "rs24"]
    np.testing.assert_array_equal(a.codes, b.codes)
    np.testing.assert_array_equal(a.codes, codes[:, [0, 5, 10, 14, 19, 24]])
    assert a.people == people
    assert len(read_genotypes(bed, None).snps) == 2, "every 100th by default"
    assert len(read_genotypes(tmp_path / "g.npz", None).snps) == 26
    (tmp_path / "g.bim").unlink()
    with pytest.raises(DataError, match=r"no g\.bim"):
        read_genotypes(bed, 5)


def test_snps_without_a_name_of_their_own_get_their_place(tmp_path):
    np.savez(
        tmp_path / "g.npz",
        genotype=np.zeros((2, 5), np.int8), sample_id=["a", "b"], rsid=["---", "rs1", "rs1", "---", "rs2"],
        chrom=[1, 1, 1, 1, 1], pos=[10, 20, 30, 10, 50],
    )  # fmt: skip
    found = read_genotypes(tmp_path / "g.npz", 1)
    assert found.snps == ["1:10", "1:10#2", "1:20", "1:30", "rs2"]
    assert "4 SNPs without an id of their own" in found.notes[1]


# ------------------------------------------------------------------------------------------------------------- source


@pytest.fixture
def layout(tmp_path) -> dict[str, Path]:
    """Twelve patients with two eyes, one image black; genotypes for ten, scores for eight."""
    base, rng = tmp_path / "in", np.random.default_rng(0)
    (base / "img").mkdir(parents=True)
    with open(base / "images.csv", "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["patient", "eye", "image", "grade", "age"])
        for p in range(12):
            for eye in "LR":
                picture = fundus(96, 128, 64, 48, 44, 90 + 5 * p, seed=p)
                picture = np.zeros_like(picture) if (p, eye) == (11, "R") else picture
                Image.fromarray(picture).save(base / "img" / f"P{p}_{eye}.png")
                out.writerow([f"P{p}", eye, f"img/P{p}_{eye}.png", p % 3, 50 + p / 2])
    codes = rng.integers(-1, 3, (10, 20))
    plink(base / "g.bed", codes, [f"P{p}" for p in range(10)], ["1"] * 20, [f"rs{i}" for i in range(20)])
    with open(base / "pgs.csv", "w", newline="") as f:
        csv.writer(f).writerows([["iid", "height", "bmi"], *([f"P{p}", *rng.normal(size=2)] for p in range(8))])
    return {"images": base / "images.csv", "genotypes": base / "g.bed", "pgs": base / "pgs.csv", "out": tmp_path / "ds"}


def run(layout: dict[str, Path], *more: str) -> int:
    flags = [part for name, path in layout.items() for part in (f"--{name}", str(path))]
    return main(["source", "fundus_genotypes", *flags, *more])


def test_source_packs_a_clean_data_set(layout, capsys):
    assert run(layout, "--every", "2") == 0
    said = capsys.readouterr().out
    assert "10 of 20 SNPs kept" in said
    assert "1 x no circle found" in said
    found = lint(layout["out"])
    assert not found.problems
    data = Dataset.open(layout["out"])
    assert len(data) == 23
    fields = data.info.fields
    assert set(fields) == {"meta", "image", "snp", "pgs"}
    assert fields["snp"].shape == (10,)
    assert fields["snp"].dtype == "int8"
    assert data.info.labels["grade"].kind == "class"
    assert data.info.labels["age"].kind == "number"
    have = {r.patient: (r.has("snp"), r.has("pgs")) for r in (data[i] for i in range(len(data)))}
    assert have["P0"] == (True, True)
    assert have["P9"] == (True, False)
    assert have["P11"] == (False, False)
    image = next(r for r in (data[i] for i in range(len(data))) if r.key == "P0_L").read("image")
    assert image.shape[0] == image.shape[1]
    assert (layout["out"] / "unmatched.csv").read_text().count("no snp: the modality is missing") == 2


def test_wrong_input_is_refused(layout, tmp_path, capsys):
    assert run(layout, "--patient-column", "person") == 2
    assert "no column person" in capsys.readouterr().err
    assert run(layout, "--brightness-tails", "0.7") == 2
    (layout["images"].parent / "img" / "P3_L.png").unlink()
    assert run(layout) == 2
    assert "P3_L.png" in capsys.readouterr().err
    assert not (layout["out"] / "dataset.json").exists()


def test_pairing_by_table(layout, tmp_path, capsys):
    table = tmp_path / "pairs.csv"
    table.write_text("patient,a,b\n" + "".join(f"P{p},P0,P{9 - p}\n" for p in range(10)))
    assert (
        run(layout, "--pairing", str(table), "--pairing-column", "b", "--missing-calls", "keep", "--quality", "none")
        == 0
    )
    data = Dataset.open(layout["out"])
    of = {r.patient: r for r in (data[i] for i in range(len(data)))}
    codes = read_genotypes(layout["genotypes"], None).codes
    np.testing.assert_array_equal(of["P2"].read("snp"), codes[7])
    assert run({**layout, "out": tmp_path / "again"}, "--pairing", str(table), "--pairing-column", "c") == 2
    assert "no column 'c'" in capsys.readouterr().err


def saved_as(layout: dict[str, Path], form: Callable[[np.ndarray, Path], None]) -> None:
    """Every photograph saved again by `form`, under its name."""
    for path in (layout["images"].parent / "img").glob("*.png"):
        form(np.asarray(Image.open(path)), path)


def opaque(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])).save(path)


def sideways(pixels: np.ndarray, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels)).save(path, exif=exif)


@pytest.mark.parametrize("form", [opaque, sideways])
def test_opacity_and_orientation_change_no_photograph(layout, tmp_path, capsys, form):
    assert run({**layout, "out": tmp_path / "plain"}) == 0
    saved_as(layout, form)
    capsys.readouterr()
    assert run(layout) == 0
    plain, same = (Dataset.open(p) for p in (tmp_path / "plain", layout["out"]))
    assert [r.key for r in plain] == [r.key for r in same]
    for a, b in zip(plain, same, strict=True):
        np.testing.assert_array_equal(a.read("image"), b.read("image"))
    assert ("24 of 24 files carry an EXIF orientation" in capsys.readouterr().out) == (form is sideways)


def test_orientation_is_kept_as_asked(layout, tmp_path):
    saved_as(layout, sideways)
    assert run(layout, "--keep-orientation") == 0
    assert run({**layout, "out": tmp_path / "turned"}) == 0
    kept, turned = Dataset.open(layout["out"])[0], Dataset.open(tmp_path / "turned")[0]
    assert kept.key == turned.key
    assert (
        np.abs(np.rot90(kept.read("image"), -1).astype(float).mean((0, 1)) - turned.read("image").mean((0, 1))).max()
        < 5
    )


@pytest.mark.parametrize("quality", ["circle", "none"])
def test_photographs_of_16_bits_use_the_bits_of_all_of_them(layout, tmp_path, quality, capsys):
    def deep(pixels: np.ndarray, path: Path) -> None:
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 16).save(path)

    def grey(pixels: np.ndarray, path: Path) -> None:
        Image.fromarray(pixels[..., 0]).save(path)

    originals = {p: np.asarray(Image.open(p)) for p in (layout["images"].parent / "img").glob("*.png")}
    saved_as(layout, grey)
    assert run({**layout, "out": tmp_path / "plain"}, "--quality", quality) == 0
    for path, pixels in originals.items():
        deep(pixels, path)
    capsys.readouterr()
    assert run(layout, "--quality", quality) == 0
    said = capsys.readouterr().out
    assert said.count("16-bit greys of 12 bits") == 1
    plain, same = (Dataset.open(p) for p in (tmp_path / "plain", layout["out"]))
    assert len(plain) == len(same) > 20
    for a, b in zip(plain, same, strict=True):
        if a.read("image").shape == b.read("image").shape:
            assert np.abs(a.read("image").astype(int) - b.read("image")).mean() <= 1.5
    assert sum(a.read("image").shape == b.read("image").shape for a, b in zip(plain, same, strict=True)) > 15


def test_transparent_photographs_want_a_word(layout, capsys):
    def cut_out(pixels: np.ndarray, path: Path) -> None:
        Image.fromarray(np.dstack([pixels, np.where(pixels.max(-1) > 20, 255, 0).astype(np.uint8)])).save(path)

    saved_as(layout, cut_out)
    assert run(layout) == 2
    said = capsys.readouterr().err
    assert "partly transparent" in said
    assert "--meaning image.opacity=black" in said
    assert run(layout, "--meaning", "image.opacity=black") == 0


@pytest.mark.real
@pytest.mark.slow
def test_the_real_sample(real_data, tmp_path):
    base = real_data / "mrm_retina"
    layout = {
        "images": base / "labels.csv", "genotypes": base / "snps_hapmap.npz",
        "pairing": base / "pairing_synthetic.csv", "out": tmp_path / "retina",
    }  # fmt: skip
    assert run(layout, "--pairing-column", "hapmap_planted") == 0
    assert not lint(layout["out"]).problems
    data = Dataset.open(layout["out"])
    assert len(data) > 0.97 * 416
    assert data.info.fields["snp"].shape == (8723,)  # 9,088 less the 365 of chromosome 23
    codes = data[0].read("snp")
    assert set(np.unique(codes)) <= {0, 1, 2}
