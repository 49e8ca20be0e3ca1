"""`--image-side` and `--image-format`: sizes, codings, what stays as it was, masks and boxes that follow their image."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from manifests import snapshot
from PIL import Image

from shards.__main__ import main
from shards.check.lint import lint
from shards.pack.pictures import PictureOptions
from shards.read.dataset import Dataset

SIDE = 64


def scene(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """uint8 [H, W, C], smooth."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 226, (6, 6, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.asarray(coarse)[..., :channels]


def save(path: Path, pixels: np.ndarray, **more: object) -> bytes:
    Image.fromarray(np.squeeze(pixels)).save(path, **more)
    return path.read_bytes()


def pack(folder: Path, rows: list[dict[str, str]], *more: str, out: str = "set") -> int:
    columns = list(dict.fromkeys(["sample", "patient", *(c for r in rows for c in r)]))
    with open(folder / "m.csv", "w", newline="") as f:
        full = [{"sample": f"s{i}", "patient": f"p{i}", **r} for i, r in enumerate(rows)]
        csv.writer(f).writerows([columns, *([r.get(c, "") for c in columns] for r in full)])
    words = [
        "pack",
        str(folder / "m.csv"),
        "--out",
        str(folder / out),
        "--name",
        "set",
        "--split-fractions",
        "1",
        *more,
    ]
    return main(words)


def raw(folder: Path, sample: int, field: str, out: str = "set") -> bytes:
    with Dataset.open(folder / out) as data:
        return data.raw(sample, [field])[0]


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def meaning(folder: Path, field: str) -> dict[str, str]:
    with Dataset.open(folder / "set") as data:
        return data.info.fields[field].meaning


def test_larger_ones_become_smaller_and_others_are_kept_byte_for_byte(tmp_path: Path) -> None:
    colour = scene(300, 400)
    save(tmp_path / "a.jpg", colour, quality=92)
    save(tmp_path / "b.jpg", scene(500, 200, channels=1), quality=92)
    small = save(tmp_path / "c.jpg", scene(SIDE, 100))
    save(tmp_path / "d.png", scene(128, 200))
    rows = [{"field:image": n} for n in ("a.jpg", "b.jpg", "c.jpg", "d.png")]
    assert pack(tmp_path, rows, "--image-side", str(SIDE)) == 0
    found = [opened(raw(tmp_path, i, "image")) for i in range(4)]
    assert [(p.format, p.mode, p.size) for p in found] == [
        ("JPEG", "RGB", (85, 64)), ("JPEG", "L", (64, 160)), ("JPEG", "RGB", (100, 64)), ("PNG", "RGB", (100, 64))
    ]  # fmt: skip
    assert raw(tmp_path, 2, "image") == small
    assert found[0].layer[0][1:3] == (1, 1) and found[0].layer[1][1:3] == (1, 1), "no subsampling"  # type: ignore[attr-defined]  # noqa: PT018
    wanted = opened((tmp_path / "a.jpg").read_bytes()).resize((85, 64), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(found[0], float) - np.asarray(wanted, float)).mean() < 1.5
    said = meaning(tmp_path, "image")["scaled"]
    assert said == "shorter side at most 64, bicubic, JPEG quality 95 4:4:4 or PNG as it was"
    assert not lint(tmp_path / "set").problems


@pytest.mark.parametrize(("form", "format_"), [("jpeg", "JPEG"), ("png", "PNG")])
def test_another_coding_alone(tmp_path: Path, form: str, format_: str) -> None:
    jpg, png = save(tmp_path / "a.jpg", scene(70, 90)), save(tmp_path / "b.png", scene(70, 90, channels=1))
    assert pack(tmp_path, [{"field:image": "a.jpg"}, {"field:image": "b.png"}], "--image-format", form) == 0
    found = [raw(tmp_path, i, "image") for i in range(2)]
    assert [opened(d).format for d in found] == [format_] * 2
    assert (found[1] == png) if form == "png" else (found[0] == jpg)
    assert opened(found[1]).mode == "L"
    if form == "png":
        assert np.array_equal(np.asarray(opened(found[0])), np.asarray(opened(jpg))), "no pixel differs"
    assert meaning(tmp_path, "image")["scaled"].startswith("size as it was, ")


def test_films_of_16_bits_keep_their_scaling(tmp_path: Path) -> None:
    film = np.kron(np.random.default_rng(0).integers(0, 2, (40, 40)), np.ones((8, 8))) * 4095
    Image.fromarray(film.astype(np.uint16)).save(tmp_path / "a.png")
    assert pack(tmp_path, [{"field:image": "a.png"}], "--image-side", "100", "--image-format", "jpeg") == 0
    data = raw(tmp_path, 0, "image")
    assert data[24] == 16, "bits of the PNG"
    assert meaning(tmp_path, "image")["bits"] == "12", "the filter swings over, values do not"
    values = np.asarray(opened(data))
    assert (values.max(), values.min()) == (4095, 0)
    assert abs(values.mean() - film.mean()) < 40
    assert not lint(tmp_path / "set").problems


