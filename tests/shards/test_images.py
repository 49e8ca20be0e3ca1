"""Images and masks in the containers that people have: each is read as what it means, or refused by name when packed."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from manifests import tar_of
from PIL import Image

from shards.check.lint import lint
from shards.errors import DataError
from shards.format.codecs import decode
from shards.format.image_tally import ImageTally
from shards.format.images import Reading, eight_bit, read_image, reading_of
from shards.format.info import load_info, save_info
from shards.format.meaning import restate
from shards.format.orientation import orientation, upright
from shards.format.png import missing_bytes
from shards.pack.adopt import adopt
from shards.pack.options import PackOptions
from shards.pack.pack import pack
from shards.read.canvas import Block, Canvas
from shards.read.dataset import Dataset

RNG = np.random.default_rng(7)
H, W = 24, 32
SQUARE = np.zeros((H, W), np.uint8)
SQUARE[4:10, 6:16] = 255


def encoded(picture: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def exif(number: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = number
    return found


def noise(seed: int = 0, channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (H, W, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


class Folder:
    """Files and a manifest of `image` and, if any, `mask`."""

    def __init__(self, path: Path):
        self.path, self.rows = path, [("sample", "patient", "split", "field:image", "field:mask")]
        path.mkdir(parents=True, exist_ok=True)

    def add(self, image: bytes, mask: bytes | None = None, ext: str = "png", mask_ext: str = "png") -> Folder:
        n = len(self.rows) - 1
        (self.path / f"i{n}.{ext}").write_bytes(image)
        if mask is not None:
            (self.path / f"m{n}.{mask_ext}").write_bytes(mask)
        split = ("train", "train", "val", "test")[n % 4]
        self.rows.append((f"s{n}", f"p{n}", split, f"i{n}.{ext}", "" if mask is None else f"m{n}.{mask_ext}"))
        return self

    def pack(self, name: str = "out", **options: object) -> tuple[Dataset, str]:
        (self.path / "m.csv").write_text("".join(",".join(r) + "\n" for r in self.rows))
        _, notes = pack(self.path / "m.csv", self.path / name, PackOptions(**options))  # type: ignore[arg-type]
        return Dataset.open(self.path / name), "\n".join(notes)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "in")


def masks(folder: Folder, *made: bytes, ext: str = "png") -> Folder:
    for i, mask in enumerate(made):
        folder.add(encoded(noise(i)), mask, mask_ext=ext)
    return folder


def without(data: Dataset, *keys: str) -> Path:
    """The data set as a version wrote it that did not know these words of its fields' meanings."""
    info = load_info(data.path)
    fields = {
        n: f.model_copy(update={"meaning": {k: v for k, v in f.meaning.items() if k not in keys}})
        for n, f in info.fields.items()
    }
    save_info(data.path, info.model_copy(update={"fields": fields}))
    return data.path


# -------------------------------------------------------------------------------------------------------------------- bits


