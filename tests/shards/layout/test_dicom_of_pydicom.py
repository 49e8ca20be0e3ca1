"""The DICOM files that pydicom carries for its own tests: a picture is what pydicom's own functions make, or the film is refused."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

from shards.__main__ import main
from shards.layout.dicom import HEADER, NONE, Films
from shards.layout.drawn import Drawing

CARRIED = sorted(
    p for p in (Path(pydicom.__file__).parent / "data").rglob("*") if p.suffix in ("", ".dcm") and p.is_file()
)
TAKEN = 50
"""Of some 190 files at least so many are grey films of one frame, windowed or not."""
LAYOUT = """
about: films
licence: none
citation: none
tables: {films: {file: films.csv, columns: [film]}}
rows: [films]
sample: "{film}"
patient: "{film}"
fields: {image: {path: ["{film}.dcm"]}}
"""


def developed(path: Path, window: str, png: Path) -> tuple[np.ndarray, int | None] | None:
    """The picture and its bits; None of a film that is refused."""
    films = Films({}, argparse.Namespace(window=window, burned_in=False))
    try:
        films.develop(path, png, path.name)
    except Drawing:
        return None
    assert not [*films.settle([])]
    with Image.open(png) as image:
        return np.asarray(image), films.bits


def by_pydicom(data: pydicom.Dataset, windowed: bool, bits: int | None) -> np.ndarray:
    """float [H, W] in the units of the picture."""
    values_HW = apply_modality_lut(pixel_array(data), data).astype(float)
    top = 255.0 if bits is None else 2.0**bits - 1
    if windowed:
        values_HW = apply_voi_lut(values_HW if "VOILUTSequence" not in data else values_HW.astype(int), data).astype(
            float
        )
        low, high = limits(data)
        values_HW = (values_HW - low) / (high - low) * top
    return top - values_HW if data.PhotometricInterpretation == "MONOCHROME1" else values_HW


def limits(data: pydicom.Dataset) -> tuple[float, float]:
    """What pydicom's windows and tables give at their lowest and highest: the range of the stored values, rescaled."""
    if "VOILUTSequence" in data:
        return 0.0, 2.0 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1
    bits = int(data.BitsStored)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if data.PixelRepresentation else (0, 2**bits - 1)
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    return ends[0] * slope + intercept, ends[1] * slope + intercept


@pytest.mark.parametrize("window", [HEADER, NONE])
@pytest.mark.filterwarnings("ignore")
def test_pictures_are_those_of_pydicom(window: str, tmp_path: Path) -> None:
    taken = 0
    for path in CARRIED:
        if (found := developed(path, window, tmp_path / "film.png")) is None:
            continue
        data = pydicom.dcmread(path)
        windowed = window == HEADER and ("VOILUTSequence" in data or data.get("WindowWidth") is not None)
        off_HW = np.abs(by_pydicom(data, windowed, found[1]) - found[0])
        if "PixelPaddingValue" in data:
            off_HW = off_HW[pixel_array(data) != data.PixelPaddingValue]
        assert off_HW.max() <= 0.5 + 1e-6, (path.name, off_HW.max())
        taken += 1
    assert taken >= (TAKEN if window == HEADER else TAKEN // 2)


@pytest.mark.filterwarnings("ignore")
def test_all_of_them_at_once_are_refused_by_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for i, path in enumerate(CARRIED):
        (root / f"f{i}.dcm").write_bytes(path.read_bytes())
    (root / "films.csv").write_text("film\n" + "".join(f"f{i}\n" for i in range(len(CARRIED))))
    (tmp_path / "mine.yaml").write_text(LAYOUT)
    words = [
        "source",
        str(tmp_path / "mine.yaml"),
        "--root",
        str(root),
        "--out",
        str(tmp_path / "set"),
        "--jobs",
        "1",
        "--all",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(words) == 2
    said = capsys.readouterr().err
    for kind in (
        "a colour film (RGB)", "a colour film (PALETTE COLOR)", "several frames in one file", "an enhanced object", "no DICOM file",
        "a DICOM file without pixels", "a header that does not say what its pixels mean", "pixels that cannot be decoded",
    ):  # fmt: skip
        assert f"cannot be taken: {kind}" in said, kind
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.yaml", "root"]
