"""Images that are decoded once it is known how finely: sizes, what may be smaller, and that a smaller one is the same picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import dataset, film, jpeg

from shards.errors import DataError
from shards.format.codecs import Jpeg, decode
from shards.format.images import Reading
from shards.read.picture import LARGE, StoredImage
from shards.read.record import ShardRecord


def stored(data: bytes, exact: bool = False) -> StoredImage:
    return StoredImage(Jpeg(data), lambda: decode("jpg", data), exact)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (7, 1030), (17, 9), (64, 40), (1031, 513)])
def test_sides_are_divided_and_rounded_up(size, channels):
    image = stored(film(*size, channels))
    assert image.size == size
    for d in (1, 2, 4, 8):
        assert image.pixels(d).shape == (-(-size[0] // d), -(-size[1] // d), channels)


def test_a_grey_file_is_its_one_channel_to_the_last_bit():
    data = film(120, 88)
    np.testing.assert_array_equal(np.repeat(stored(data).pixels(), 3, -1), decode("jpg", data))
    data = film(120, 88, channels=3)
    np.testing.assert_array_equal(stored(data).pixels(), decode("jpg", data))


@pytest.mark.parametrize("d", [2, 4, 8])
def test_a_smaller_image_is_the_mean_of_its_pixels(d):
    data = film(256, 320)
    whole = stored(data).pixels()[..., 0].astype(float)
    means = whole.reshape(256 // d, d, 320 // d, d).mean((1, 3))
    assert np.abs(stored(data).pixels(d)[..., 0] - means).mean() < 1.0


def test_only_large_images_and_only_as_far_as_the_view_shrinks_them():
    large, small = stored(film(1024, LARGE // 1024)), stored(film(1024, LARGE // 1024 - 1))
    assert [large.divisor(s) for s in (0.5, 1, 1.99, 2, 3.9, 4, 7.9, 8, 50)] == [1, 1, 1, 2, 2, 4, 4, 8, 8]
    assert small.divisor(50) == 1
    assert stored(film(1024, LARGE // 1024), exact=True).divisor(50) == 1


class Record(ShardRecord):
    """Whose bytes can be given."""

    data: bytes

    def _bytes(self, table, name):
        return self.data


def opened(tmp_path: Path, data: bytes, reading: Reading | None = None) -> Record:
    found = dataset(tmp_path / "d", samples=1)
    found.exact_decode = False
    if reading is not None:
        found._readings["image"] = reading
    record = Record(found, 0, *found._place(0))
    record.data = data
    return record


def test_what_is_turned_or_spread_is_read_whole(tmp_path):
    data = film(1100, 1000)
    assert opened(tmp_path, data).stored_image("image").divisor(4) == 4
    for reading in (Reading("image", turned=True), Reading("image", bits=6)):
        record = opened(tmp_path, data, reading)
        image = record.stored_image("image")
        assert (image.divisor(4), image.size) == (1, (1100, 1000))
        np.testing.assert_array_equal(image.pixels(), record.read("image"))


def test_data_sets_are_read_exactly_unless_a_run_says_otherwise(tmp_path):
    data = dataset(tmp_path / "d", samples=2)
    assert data.exact_decode
    np.testing.assert_array_equal(data[1].stored_image("image").pixels(), decode("jpg", jpeg(1)))


@pytest.mark.parametrize("d", [1, 4])
def test_broken_images_are_named(tmp_path, d):
    record = opened(tmp_path, film(1100, 1000)[:50_000])
    with pytest.raises(DataError, match=r"sample 's0000', member image.*cannot be decoded as jpg"):
        record.stored_image("image").pixels(d)
    record = opened(tmp_path, b"\xff\xd8 and no more")
    with pytest.raises(DataError, match="cannot be decoded as jpg"):
        record.stored_image("image")