def film(top: int, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, top + 1, (H, W))
    pixels[0, 0], pixels[0, 1] = 0, top
    return pixels.astype(np.uint16)


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1000, 10), (4095, 12), (4000, 12), (16383, 14), (65535, 16)])
def test_the_bits_of_16_bit_films_are_those_of_all_of_them(folder, top, bits):
    dark = film(max(1, top // 5))
    data, said = folder.add(encoded(dark)).add(encoded(film(top))).add(encoded(film(top, 1))).pack()
    assert data.info.fields["image"].meaning == {"bits": str(bits)}
    assert f"16-bit greys of {bits} bits (the largest value of all is {top:,})" in said
    full = (1 << bits) - 1
    for i, stored in ((0, dark), (1, film(top))):
        pixels = data[i].read("image")
        assert pixels.dtype == np.uint8
        assert pixels.shape == data[i].shape("image") == (H, W, 1)
        np.testing.assert_array_equal(pixels[..., 0], np.floor(stored / full * 255 + 0.5))
    assert data[1].read("image").max() == round(255 * top / full)


def test_stated_bits_are_taken(folder):
    folder.add(encoded(film(900))).add(encoded(film(900, 1)))
    data, said = folder.pack(meanings={"image": {"bits": "12"}})
    assert data[0].read("image").max() == round(255 * 900 / 4095)
    assert "12 bits (as stated)" in said
    with pytest.raises(DataError, match=r"--meaning image\.bits=8: .* of the pixels are above 255"):
        folder.pack("other", meanings={"image": {"bits": "8"}})
    with pytest.raises(DataError, match=r"image\.bits is 'twelve'"):
        folder.pack("third", meanings={"image": {"bits": "twelve"}})


def test_a_marker_that_uses_more_bits_than_the_film_is_told(folder):
    pixels = np.tile(film(4095), (10, 10))
    pixels[3, 3] = 65535
    folder.add(encoded(pixels)).add(encoded(np.tile(film(4095, 1), (10, 10))))
    _, said = folder.pack()
    assert "16 bits leave the most dark" in said
    assert "state --meaning image.bits=12" in said
    data, said = folder.pack("other", meanings={"image": {"bits": "12"}})
    assert "1 pixels above 4,095" in said
    assert data[0].read("image")[3, 3, 0] == 255
    assert len(np.unique(data[0].read("image"))) > 200


def test_few_grey_levels_are_told(folder):
    offset = (32768 + film(500)).astype(np.uint16)  # values around the middle of 16 bits: little is left in 8
    _, said = folder.add(encoded(offset)).add(encoded(offset)).pack()
    assert re.search(r"of \d+ grey levels [23] are left in 8 bits \(values 32,768 to 33,268\)", said)
    _, said = Folder(folder.path / "dark").add(encoded(noise() // 64)).add(encoded(noise(1) // 64)).pack()
    assert "no pixel of 2 images is brighter than 3 of 255" in said
    assert "--meaning image.bits=2" in said


def test_a_data_set_of_16_bits_that_does_not_say_how_many_are_used_is_not_read(folder):
    data, _ = folder.add(encoded(film(4095))).add(encoded(film(4095, 1))).pack()
    before = data[0].read("image")
    path = without(data, "bits")
    with pytest.raises(DataError, match=r"how many of its bits are used.*Fix: run `python -m shards index`"):
        Dataset.open(path)[0].read("image")
    problems = [str(p) for p in lint(path).problems]
    assert len(problems) == 1
    assert "2 images have 16 bits, the largest value is 4,095" in problems[0]
    assert "image.bits=12" in problems[0]
    notes: list[str] = []
    adopt(path, notes=notes)
    assert not lint(path).problems
    np.testing.assert_array_equal(Dataset.open(path)[0].read("image"), before)
    assert "12 bits" in notes[0]


def test_sixteen_bit_masks_are_numbers(folder):
    mask = np.where(SQUARE > 0, 700, 0).astype(np.uint16)
    data, _ = masks(folder, encoded(mask), encoded(mask)).pack()
    assert data[0].read("mask").dtype == np.uint16
    np.testing.assert_array_equal(data[0].read("mask")[..., 0], mask)
    assert data.info.fields["mask"].meaning == {"values": "0 700"}
    assert not lint(data.path).problems


# ----------------------------------------------------------------------------------------------------------------- opacity


@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette", "grey"])
def test_opacity_that_says_nothing_is_left_out(folder, mode):
    made, want = [], []
    for i in range(2):
        colour = Image.fromarray(noise(i))
        picture = {
            "RGBA": lambda c=colour: c.convert("RGBA"),
            "LA": lambda c=colour: c.convert("LA"),
            "palette": lambda c=colour: c.quantize(16),
            "grey": lambda c=colour: c.convert("L"),
        }[mode]()
        made.append(picture)
        want.append(np.asarray(picture.convert("L" if mode in ("LA", "grey") else "RGB")).reshape(H, W, -1))
    data, said = (
        folder.add(encoded(made[0]))
        .add(encoded(made[1], transparency=bytes([255] * 16)) if mode == "palette" else encoded(made[1]))
        .pack()
    )
    for i in range(2):
        assert data[i].shape("image") == want[i].shape
        np.testing.assert_array_equal(data[i].read("image"), want[i])
    assert ("channel of opacity that is full everywhere" in said) == (mode != "grey")
    assert data.info.fields["image"].meaning == {}
    assert not lint(data.path).problems


def see_through(seed: int = 0) -> Image.Image:
    picture = Image.fromarray(noise(seed)).convert("RGBA")
    picture.putalpha(Image.fromarray(np.where(SQUARE > 0, 102, 255).astype(np.uint8)))
    return picture


def test_transparent_pixels_are_refused_until_the_ground_is_said(folder):
    folder.add(encoded(see_through())).add(encoded(noise(1)))
    with pytest.raises(DataError, match=r"7\.8% of its pixels are partly transparent.*--meaning image\.opacity=black"):
        folder.pack()
    for ground, value in (("black", 0), ("white", 255)):
        data, said = folder.pack(ground, meanings={"image": {"opacity": ground}})
        want = np.where(SQUARE[..., None] > 0, np.floor((noise() * 102.0 + value * 153) / 255 + 0.5), noise())
        assert np.abs(data[0].read("image").astype(int) - want).max() <= 0
        assert f"1 images with transparent pixels, opacity: {ground}" in said
    data, _ = folder.pack("ignore", meanings={"image": {"opacity": "ignore"}})
    np.testing.assert_array_equal(data[0].read("image"), noise())
    path = without(data, "opacity")
    assert any("partly transparent" in str(p) for p in lint(path).problems)
    with pytest.raises(DataError, match="partly transparent"):
        Dataset.open(path)[0].read("image")
    with pytest.raises(DataError, match="opacity is 'grey'"):
        reading_of("image", {"opacity": "grey"})


def test_a_transparent_grey_or_palette_entry_counts_as_opacity():
    for data in (
        encoded(noise(channels=1), transparency=5),
        encoded(Image.fromarray(noise()).quantize(8), transparency=bytes([0] + [255] * 7)),
        encoded(noise(), transparency=tuple(noise()[0, 0].tolist())),
    ):
        with pytest.raises(DataError, match="partly transparent"):
            read_image("png", data, Reading())
    with pytest.raises(DataError, match="transparent grey"):
        read_image("png", encoded(film(4095), transparency=5), Reading(bits=12))


# ------------------------------------------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pixels_are_turned_as_pillow_turns_them(number, kind):
    from PIL import ImageOps

    ext, options = ("png", {}) if kind == "PNG" else ("jpg", {"quality": 100, "subsampling": 0})
    data = encoded(noise(), kind, exif=exif(number), **options)
    assert orientation(ext, data) == number
    with Image.open(io.BytesIO(data)) as image:
        want = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(upright(np.asarray(image), number), want)


def test_a_broken_orientation_is_none():
    good = encoded(noise(), "JPEG", exif=exif(6))
    at = good.index(b"Exif\0\0") + 6
    assert orientation("jpg", good) == 6
    assert orientation("jpg", good[:at] + b"\xff" * 20 + good[at + 20 :]) == 1
    assert orientation("jpg", encoded(noise(), "JPEG", exif=exif(77))) == 1
    assert orientation("jpg", b"Exif\0\0 nothing else") == 1


def stored_for(shown: np.ndarray, number: int) -> np.ndarray:
    """Pixels as a camera stores them so that `number` turns them into `shown`."""
    back = {6: 8, 8: 6}.get(number, number)
    return upright(shown, back)


@pytest.mark.parametrize("number", [3, 6])
def test_the_mask_of_a_turned_photograph_lies_on_it(folder, number):
    for i in range(2):
        shown = np.where(SQUARE[..., None] > 0, 220, noise(i) // 4).astype(np.uint8)
        photograph = encoded(stored_for(shown, number), "JPEG", quality=95, exif=exif(number))
        folder.add(photograph, encoded(SQUARE), ext="jpg")
    data, said = folder.pack()
    image, mask = data[0].read("image"), data[0].read("mask")[..., 0]
    assert image.shape == data[0].shape("image") == (H, W, 3)
    assert image[mask > 0].mean() > 200
    assert image[mask == 0].mean() < 60
    assert data.info.fields["image"].meaning == {"orientation": "exif"}
    assert "2 of 2 files carry an EXIF orientation (such as s0, s1), which is applied" in said
    assert not lint(data.path).problems
    assert not [w for w in lint(data.path).warnings if "EXIF" in str(w)]


def test_orientation_is_kept_as_asked(folder):
    photograph = noise()
    folder.add(encoded(photograph, exif=exif(6))).add(encoded(photograph))
    data, said = folder.pack(keep_orientation=True)
    np.testing.assert_array_equal(data[0].read("image"), photograph)
    assert data.info.fields["image"].meaning == {"orientation": "stored"}
    assert "pixels stay as stored, as asked" in said
    turned, _ = folder.pack("turned")
    np.testing.assert_array_equal(turned[0].read("image"), np.rot90(photograph, -1))
    np.testing.assert_array_equal(turned[1].read("image"), photograph)


def test_a_mask_of_the_size_before_turning_is_refused(folder):
    folder.add(encoded(noise(), exif=exif(6)), encoded(SQUARE)).add(encoded(noise(1)), encoded(SQUARE))
    with pytest.raises(DataError, match="'s0' 24 x 32 on 32 x 24"):
        folder.pack()
    data, _ = folder.pack("kept", keep_orientation=True)
    assert data[0].shape("mask")[:2] == data[0].shape("image")[:2]


def test_a_data_set_from_before_orientation_was_applied_is_told(folder):
    data, _ = (
        folder.add(encoded(noise(), "JPEG", exif=exif(3)), ext="jpg").add(encoded(noise(1), "JPEG"), ext="jpg").pack()
    )
    upright_ = data[0].read("image")
    path = without(data, "orientation")
    np.testing.assert_array_equal(Dataset.open(path)[0].read("image"), upright_[::-1, ::-1])
    report = lint(path)
    assert not report.problems
    assert "1 files carry an EXIF orientation (such as s0), and are read as stored" in str(report)
    adopt(path)
    np.testing.assert_array_equal(Dataset.open(path)[0].read("image"), upright_)
    assert "EXIF" not in str(lint(path))
    restate(path, {"image": {"orientation": "stored"}}, overwrite=True)
    assert "EXIF" not in str(lint(path))


def test_adopted_photographs_are_turned_too(tmp_path):
    tar_of(
        tmp_path / "a.tar",
        [
            ("a.image.jpg", encoded(noise(), "JPEG", quality=95, exif=exif(6))),
            ("b.image.jpg", encoded(noise(1), "JPEG", quality=95)),
            ("c.image.png", encoded(film(4095))),
        ],
    )
    with pytest.raises(DataError, match="differing dtypes"):
        adopt(tmp_path, patient_from_key=True)
    tar_of(
        tmp_path / "a.tar",
        [("a.image.jpg", encoded(noise(), "JPEG", exif=exif(6))), ("b.image.jpg", encoded(noise(1), "JPEG"))],
    )
    notes: list[str] = []
    bytes_before = (tmp_path / "a.tar").read_bytes()
    info = adopt(tmp_path, patient_from_key=True, notes=notes)
    assert info.fields["image"].meaning == {"orientation": "exif"}
    assert "1 of 2 files carry an EXIF orientation" in notes[0]
    assert Dataset.open(tmp_path)[0].read("image").shape == (W, H, 3)
    assert (tmp_path / "a.tar").read_bytes() == bytes_before
    assert adopt(tmp_path, patient_from_key=True, keep_orientation=True).fields["image"].meaning == {
        "orientation": "stored"
    }
    assert Dataset.open(tmp_path)[0].read("image").shape == (H, W, 3)


# -------------------------------------------------------------------------------------------------------------------- masks


def layered(colour: tuple[int, int, int] = (255, 255, 255), behind: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
    """RGBA: `colour` painted fully opaque on a transparent ground."""
    pixels = np.zeros((H, W, 4), np.uint8)
    pixels[..., :3] = behind
    pixels[SQUARE > 0] = (*colour, 255)
    return Image.fromarray(pixels)


def merged(mode: str) -> Image.Image:
    plane, full = Image.fromarray(SQUARE), Image.fromarray(np.full_like(SQUARE, 255))
    return Image.merge(mode, [*[plane] * (len(mode) - 1), full])


def one_palette() -> Image.Image:
    picture = Image.fromarray((SQUARE > 0).astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 220, 0])
    return picture


def red() -> np.ndarray:
    return np.dstack([SQUARE, np.zeros_like(SQUARE), np.zeros_like(SQUARE)])


MASKS = {
    "grey": (lambda: Image.fromarray(SQUARE), "0 255"),
    "ones": (lambda: Image.fromarray(SQUARE // 255), "0 1"),
    "black and white": (lambda: Image.fromarray(SQUARE).convert("1"), "0 255"),
    "LA": (lambda: merged("LA"), "0 255"),
    "RGBA": (lambda: merged("RGBA"), "0 255"),
    "RGB": (lambda: Image.fromarray(np.dstack([SQUARE] * 3)), "0 255"),
    "red": (lambda: Image.fromarray(red()), "0 255"),
    "orange": (
        lambda: Image.fromarray(np.where(SQUARE[..., None] > 0, np.uint8([250, 120, 10]), np.uint8(0))),
        "0 250",
    ),
    "palette": (one_palette, "0 1"),
    "painted on a layer": (lambda: layered((0, 200, 0)), "0 200"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_the_object_is_the_same_in_every_container(folder, kind):
    make, values = MASKS[kind]
    data, said = masks(folder, encoded(make()), encoded(make())).pack()
    for i in range(2):
        mask = data[i].read("mask")
        assert mask.shape == data[i].shape("mask") == (H, W, 1)
        np.testing.assert_array_equal(mask[..., 0] > 0, SQUARE > 0)
    assert data.info.fields["mask"].meaning == {"values": values}
    assert f"mask: values {values}" in said
    assert not lint(data.path).problems


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def narrow_png(values: np.ndarray, depth: int) -> bytes:
    """A grey PNG of 2 or 4 bits, which Pillow does not write; widths that fill whole bytes."""
    h, w = values.shape
    bits = (values[..., None] >> np.arange(depth)[::-1] & 1).reshape(h, -1)
    rows = np.packbits(bits.astype(np.uint8), axis=1)
    body = b"".join(b"\0" + r.tobytes() for r in rows)
    head = struct.pack(">IIBBBBB", w, h, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [2, 4])
def test_class_numbers_in_few_bits_are_the_numbers_in_the_file(folder, depth):
    values = RNG.integers(0, 1 << depth, (H, W))
    data = narrow_png(values, depth)
    np.testing.assert_array_equal(decode("png", data, indexed=True)[..., 0], values)
    np.testing.assert_array_equal(decode("png", data)[..., 0], values * (255 // ((1 << depth) - 1)))
    made, said = masks(folder, data, data).pack()
    np.testing.assert_array_equal(made[0].read("mask")[..., 0], values)
    assert "greys of 2 or 4 bits" in said
    report = lint(without(made, "values"))
    assert not report.problems
    assert "adapt mask_values of your tasks" in str(report)


def test_opacity_and_colours_of_a_mask_must_say_the_same(folder):
    masks(folder, encoded(layered(behind=(255, 255, 255))), encoded(merged("RGBA")))
    with pytest.raises(
        DataError, match=r"i?m0\.png: its opacity .alpha. and its colours do not say the same.*Fix: save it in one grey"
    ):
        folder.pack()
    half = np.asarray(merged("LA")).copy()
    half[..., 1] = 128
    with pytest.raises(DataError, match="do not say the same"):
        read_image("png", encoded(half), Reading("mask"))
    np.testing.assert_array_equal(read_image("png", encoded(half), Reading("mask", opacity="ignore"))[..., 0], SQUARE)


def test_a_mask_in_several_colours_is_refused_and_one_may_say_that_all_are_the_object(folder):
    two = red()
    two[15:20, 2:9] = (0, 255, 0)
    masks(folder, encoded(two), encoded(two))
    with pytest.raises(DataError, match=r"a mask in 2 colours \(#00ff00, #ff0000\).*--meaning mask\.object=any"):
        folder.pack()
    data, _ = folder.pack("any", meanings={"mask": {"object": "any"}})
    np.testing.assert_array_equal(data[0].read("mask")[..., 0], np.where(two.any(-1), 255, 0))
    assert data.info.fields["mask"].meaning == {"object": "any", "values": "0 255"}


def test_jpeg_masks_want_a_threshold(folder):
    lossy = encoded(SQUARE, "JPEG", quality=60)
    masks(folder, lossy, lossy, ext="jpg")
    with pytest.raises(DataError, match=r"2 of 2 masks are JPEG \(such as s0, s1\).*--meaning mask\.object=12[0-9]"):
        folder.pack()
    data, _ = folder.pack("out2", meanings={"mask": {"object": "128"}})
    np.testing.assert_array_equal(data[0].read("mask")[..., 0], SQUARE)
    with pytest.raises(DataError, match=r"mask\.object is '0'"):
        folder.pack("out3", meanings={"mask": {"object": "0"}})


def test_smoothed_masks_want_a_threshold_and_classes_do_not(folder):
    soft = np.asarray(
        Image.fromarray(np.kron(SQUARE, np.ones((4, 4), np.uint8))).rotate(20, Image.Resampling.BICUBIC).resize((W, H))
    )
    masks(folder, encoded(soft), encoded(soft))
    with pytest.raises(DataError, match=r"soft edges, not classes.*object=128"):
        folder.pack()
    data, _ = folder.pack("hard", meanings={"mask": {"object": "128"}})
    np.testing.assert_array_equal(data[0].read("mask")[..., 0] > 0, soft >= 128)
    organs = RNG.integers(0, 40, (H, W), dtype=np.uint8)
    data, _ = masks(Folder(folder.path / "organs"), encoded(organs), encoded(organs)).pack()
    assert data.info.fields["mask"].meaning == {"values": "0 to 39 (40 values)"}


def test_masks_of_two_makers_are_refused(folder):
    masks(folder, encoded(SQUARE), encoded(SQUARE // 255))
    with pytest.raises(
        DataError, match=r"the object is 1 in some masks \(such as 's1'\) and 255 in others \(such as 's0'\)"
    ):
        folder.pack()
    void = SQUARE // 255
    void = np.where(np.arange(H)[:, None] > 20, 255, void).astype(np.uint8)  # 255: not rated, beside class 1
    data, _ = masks(Folder(folder.path / "void"), encoded(void), encoded(SQUARE // 255)).pack()
    assert data.info.fields["mask"].meaning == {"values": "0 1 255"}


def test_masks_that_are_object_from_edge_to_edge_are_refused(folder):
    full = np.full((H, W), 255, np.uint8)
    masks(folder, encoded(full), encoded(full))
    with pytest.raises(DataError, match="every pixel of all 2 masks is 255"):
        folder.pack()
    _, said = masks(Folder(folder.path / "empty"), encoded(full * 0), encoded(full * 0)).pack()
    assert "none of 2 masks holds any object" in said


def test_shapes_that_counted_opacity_are_no_fault(folder):
    for i in range(2):
        folder.add(encoded(Image.fromarray(noise(i)).convert("RGBA")), encoded(merged("RGBA")))
    data, _ = folder.pack()
    info = load_info(data.path)
    assert info.fields["image"].shape == (H, W, 3)
    assert info.fields["mask"].shape == (H, W, 1)
    fields = {n: f.model_copy(update={"shape": (H, W, 4)} if f.kind == "image" else {}) for n, f in info.fields.items()}
    save_info(data.path, info.model_copy(update={"fields": fields}))
    assert not lint(data.path).problems
    other = {n: f.model_copy(update={"shape": (H, W, 1)} if n == "image" else {}) for n, f in info.fields.items()}
    save_info(data.path, info.model_copy(update={"fields": other}))
    assert len(lint(data.path).problems) == 1


def test_lint_tells_masks_whose_opacity_was_the_object(folder):
    data, _ = masks(folder, encoded(merged("LA")), encoded(merged("RGBA"))).pack()
    report = lint(without(data, "values"))
    assert not report.problems
    assert "2 masks have a channel of opacity, which earlier versions took for the object" in str(report)


def test_adopted_masks_are_looked_at_too(tmp_path):
    lossy = encoded(SQUARE, "JPEG", quality=60)
    tar_of(
        tmp_path / "a.tar",
        [(f"{k}.{n}", d) for k in "ab" for n, d in (("image.png", encoded(noise())), ("mask.jpg", lossy))],
    )
    with pytest.raises(DataError, match="2 of 2 masks are JPEG"):
        adopt(tmp_path, patient_from_key=True)
    assert not (tmp_path / "dataset.json").exists()
    info = adopt(tmp_path, patient_from_key=True, meanings={"mask": {"object": "128"}})
    assert info.fields["mask"].meaning == {"object": "128", "values": "0 255"}
    np.testing.assert_array_equal(Dataset.open(tmp_path)[1].read("mask")[..., 0], SQUARE)
    assert adopt(tmp_path, patient_from_key=True).fields["mask"].meaning == info.fields["mask"].meaning


# ------------------------------------------------------------------------------------------------------- forms that are not


def test_animations_and_cut_files_are_named(folder):
    frames = [Image.fromarray(noise(i)) for i in range(3)]
    folder.add(encoded(frames[0], save_all=True, append_images=frames[1:])).add(encoded(noise())[:-400])
    folder.add(encoded(noise(), "JPEG", quality=95)[:-300], ext="jpg").add(encoded(noise(), interlace=1))
    with pytest.raises(DataError) as caught:
        folder.pack()
    text = str(caught.value)
    assert "i0.png: cannot be decoded as png: an animation of 3 pictures; store one of them" in text
    assert "i1.png: cannot be decoded as png" in text
    assert "i2.jpg: cannot be decoded as jpg" in text
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("depth", [2, 4, 8])
def test_a_whole_png_lacks_nothing_and_one_that_ends_early_is_named(folder, depth, interlace):
    for size in ((24, 32), (5, 4), (1, 1), (9, 3)):
        values = RNG.integers(0, 1 << depth, size).astype(np.uint8)
        picture = (
            Image.fromarray(values * np.uint8(255 // ((1 << depth) - 1))).convert("P")
            if depth < 8
            else Image.fromarray(values)
        )
        for whole in (
            encoded(picture, bits=depth),
            encoded(Image.fromarray(noise())),
            encoded(film(4095)),
            encoded(see_through()),
        ):
            assert missing_bytes(whole) == 0
    raw = b"".join(b"\0" + bytes([200] * W) for _ in range(H))
    head = struct.pack(">IIBBBBB", W, H, 8, 0, 0, 0, interlace)
    lacking = 7 * (W + 1)

    def made(body: bytes) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")

    assert missing_bytes(made(raw[:-lacking])) >= lacking
    folder.add(made(raw[:-lacking])).add(encoded(noise(1)))
    with pytest.raises(
        DataError,
        match=r"i0\.png: cannot be decoded as png: " + ("" if interlace else r"\d+ bytes of its pixels are missing"),
    ):
        folder.pack()


def test_pixels_that_cannot_be_in_so_few_bytes_are_refused_before_decoding():
    data = bytearray(encoded(noise()))
    data[20:24] = struct.pack(">I", 2_000_000)
    with pytest.raises(DataError, match="2000000 x 32 pixels cannot be in"):
        decode("png", bytes(data))
    black = np.zeros((3000, 3000), np.uint8)  # as well compressed as it gets
    assert decode("png", encoded(black, compress_level=9)).shape == (3000, 3000, 1)


def test_16_bit_pictures_with_opacity_are_refused():
    head = struct.pack(">IIBBBBB", 1, 1, 16, 4, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(5))) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="16-bit PNG with opacity"):
        read_image("png", data, Reading(bits=16))


def test_reports_lose_their_byte_order_mark(tmp_path):
    folder = Folder(tmp_path / "in")
    folder.add(encoded(noise())).add(encoded(noise(1)))
    folder.rows = [(*r, t) for r, t in zip(folder.rows, ("field:report", "a.txt", "b.txt"), strict=True)]
    (folder.path / "a.txt").write_text("No nodule.", encoding="utf-8-sig")
    (folder.path / "b.txt").write_text("Nodule.", encoding="utf-8")
    data, _ = folder.pack()
    assert [data[i].read("report") for i in range(2)] == ["No nodule.", "Nodule."]


def test_eight_bit_is_even_and_keeps_its_ends():
    for bits in (1, 4, 8, 12, 16):
        top = (1 << bits) - 1
        ramp = np.arange(top + 1, dtype=np.uint16)[None, :, None]
        out = eight_bit(ramp, Reading(bits=bits))[0, :, 0].astype(int)
        assert out[0] == 0
        assert out[-1] == 255
        assert np.abs(out - ramp[0, :, 0] / top * 255).max() <= 0.5


def test_skimming_looks_only_where_it_must():
    tally = ImageTally()
    assert tally.add("a", "image", "jpg", encoded(noise(), "JPEG"), skim=True) is None
    assert tally.add("a", "image", "png", encoded(noise()), skim=True) is None
    assert tally.add("b", "other", "png", encoded(film(4095)), skim=True) is not None
    assert tally.settle().meanings == {"other": {"bits": "12"}}


def test_an_image_that_is_decoded_into_its_batch_is_the_same(folder):
    for i in range(3):
        folder.add(encoded(noise(i), "JPEG", quality=95, exif=exif(3 if i == 0 else 1)), ext="jpg")
    turned, _ = folder.pack()
    kept, _ = folder.pack("kept", keep_orientation=True)
    for data in (turned, kept):
        block, alone = Block(3), [data[i].read("image") for i in range(3)]
        for slot in range(3):
            record = data[slot]
            record.canvas = Canvas(block, slot)
            arrays = {"image": record.read("image")}
            block.put(slot, arrays, record.canvas)
        np.testing.assert_array_equal(block.full()["image"], np.stack(alone))
    assert not np.array_equal(turned[0].read("image"), kept[0].read("image"))
