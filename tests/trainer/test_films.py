"""Large films in pre-training: what is decoded smaller, what stays to the last bit, and how runs of before go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.transforms.crops import Picture, centre_view, colours, picture_of, random_view
from models.transforms.image import fitted
from models.transforms.views import KINDS, Views
from shards.format.codecs import Jpeg, decode
from shards.read.picture import StoredImage
from tests.shards.builders import dataset, film
from trainer.build import resolve
from trainer.config.recipe import build_config
from trainer.config.schema import Config, by_todays_names, differences
from trainer.data import open_data
from trainer.errors import UserError
from trainer.pretrain import prepare
from trainer.state.run_folder import RunFolder, as_begun

SIZE = (1200, 900)


class Counted(StoredImage):
    """Which remembers by what its sides were divided."""

    def __init__(self, data: bytes, exact: bool):
        super().__init__(Jpeg(data), lambda: decode("jpg", data), exact)
        self.asked: list[tuple[float, int]] = []
        self.decoded: list[int] = []

    def divisor(self, shrink: float) -> int:
        self.asked.append((shrink, super().divisor(shrink)))
        return self.asked[-1][1]

    def part(self, divisor: int, box: tuple[int, int, int, int]) -> tuple[np.ndarray, int, int]:
        self.decoded.append(divisor)
        return super().part(divisor, box)


@pytest.fixture(scope="module")
def data() -> bytes:
    return film(*SIZE)


@pytest.mark.parametrize("channels", [1, 3])
def test_whole_films_give_the_views_that_three_equal_channels_gave(data, channels):
    array = colours(decode("jpg", data), grayscale=channels == 1)

    def both(view):
        return view(Picture(Counted(data, exact=True), channels)), view(array)

    for seed in range(3):
        np.testing.assert_array_equal(
            *both(lambda image, s=seed: random_view(image, 96, (0.2, 1.0), 0.5, np.random.default_rng(s)))
        )
    np.testing.assert_array_equal(*both(lambda image: centre_view(image, 64)))
    for kind in KINDS:
        drawn = Views(kind, 48, channels=channels, local=2 * bool(KINDS[kind].local))
        mine, theirs = both(lambda image, v=drawn: v.draw(image, np.random.default_rng(1)))
        for name in theirs:
            np.testing.assert_array_equal(mine[name], theirs[name])
    if channels == 3:
        for fit in ("crop", "stretch"):
            np.testing.assert_array_equal(*both(lambda image, f=fit: fitted(image, 96, f)))


def test_smaller_films_have_the_same_crop_and_nearly_the_same_pixels(data):
    for seed in range(20):
        pair = []
        for exact in (True, False):
            image, rng = Counted(data, exact), np.random.default_rng(seed)
            pair.append(random_view(Picture(image, 1), 96, (0.2, 1.0), 0.5, rng).astype(int))
            pair.append(rng.bit_generator.state)
        assert pair[1] == pair[3]
        assert image.decoded == [image.asked[-1][1]]
        shrink, d = image.asked[-1]
        assert d in (2, 4, 8)
        assert d <= shrink < 2 * d or d == 8
        off = np.abs(pair[0] - pair[2])
        assert off.mean() < 1
        assert off.max() <= 12


def test_a_crop_that_is_not_larger_than_its_view_is_cut_from_the_whole(data):
    image = Counted(data, exact=False)
    random_view(Picture(image, 1), 800, (0.2, 1.0), 0.0, np.random.default_rng(0))
    assert image.decoded == [1]


def test_views_of_one_film_are_cut_from_one_decoding(data):
    """Fine enough for the smallest crop that can be drawn."""
    for kind in KINDS:
        views = Views(kind, 48, local=4 * bool(KINDS[kind].local), local_size=32)
        for seed in range(4):
            image = Counted(data, exact=False)
            views.draw(Picture(image, 3), np.random.default_rng(seed))
            assert len(image.decoded) == 1, kind
            assert all(image.decoded[0] <= max(1, d) for _, d in image.asked), kind


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of small images."""
    return dataset(tmp_path_factory.mktemp("small"), samples=32, splits={"train": 0.75, "val": 0.25}).path


def test_small_images_are_never_decoded_smaller(small: Path):
    config, _ = build_config("mae", "demo", [f"data.path={small}"])
    opened = open_data(config)
    assert not opened.parts.exact_decode
    assert all(picture_of(opened.parts[i], "image", True).decoded(8)[1] == 1 for i in range(4))
    config, _ = build_config("mae", "demo", [f"data.path={small}", "data.exact_decode=true"])
    assert open_data(config).parts.exact_decode


# ---------------------------------------------------------------------------------------------------- runs that come back


def begun(folder: Path, *words: str, without_key: bool = False) -> Config:
    """A run's folder as it is after its start, and its command."""
    config, _ = build_config("mae", "demo", [f"out={folder}", *words])
    resolved = json.loads(json.dumps(resolve(as_begun(config))[2]))
    if without_key:
        del resolved["data"]["exact_decode"]
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"config": resolved}))
    return config


def claimed(config: Config) -> bool:
    """Goes on in the folder; whether exactly."""
    config = as_begun(config)
    folder, resolved = RunFolder(Path(config.out)), json.loads(json.dumps(resolve(config)[2]))
    try:
        folder.claim(config.resume, resolved)
    finally:
        folder.release()
    (folder.path / "config.json").write_text(json.dumps({"config": resolved}))
    return config.data.exact_decode


def test_a_new_run_decodes_smaller_and_goes_on_so(tmp_path: Path) -> None:
    config = begun(tmp_path)
    assert [claimed(config), claimed(config)] == [False, False]


def test_a_run_of_before_goes_on_exactly_however_often_it_comes_back(tmp_path: Path) -> None:
    config = begun(tmp_path, without_key=True)
    assert [claimed(config), claimed(config)] == [True, True]


def test_a_run_of_before_refuses_to_be_told_otherwise(tmp_path: Path) -> None:
    begun(tmp_path, without_key=True)
    config, _ = build_config("mae", "demo", [f"out={tmp_path}", "data.exact_decode=false"])
    with pytest.raises(UserError, match=r"data\.exact_decode: True -> False"):
        claimed(config)
    config, _ = build_config("mae", "demo", [f"out={tmp_path}", "data.exact_decode=true"])
    assert claimed(config)


def test_a_folder_of_something_else_is_refused_as_ever(tmp_path: Path) -> None:
    config, _ = build_config("mae", "demo", [f"out={tmp_path}"])
    (tmp_path / "config.json").write_text(json.dumps({"config": {"about": {}, "data": {"path": "x"}}}))
    with pytest.raises(UserError, match="holds a run with another configuration"):
        claimed(config)


def test_prepared_runs_take_it_from_their_folder(small: Path, tmp_path: Path) -> None:
    job = prepare(begun(tmp_path, f"data.path={small}", "global_batch=4", without_key=True), 1)
    assert job.config.data.exact_decode
    assert job.data.parts.exact_decode
    assert job.resolved["data"]["exact_decode"]


def test_stored_fine_tunes_of_before_are_what_they_are_today() -> None:
    old = {"data": {"path": "x", "split": "train"}}
    assert differences(by_todays_names(old), {"data": {"path": "x", "split": "train", "exact_decode": True}}) == []
    assert by_todays_names({"data": {"path": "x"}}) == {"data": {"path": "x"}}  # a fine-tune as a whole
