"""Several slides of a patient: each a sample, or all of them one bag, whose patches know their slide."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from shards.check.lint import lint
from shards.read.dataset import Dataset
from tests.shards.test_bags import CASES, SLIDES, bag, source, write

SECOND, OTHER = f"{CASES[0]}-01Z-00-DX2.BB", f"{CASES[0]}-06Z-00-DX1.CC"


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """The first patient has two slides of the primary tumour and one of a metastasis, of 5, 2 and 3 patches."""
    write(tmp_path / "b", about={"patch_size": 256, "target_magnification": 20})
    write(tmp_path / "b", [SECOND], features=bag(20, rows=2), coords=np.array([[7, 7], [8, 8]]))
    write(tmp_path / "b", [OTHER], features=bag(30, rows=3), coords=np.array([[1, 1], [2, 2], [3, 3]]))
    return tmp_path / "b"


def test_one_bag_a_patient(tmp_path: Path, three: Path, capsys: pytest.CaptureFixture) -> None:
    with h5py.File(three / f"{SECOND}.h5", "r+") as f:  # with a batch's axis of one
        data = f["features"][:]
        del f["features"]
        f["features"] = data[None]
    status, out = source(tmp_path, three, "--slides=all", "--per=patient", sample="-01A")
    said = capsys.readouterr().out
    assert status == 0
    assert "8 patients joined (10 slides)" in said
    assert (
        f"1 samples pair a slide with the expression of another tumour of the patient: {CASES[0]} (slide 06, expression 01)"
        in said
    )
    with Dataset.open(out) as data:
        assert [r.key for r in data] == CASES
        first = data[0]
        np.testing.assert_allclose(first.read("patches"), np.concatenate([bag(0), bag(20, 2), bag(30, 3)]), atol=2e-3)
        assert first.read("coords")[5:7].tolist() == [[7, 7], [8, 8]]
        assert first.read("coords_slide").tolist() == [[0]] * 5 + [[1]] * 2 + [[2]] * 3
        assert data[1].read("coords_slide").tolist() == [[0]] * 5
        provenance = first.read("meta")["provenance"]
        assert provenance["patches"] == " + ".join(f"{s}.h5#features" for s in (SLIDES[0], SECOND, OTHER))
        assert provenance["coords_slide"] == " + ".join((SLIDES[0], SECOND, OTHER))
        assert data.info.fields["coords"].meaning == {"unit": "px"}
    assert not lint(out).problems


def test_one_sample_a_slide(tmp_path: Path, three: Path) -> None:
    status, out = source(tmp_path, three, "--slides=all")
    assert status == 0
    with Dataset.open(out) as data:
        assert [r.patient for r in data][:4] == [CASES[0]] * 3 + [CASES[1]]
        assert not data[0].has("coords_slide")
        assert len({s for r, s in zip(data, _splits(out), strict=True) if r.patient == CASES[0]}) == 1


def _splits(out: Path) -> list[str]:
    return [line.rsplit(",", 1)[1] for line in (out / "splits.csv").read_text().splitlines()[1:]]


def test_an_npz_and_tensors(tmp_path: Path) -> None:
    names = [*SLIDES, SECOND]
    np.savez(
        tmp_path / "b.npz", features=np.concatenate([bag(i) for i in range(9)]), offsets=np.arange(10) * 5, slide=names
    )
    (tmp_path / "t").mkdir()
    for i, name in enumerate(names):
        torch.save(torch.from_numpy(bag(i)), tmp_path / "t" / f"{name}.pt")
    for features in ("b.npz", "t"):
        status, out = source(tmp_path, tmp_path / features, "--slides=all", "--per=patient", "--overwrite")
        assert status == 0
        with Dataset.open(out) as data:
            np.testing.assert_allclose(data[0].read("patches"), np.concatenate([bag(0), bag(8)]), atol=2e-3)
            assert not data[0].has("coords")


def test_slides_of_two_forms_are_no_bag(tmp_path: Path, three: Path, capsys: pytest.CaptureFixture) -> None:
    with h5py.File(three / f"{SECOND}.h5", "r+") as f:
        del f["features"]
        f["features"] = bag(20, rows=2).astype(np.float64)
    status, out = source(tmp_path, three, "--slides=all", "--per=patient")
    assert status == 2
    assert "bags that are to be one differ in form: float32 (5, 6), float64 (2, 6)" in capsys.readouterr().err
    assert not out.exists()