def test_masks_and_boxes_follow_their_image(tmp_path: Path) -> None:
    pixels = np.full((200, 300, 3), 40, np.uint8)
    pixels[50:150, 60:180] = 220
    mask = Image.fromarray((pixels[..., 0] > 100).astype(np.uint8) * 3, "P")
    mask.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 0, 200, 0])
    mask.save(tmp_path / "m.png")
    save(tmp_path / "a.jpg", pixels, quality=95)
    np.save(tmp_path / "xywh.npy", np.array([[60, 50, 120, 100]]))
    np.save(tmp_path / "corners.npy", np.array([[60, 50, 180, 150]]))
    row = {"field:image": "a.jpg", "field:mask": "m.png", "field:boxes": "xywh.npy", "field:boxes_2": "corners.npy"}
    stated = ["--meaning", "boxes.box=x y width height", "--meaning", "boxes_2.box=x0 y0 x1 y1"]
    assert pack(tmp_path, [row], "--image-side", "50", *stated) == 0
    with Dataset.open(tmp_path / "set") as data:
        image, small = np.asarray(data[0].read("image")), np.asarray(data[0].read("mask"))[..., 0]
        assert image.shape[:2] == small.shape == (50, 75)
        assert set(np.unique(small)) == {0, 3}
        assert ((image[..., 0] > 130) == (small == 3)).mean() > 0.98
        rows, columns = np.nonzero(small)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (15, 12, 45, 37)
        assert np.allclose(data[0].read("boxes"), [[15, 12.5, 30, 25]])
        assert np.allclose(data[0].read("boxes_2"), [[15, 12.5, 45, 37.5]])
    assert opened(raw(tmp_path, 0, "mask")).mode == "P", "classes stay classes"
    assert not lint(tmp_path / "set").problems


def test_boxes_without_a_word_on_their_form_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "a.jpg", scene(100, 100))
    np.save(tmp_path / "b.npy", np.array([[1, 2, 3, 4]]))
    assert pack(tmp_path, [{"field:image": "a.jpg", "field:boxes": "b.npy"}], "--image-side", "50") == 2
    assert "--meaning 'boxes.box=x y width height'" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_turned_photographs_are_written_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = scene(160, 240)
    save(tmp_path / "a.jpg", pixels, exif=exif, quality=95)
    Image.fromarray(np.ones((240, 160), np.uint8)).save(tmp_path / "m.png")
    assert (
        pack(
            tmp_path,
            [{"field:image": "a.jpg", "field:mask": "m.png"}],
            "--image-side",
            "80",
            "--meaning",
            "mask.object=any",
        )
        == 2
    )
    (tmp_path / "m.png").unlink()
    Image.fromarray(np.eye(240, 160, dtype=np.uint8)).save(tmp_path / "m.png")
    assert pack(tmp_path, [{"field:image": "a.jpg", "field:mask": "m.png"}], "--image-side", "80") == 0
    with Dataset.open(tmp_path / "set") as data:
        image = np.asarray(data[0].read("image"), float)
        assert image.shape[:2] == np.asarray(data[0].read("mask")).shape[:2] == (120, 80)
    wanted = Image.fromarray(np.rot90(pixels, -1)).resize((80, 120), Image.Resampling.BICUBIC)
    assert np.abs(image - np.asarray(wanted, float)).mean() < 2


def test_damage_is_found_in_what_is_made_smaller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = save(tmp_path / "a.jpg", scene(300, 300))
    (tmp_path / "a.jpg").write_bytes(data[:-40])
    assert pack(tmp_path, [{"field:image": "a.jpg"}], "--image-side", "50") == 2
    assert "field 'image'" in capsys.readouterr().err


def test_the_same_bytes_in_two_processes(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / f"{i}.jpg", scene(90 + 20 * i, 100, i))
    rows = [{"field:image": f"{i}.jpg"} for i in range(6)]
    for n in ("1", "2"):
        assert pack(tmp_path, rows, "--image-side", "64", "--image-format", "png", "--jobs", n, out=n) == 0
    assert snapshot(tmp_path / "1") == snapshot(tmp_path / "2")


def test_sizes() -> None:
    small = PictureOptions(512)
    assert small.size(2544, 3056) == (512, 615)
    assert small.size(512, 9000) == (512, 9000)
    assert small.size(100, 100) == (100, 100)
    assert PictureOptions().size(9000, 9000) == (9000, 9000)
