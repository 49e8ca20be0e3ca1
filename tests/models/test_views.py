"""Views: each operation against Pillow's or torchvision's, probabilities and shapes as the kinds say, all chance from the generator."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms import functional as tv

from models.contract import MethodError
from models.transforms import colour, views
from models.transforms.views import KINDS, ViewRule, Views, drawn_view

PLAIN = ViewRule(None, flip=0.0, jitter_p=0.0)


def image(height: int = 70, width: int = 90, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth shapes with fine grain, over the whole range of levels."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    x = np.clip(np.asarray(coarse, np.float32) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    return x if channels == 3 else x[..., :1]


def picture(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(image()).convert(mode)


def same(a: Image.Image, b: Image.Image, within: int = 0) -> None:
    assert a.mode == b.mode
    off = np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))
    assert off.max() <= within, f"off by {off.max()}, mean {off.mean()}"


# ----------------------------------------------------------------------------------------------------------- operations


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.73, 1.0, 1.31, 1.8])
def test_brightness_contrast_and_saturation_are_pillows(mode, factor):
    p = picture(mode)
    same(colour.brightness(p, factor), ImageEnhance.Brightness(p).enhance(factor), 0)
    same(colour.contrast(p, factor), ImageEnhance.Contrast(p).enhance(factor), 0)
    want = p if mode == "L" else ImageEnhance.Color(p).enhance(factor)
    same(colour.saturation(p, factor), want, 0)
    assert (np.asarray(colour.brightness(p, 0.2)) != np.asarray(p)).any()


@pytest.mark.parametrize("bright", [1, 2, 3])
def test_contrast_is_about_a_mean_that_is_rounded(bright):
    """Means of 100.25, 100.5 and 100.75: the levels 100 stay or move as the whole mean is 100 or 101."""
    x = np.full((2, 2), 100, np.uint8)
    x.flat[:bright] = 101
    p = Image.fromarray(x)
    same(colour.contrast(p, 0.0), ImageEnhance.Contrast(p).enhance(0.0))
    assert np.asarray(colour.contrast(p, 0.0)).max() == (100 if bright == 1 else 101)


@pytest.mark.parametrize("turn", [-0.5, -0.17, -0.003, 0.0, 0.1, 0.5])
def test_hue_is_torchvisions_and_turns_back_into_itself(turn):
    p = picture()
    same(colour.hue(p, turn), tv.adjust_hue(p, turn))
    assert (np.asarray(colour.hue(p, 0.1)) != np.asarray(p)).any()
    same(colour.hue(picture("L"), turn), picture("L"))


def test_grey_is_luma():
    x = np.asarray(colour.grey(picture())).astype(float)
    luma = image().astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(x - luma[..., None]).max() <= 0.51


@pytest.mark.parametrize("sigma", [0.1, 0.45, 1.0, 2.0])
@pytest.mark.parametrize("side", [48, 96, 230])
def test_the_window_blur_is_a_gaussian_of_a_tenth_of_the_height(sigma, side):
    """SimCLR's window is 2 (height // 10 // 2) + 1 wide, so that it cuts the Gaussian off where images are small."""
    p = Image.fromarray(image(side, side + 10))
    window = 2 * (side // 10 // 2) + 1
    x = torch.from_numpy(np.asarray(p).copy()).permute(2, 0, 1).float()
    want = tv.gaussian_blur(x, [window, window], [sigma, sigma]).permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(colour.window_blur(p, sigma)) - want).max() <= 0.52
    if sigma >= 1:
        assert np.abs(np.asarray(p) - want).max() > 5, "the blur must be seen, or this test proves nothing"


def test_images_without_a_window_are_left_alone():
    tiny = Image.fromarray(image(16, 16))
    same(colour.window_blur(tiny, 2.0), tiny)


def test_pillows_blur_and_solarisation():
    p = picture()
    same(colour.pillow_blur(p, 1.3), p.filter(ImageFilter.GaussianBlur(1.3)))
    same(colour.solarised(p), ImageOps.solarize(p, 128))
    levels = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    x = np.asarray(colour.solarised(levels))[0].astype(int)
    assert x.tolist() == [v if v < 128 else 255 - v for v in range(256)]


