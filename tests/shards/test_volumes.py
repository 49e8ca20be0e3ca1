"""Slices of NIfTI volumes: orientation by the affine, brightness, masks, the manifest's column `slices`, and what is refused by name."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from manifests import snapshot

from shards.__main__ import main
from shards.check.lint import lint
from shards.pack import volumes
from shards.read.dataset import Dataset

SHAPE = (6, 8, 5)  # left to right, back to front, feet to head


def head_scan(seed: int = 0) -> np.ndarray:
    """float32 in RAS+: a gradient, brightest at the front (column 7), with one voxel at the right, front and top."""
    rng = np.random.default_rng(seed)
    x_XYZ = np.broadcast_to(np.arange(1, 9, dtype=np.float32)[None, :, None], SHAPE) * 100 + rng.random(SHAPE).astype(
        np.float32
    )
    x_XYZ[0] = 0
    return x_XYZ


def tumour() -> np.ndarray:
    mask_XYZ = np.zeros(SHAPE, np.uint8)
    mask_XYZ[4, 6, 3] = 2
    mask_XYZ[1, 0, 0] = 1
    return mask_XYZ


def save(path: Path, ras_XYZ: np.ndarray, axes: str = "RAS", mm: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Path:
    """The volume with its axes stored in another order or the other way round, as scanners do."""
    image = nibabel.Nifti1Image(ras_XYZ, np.diag([*mm, 1.0]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )
    nibabel.save(image.as_reoriented(turn), path)
    return path


def pack(folder: Path, rows: list[dict[str, str]], *more: str, out: str = "set") -> int:
    columns = list(dict.fromkeys(["sample", "patient", *(c for r in rows for c in r)]))
    with open(folder / "m.csv", "w", newline="") as f:
        full = [{"sample": f"s{i}", "patient": f"p{i}", **r} for i, r in enumerate(rows)]
        csv.writer(f).writerows([columns, *([r.get(c, "") for c in columns] for r in full)])
    return main(
        ["pack", str(folder / "m.csv"), "--out", str(folder / out), "--name", "set", "--split-fractions", "1", *more]
    )


def read(folder: Path, field: str, out: str = "set") -> dict[str, np.ndarray]:
    with Dataset.open(folder / out) as data:
        return {r.key: np.asarray(r.read(field))[..., 0] for r in data}


LINE = {"field:image": "a.nii.gz", "field:mask": "m.nii.gz", "slices": "axial"}


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSR", "ILA"])
def test_a_volume_becomes_the_same_slices_however_it_is_stored(tmp_path: Path, axes: str) -> None:
    save(tmp_path / "a.nii.gz", head_scan(), axes)
    save(tmp_path / "m.nii.gz", tumour(), axes)
    assert pack(tmp_path, [LINE | {"label:grade": "high", "text:report": "A mass."}]) == 0
    images, masks = read(tmp_path, "image"), read(tmp_path, "mask")
    assert list(images) == [f"s0-z00{i}" for i in range(5)]
    slice_ = images["s0-z003"]
    assert slice_.shape == (8, 6)
    assert slice_[0, 0] > 220, "the front is above"
    assert slice_[7, 0] < 40
    assert (slice_[:, 5] == 0).all(), "the patient's left is on the right, and nothing stays black"
    assert masks["s0-z003"][1, 1] == 2, "one from the front, one from the right"
    assert masks["s0-z003"].sum() == 2
    assert masks["s0-z000"][7, 4] == 1
    with Dataset.open(tmp_path / "set") as data:
        assert data.info.fields["image"].meaning["slices"] == "axial"
        assert data.info.fields["image"].meaning["window"] == "0.5 to 99.5 % of each volume"
        assert {(r.patient, r.read("report")) for r in data} == {("p0", "A mass.")}
    assert not lint(tmp_path / "set").problems


def test_other_axes_single_slices_and_8_bits_as_stored(tmp_path: Path) -> None:
    plain = (np.arange(np.prod(SHAPE)) % 251).reshape(SHAPE).astype(np.uint8)
    save(tmp_path / "a.nii", plain, "LPS")
    rows = [{"field:image": "a.nii", "slices": "coronal"}, {"field:image": "a.nii#coronal[2]"}]
    assert pack(tmp_path, rows) == 0
    images = read(tmp_path, "image")
    assert len(images) == 8 + 1
    assert np.array_equal(images["s0-y002"], plain[::-1, 2, ::-1].T)
    assert np.array_equal(images["s1"], images["s0-y002"])
    assert pack(tmp_path, [{"field:image": "a.nii", "slices": "sagittal"}], out="side") == 0
    assert np.array_equal(read(tmp_path, "image", "side")["s0-x004"], plain[4, :, ::-1].T)


def test_a_ct_is_refused_until_its_window_is_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its 0 is water: it would be black among tissue, and percentiles of each volume would take its unit away."""
    hounsfield = np.full(SHAPE, 40, np.int16)
    hounsfield[0], hounsfield[1, ::2] = -1000, 0
    save(tmp_path / "a.nii", hounsfield)
    looks: list[object] = []
    monkeypatch.setattr(volumes, "_turned", lambda head, of=volumes._turned: (looks.append(head), of(head))[1])
    assert pack(tmp_path, [{"field:image": "a.nii", "slices": "axial"}]) == 2
    assert len(looks) == 1, "once, not for each slice"
    assert "is a CT by its values (from -1000, air near -1000)" in capsys.readouterr().err
    window = np.round(np.clip((hounsfield + 160.0) / 400, 0, 1) * 255).astype(np.uint8)
    save(tmp_path / "a.nii", window)
    assert pack(tmp_path, [{"field:image": "a.nii", "slices": "axial"}]) == 0
    assert sorted(np.unique(read(tmp_path, "image")["s0-z000"])) == [0, 102, 128]