def test_the_jitter_takes_every_order_and_all_of_its_bounds():
    """One generator, many draws: each order of the four turns up, factors fill their range and never leave it."""
    seen: dict[str, list[float]] = {n: [] for n in ("brightness", "contrast", "saturation", "hue")}
    orders = []
    real = {n: getattr(colour, n) for n in seen}
    p = Image.fromarray(image(4, 4))

    def spy(name):
        def change(picture, factor):
            seen[name].append(factor)
            orders[-1].append(name)
            return real[name](picture, factor)

        return change

    with pytest.MonkeyPatch.context() as patch:
        for name in seen:
            patch.setattr(colour, name, spy(name))
        rng = np.random.default_rng(0)
        for _ in range(600):
            orders.append([])
            colour.jittered(p, (0.8, 0.4, 1.5, 0.1), rng)
    assert {tuple(o) for o in orders} == set(permutations(seen))
    for name, (low, high) in {
        "brightness": (0.2, 1.8),
        "contrast": (0.6, 1.4),
        "saturation": (0, 2.5),
        "hue": (-0.1, 0.1),
    }.items():
        width = high - low
        assert low <= min(seen[name]) < low + 0.02 * width
        assert high - 0.02 * width < max(seen[name]) <= high


def test_a_bound_of_nothing_changes_nothing_and_draws_the_same():
    p, a, b = picture(), np.random.default_rng(3), np.random.default_rng(3)
    same(colour.jittered(p, (0, 0, 0, 0), a), p)
    colour.jittered(p, (0.4, 0.4, 0.4, 0.1), b)
    assert a.random() == b.random()