def test_8_bits_with_a_slope_are_not_as_stored(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image((np.arange(np.prod(SHAPE)) % 251).reshape(SHAPE).astype(np.uint8), np.eye(4))
    image.header.set_slope_inter(2, 1)
    nibabel.save(image, tmp_path / "a.nii")
    assert pack(tmp_path, [{"field:image": "a.nii", "slices": "axial"}]) == 0
    with Dataset.open(tmp_path / "set") as data:
        assert data.info.fields["image"].meaning["window"] == "0.5 to 99.5 % of each volume"


def test_slices_in_two_processes_and_smaller(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", np.kron(head_scan(), np.ones((4, 4, 4), np.float32)))
    save(tmp_path / "m.nii.gz", np.kron(tumour(), np.ones((4, 4, 4), np.uint8)))
    for n in ("1", "2"):
        assert pack(tmp_path, [LINE], "--jobs", n, "--image-side", "12", out=n) == 0
    assert snapshot(tmp_path / "1") == snapshot(tmp_path / "2")
    assert {i.shape for i in read(tmp_path, "image", "1").values()} == {(16, 12)}
    assert read(tmp_path, "mask", "1")["s0-z012"].max() == 2


def broken(tmp_path: Path, kind: str) -> None:
    scan = head_scan()
    if kind == "4-D":
        nibabel.save(nibabel.Nifti1Image(np.stack([scan, scan], -1), np.eye(4)), tmp_path / "a.nii.gz")
    elif kind == "no affine":
        image = nibabel.Nifti1Image(scan, None)
        image.header.set_sform(None, 0)
        image.header.set_qform(None, 0)
        nibabel.save(image, tmp_path / "a.nii.gz")
    elif kind == "shape":
        save(tmp_path / "m.nii.gz", tumour()[:, :-1])
    elif kind == "place":
        save(tmp_path / "m.nii.gz", tumour(), mm=(2.0, 2.0, 2.0))
    elif kind == "flat":
        for name, values in (("a", scan), ("m", tumour())):
            save(tmp_path / f"{name}.nii.gz", values, mm=(1.0, 3.0, 1.0))
    elif kind == "half":
        (tmp_path / "a.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:300])
    elif kind == "gone":
        (tmp_path / "a.nii.gz").unlink()
    elif kind in ("colour", "complex"):
        form = np.dtype([(c, "u1") for c in "RGB"]) if kind == "colour" else np.complex64
        nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, form), np.eye(4)), tmp_path / "a.nii.gz")
    elif kind == "two affines":
        image = nibabel.Nifti1Image(scan, np.eye(4))
        image.set_sform(np.eye(4), 1)
        image.set_qform(np.diag([-1.0, 1, 1, 1]), 1)
        nibabel.save(image, tmp_path / "a.nii.gz")
    elif kind == "nan":
        scan[2, 2, 2] = np.nan
        save(tmp_path / "a.nii.gz", scan)
    else:
        save(tmp_path / "m.nii.gz", tumour() * np.float32(0.5))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("4-D", "holds 6 x 8 x 5 x 2 values: one volume of three axes"), ("no affine", "has no affine"),
        ("shape", "a mask of 6 x 7 x 5 voxels on an image of 6 x 8 x 5"), ("place", "lies elsewhere than its image"),
        ("flat", "axial pixels of 1 x 3 mm are not square"), ("half", "cannot be read as NIfTI"), ("gone", "no such file"),
        ("nan", "1 voxels are NaN or infinite"), ("fractions", "not whole numbers from 0 to 255"),
        ("colour", "holds voxels of the form [('R', 'u1')"), ("complex", "holds voxels of the form complex64, no plain"),
        ("two affines", "has two affines (sform and qform) that turn it differently"),
    ],
)  # fmt: skip
def test_what_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, said: str) -> None:
    save(tmp_path / "a.nii.gz", head_scan())
    save(tmp_path / "m.nii.gz", tumour())
    broken(tmp_path, kind)
    assert pack(tmp_path, [LINE]) == 2
    assert said in capsys.readouterr().err
    assert not [p for p in tmp_path.iterdir() if "set" in p.name]


def test_sides_of_pixels_are_those_of_the_affine_and_a_moved_qform_is_none(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(head_scan(), np.eye(4))
    image.set_sform(np.eye(4), 2)
    image.set_qform(np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 4, 1)
    image.header["pixdim"][1:4] = 1, 3, 1
    nibabel.save(image, tmp_path / "a.nii.gz")
    save(tmp_path / "m.nii.gz", tumour())
    assert pack(tmp_path, [LINE]) == 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"field:image": "a.nii.gz"}, "is a volume, and a sample takes a slice"),
        ({"field:image": "a.nii.gz", "slices": "top"}, "slices 'top'"),
        ({"field:image": "a.nii.gz#axial[5]"}, "has 5 axial slices, none has the number 5"),
        ({"field:image": "a.nii.gz#above[1]"}, "names no slice"),
        ({"text:report": "No film.", "slices": "axial"}, "without a NIfTI volume"),
    ],
)
def test_cells_that_ask_for_nothing_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: dict[str, str], said: str
) -> None:
    save(tmp_path / "a.nii.gz", head_scan())
    assert pack(tmp_path, [row]) == 2
    assert said in capsys.readouterr().err


def test_without_nibabel_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a.nii.gz", head_scan())
    monkeypatch.setitem(sys.modules, "nibabel", None)
    assert pack(tmp_path, [LINE]) == 2
    assert "pip install 'medpair[nifti]'" in capsys.readouterr().err