# ---------------------------------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stored", [1, 3])
@pytest.mark.parametrize("kind", list(KINDS))
def test_shapes_and_repetition(kind, stored, channels):
    local = 3 if KINDS[kind].local else 0
    made = Views(kind, 40, channels=channels, local=local, local_size=24)
    x = image(channels=stored)
    before = x.copy()
    a, b, other = (made.draw(x, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(x, before)
    want = {"views": (2, 40, 40, channels), **({"local": (3, 24, 24, channels)} if local else {})}
    assert {k: v.shape for k, v in a.items()} == want == {k: v.shape for k, v in made.absent().items()}
    for key, value in a.items():
        assert value.dtype == np.uint8
        np.testing.assert_array_equal(value, b[key])
        assert (value != other[key]).any()
        assert (value[0] != value[1]).any(), "two views of an image differ"


def test_all_chance_comes_from_the_generator():
    np.random.seed(0)
    torch.manual_seed(0)
    state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    Views("moco_v3", 40).draw(image(), np.random.default_rng(0))
    assert (np.random.get_state()[1] == state).all()
    assert torch.equal(torch.get_rng_state(), torch_state)


def shares(rule: ViewRule, x: np.ndarray, draws: int = 400) -> float:
    """How often a view differs from the one of the plain rule."""
    rng = np.random.default_rng(0)
    base = np.asarray(drawn_view(x, 40, PLAIN, rng))
    return float(np.mean([(np.asarray(drawn_view(x, 40, rule, rng)) != base).any() for _ in range(draws)]))


@pytest.mark.parametrize(
    ("changed", "p"),
    [
        ({"flip": 0.5}, 0.5),
        ({"jitter": (0.8, 0.8, 0.8, 0.2), "jitter_p": 0.8}, 0.8),
        ({"grey_p": 0.2}, 0.2),
        ({"blur_p": 0.5, "sigma": (1.0, 2.0)}, 0.5),
        ({"solarise_p": 0.2}, 0.2),
        ({}, 0.0),
    ],
    ids=lambda v: next(iter(v), "nothing") if isinstance(v, dict) else "",
)
def test_each_change_comes_as_often_as_it_should(changed, p):
    assert abs(shares(replace(PLAIN, **changed), image(40, 40)) - p) <= 0.07


def test_crops_lie_in_their_share_of_the_area(monkeypatch):
    x, found = image(100, 100), []
    real = views.draw_box
    monkeypatch.setattr(views, "draw_box", lambda *a: found.append(real(*a)) or found[-1])
    Views("multi_crop", 32, local=150, local_size=16).draw(x, np.random.default_rng(0))
    area = [(right - left) * (bottom - top) / 1e4 for left, top, right, bottom in found]
    assert len(area) == 152
    assert min(area[:2]) >= 0.24
    assert 0.04 <= min(area[2:]) < 0.07
    assert 0.22 < max(area[2:]) <= 0.27


def test_changes_come_in_the_stated_order(monkeypatch):
    calls: list[str] = []
    for name in ("jittered", "grey", "pillow_blur", "solarised"):
        real = getattr(colour, name)
        monkeypatch.setattr(colour, name, lambda *a, n=name, f=real: calls.append(n) or f(*a))
    rule = ViewRule(jitter=(0.1, 0.1, 0.0, 0.1), jitter_p=1, grey_p=1, blur_p=1, solarise_p=1)
    drawn_view(image(), 30, rule, np.random.default_rng(0))
    assert calls == ["jittered", "grey", "pillow_blur", "solarised"]


def test_films_have_no_colour_to_turn():
    for rule in KINDS["films"].views:
        assert rule.jitter[2:] == (0, 0)
        assert rule.grey_p == 0
    grey = np.repeat(image(channels=1), 3, -1)
    for seed in range(20):
        for view in Views("films", 32).draw(grey, np.random.default_rng(seed))["views"]:
            assert (view == view[..., :1]).all()


def test_an_equal_view_of_one_and_of_three_grey_channels():
    """Of one channel the same is drawn and done, but for what only colours have."""
    x = image(channels=1)
    one = Views("films", 32, channels=1).draw(x, np.random.default_rng(4))["views"]
    three = Views("films", 32).draw(np.repeat(x, 3, -1), np.random.default_rng(4))["views"]
    assert np.abs(one.astype(int) - three.astype(int)).max() <= 1


def test_rotated_and_mirrored_alone_is_what_the_comparing_paper_does():
    x = image(60, 60)
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    got = Views("paper", 60).draw(x, rng)["views"][0]
    want = Image.fromarray(x).rotate(again.uniform(-20, 20), Image.Resampling.BILINEAR)
    want = want.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if again.random() < 0.5 else want
    np.testing.assert_array_equal(got, np.asarray(want))


def test_strength_crop_and_blur_are_adjusted():
    made = Views("simclr", 32, strength=0.5, scale=(0.3, 0.6), blur=False)
    assert {r.jitter for r in made.rules} == {(0.4, 0.4, 0.4, 0.1)}
    assert {r.scale for r in made.rules} == {(0.3, 0.6)}
    assert {r.blur_p for r in made.rules} == {0.0}


def test_fewer_views_are_the_first_ones():
    one, two = (Views("moco_v3", 32, count=n).draw(image(), np.random.default_rng(0))["views"] for n in (1, 2))
    np.testing.assert_array_equal(one, two[:1])


def test_sixteen_bits_are_scaled_and_unknown_ranges_refused():
    x = image()
    wide = Views("mild", 32).draw(x.astype(np.uint16) * 257, np.random.default_rng(0))["views"]
    np.testing.assert_array_equal(wide, Views("mild", 32).draw(x, np.random.default_rng(0))["views"])
    with pytest.raises(MethodError, match="float32, whose range is not known"):
        Views("mild", 32).draw(x.astype(np.float32), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "simclrr"}, "no kind 'simclrr'; there are simclr"),
        ({"kind": "simclr", "local": 4}, "'simclr' has no small views.*take multi_crop"),
        ({"kind": "simclr", "scale": (0.5, 0.2)}, "no range within"),
        ({"kind": "simclr", "scale": (0.0, 0.2)}, "no range within"),
        ({"kind": "simclr", "strength": -1}, "means nothing"),
        ({"kind": "multi_crop", "size": 0, "local": 2}, "at least 1"),
        ({"kind": "simclr", "count": 3}, "has 2 views of full size, not 3"),
        ({"kind": "simclr", "count": 0}, "not 0"),
    ],
)
def test_what_makes_no_view_is_refused(given, says):
    with pytest.raises(MethodError, match=says):
        Views(given.pop("kind"), given.pop("size", 32), **given)
