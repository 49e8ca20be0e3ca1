"""Models Genesis against a few literal lines: each corruption with its draws, what is restored, the loss; the published code's numbers."""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from synthetic import batch, build, records, seen_by

from models.contract import MethodError
from models.registry import get_method
from models.transforms import corrupt
from models.transforms.image import to_pixels

CNN = {"kind": "resnet", "name": "resnet10t", "image_size": 32}


def started(name="genesis", **options):
    method = build(name, **options)
    method.enter("pretrain")
    return method.train()


def image(size=40, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size + 8, channels), np.uint8)


def test_a_window_is_read_from_the_image_as_it_was_and_later_ones_lie_over_earlier():
    rng, x = np.random.default_rng(0), image(channels=3)
    H, W, _ = x.shape
    windows = corrupt.drawn_windows(H, W, 300, rng)
    assert windows[:, :2].min() == 1
    assert windows[:, 0].max() == H // 10
    assert windows[:, 1].max() == W // 10
    orders = [rng.permutation(h * w) for h, w, _, _ in windows]
    wanted = x.copy()
    for (h, w, top, left), order in zip(windows.tolist(), orders, strict=True):
        was = x[top : top + h, left : left + w].reshape(h * w, 3)
        wanted[top : top + h, left : left + w] = was[order].reshape(h, w, 3)
    np.testing.assert_array_equal(corrupt.shuffled(x, windows, np.concatenate(orders)), wanted)


def test_every_permutation_of_every_window_is_as_likely():
    rng = np.random.default_rng(1)
    order = corrupt.drawn_orders(np.tile([[1, 3, 0, 0], [2, 2, 0, 0]], (3000, 1)), rng).reshape(3000, 7)
    assert set(map(tuple, np.sort(order[:, :3]))) == {(0, 1, 2)}
    assert set(map(tuple, np.sort(order[:, 3:]))) == {(0, 1, 2, 3)}
    _, counts = np.unique(order[:, :3], axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 500).max() < 100


def test_what_a_shuffle_leaves_is_near_and_where_no_window_lies_nothing_moves():
    x = np.arange(40 * 48).reshape(40, 48, 1)  # each pixel tells where it comes from
    few = corrupt.shuffle(x, 3, np.random.default_rng(2))
    assert 0 < (few != x).sum() <= 3 * 4 * 4
    many = corrupt.shuffle(x, 5000, np.random.default_rng(2))
    assert (many != x).mean() > 0.8
    assert np.abs(many // 48 - x // 48).max() < 4
    assert np.abs(many % 48 - x % 48).max() < 4


@pytest.mark.parametrize("rising", [True, False])
def test_a_curve_is_a_monotone_map_between_the_corners(rising):
    places = np.linspace(0, 1, 101)
    for seed in range(20):
        x, y = corrupt.curve(np.random.default_rng(seed).random((2, 2)), rising)
        made = corrupt.bent(places, x, y)
        assert (made[0], made[-1]) == pytest.approx((0, 1) if rising else (1, 0))
        if rising:
            assert (np.diff(made) >= 0).all()
    straight = corrupt.curve(np.array([[1 / 3, 1 / 3], [2 / 3, 2 / 3]]), rising)
    np.testing.assert_allclose(corrupt.bent(places, *straight), places if rising else 1 - places, atol=1e-6)


def test_a_curve_is_beziers():
    controls = np.array([[0.2, 0.1], [0.7, 0.9]])
    x, y = corrupt.curve(controls, True)
    for t in (0.1, 0.5, 0.8):  # de Casteljau's construction
        points = np.array([[0, 0], *controls, [1, 1]])
        while len(points) > 1:
            points = (1 - t) * points[:-1] + t * points[1:]
        assert corrupt.bent(points[0, 0], x, y) == pytest.approx(points[0, 1], abs=1e-6)


def test_few_samples_of_a_curve_are_enough_for_eight_bits():
    grid = np.arange(256) / 255
    for seed in range(10):
        controls = np.random.default_rng(seed).random((2, 2))
        fine = corrupt.bent(grid, *corrupt.curve(controls, True, 100_000))
        assert np.abs(corrupt.bent(grid, *corrupt.curve(controls, True)) - fine).max() < 1e-5


@pytest.mark.parametrize("size", [14, 40])
def test_in_painting_puts_the_same_noise_into_all_channels_of_a_few_blocks(size):
    x = np.full((size, size, 3), 2, np.float32)
    for seed in range(30):
        made = corrupt.inpaint(x, np.random.default_rng(seed))
        assert (x == 2).all(), "what it was given stays"
        painted = (made != 2).all(-1)
        assert painted.sum() <= 5 * (size // 3) ** 2
        assert not painted[:3].any()
        assert not painted[-3:].any()
        assert not painted[:, :3].any()
        assert not painted[:, -3:].any()
        assert (made[painted] < 1).all()
        assert (made == made[..., :1]).all()


@pytest.mark.parametrize("size", [14, 40])
def test_out_painting_leaves_boxes_in_noise_of_each_channels_own(size):
    x = np.full((size, size, 3), 2, np.float32)
    shares = []
    for seed in range(30):
        made = corrupt.outpaint(x, np.random.default_rng(seed))
        kept = (made == 2).all(-1)
        shares.append(kept.mean())
        sides = kept.any(1).sum(), kept.any(0).sum()
        assert min(sides) >= size - 4 * size // 7
        assert not kept[:3].any()
        assert not kept[:, -3:].any()
        noise = made[~kept]
        assert (noise < 1).all()
        assert (noise[:, 0] != noise[:, 1]).mean() > 0.9
    assert len(set(shares)) > 3


def test_flips_and_those_that_do_nothing():
    x = image()
    none = 0
    for seed in range(200):
        made = corrupt.flipped(x, 1.0, 2, np.random.default_rng(seed), most=1)
        assert (made == x[::-1]).all() or (made == x[:, ::-1]).all()
        none += bool((corrupt.flipped(x, 1.0, 3, np.random.default_rng(seed), most=1) == x).all())
    assert 40 < none < 95
    assert (corrupt.flipped(x, 0.0, 2, np.random.default_rng(0)) == x).all()


def test_probabilities_decide_what_happens():
    x = image(48, 3)
    plain = corrupt.unit(x)
    assert (corrupt.Corruption()(x, np.random.default_rng(0)) == plain).all()
    for name in ("shuffle_p", "curve_p", "paint_p"):
        made = corrupt.Corruption(**{name: 1.0})(x, np.random.default_rng(0))
        assert (made != plain).any(), name
        assert (made.min(), made.max()) >= (0, 0)
        assert made.max() <= 1
        assert made.dtype == np.float32
        half = [(corrupt.Corruption(**{name: 0.5})(x, np.random.default_rng(s)) != plain).any() for s in range(60)]
        assert 15 < sum(half) < 45
    assert (x == image(48, 3)).all()


# -------------------------------------------------------------------------------------------------------------- the system


@pytest.mark.parametrize("grayscale", [True, False])
def test_what_is_restored_is_the_view_and_only_the_input_is_corrupted(grayscale):
    method = started(grayscale=grayscale, views="official", flip_p=0.0)
    (record,) = records(1)
    made = method.sample(record, np.random.default_rng(0))
    method.enter("")
    whole = method.sample(record, np.random.default_rng(0)).arrays["image"]
    target = made.arrays["target"]
    assert target.shape == (48, 48, 1 if grayscale else 3)
    if grayscale:
        assert (whole == whole[..., :1]).all(), "deployed it sees luma too"
        assert np.abs(whole[..., :1].astype(int) - target).max() == 0
    else:
        assert (whole == target).all()
    given = made.arrays["corrupted"].astype(np.float32)
    assert np.abs(given - target / 255).mean() > 0.05
    assert method.image_view().channels == ("grey" if grayscale else "rgb")
    shown = to_pixels(seen_by(method, batch(method, [record])))
    assert (shown == whole).all()


@pytest.mark.parametrize("loss_on", ["all", "corrupted"])
@pytest.mark.parametrize("net", [{}, CNN], ids=["vit", "resnet"])
def test_the_loss_is_the_mean_square_of_what_is_missed(net, loss_on):
    method = started(image=net, loss_on=loss_on, curve_p=0.0, shuffle_p=0.0).eval()
    data = batch(method, records(4, missing={2: ["image"]}))
    data.weight_B[3] = 0
    out = method(data)
    made = method.restored(data["corrupted"], method.weight(data)).made_BCHW.detach()
    assert made.shape[1] == 1
    assert 0 < made.min() < made.max() < 1
    errors, identity = [], []
    for i in (0, 1):
        for row, column in np.ndindex(*data["target"].shape[1:3]):
            wanted, given = float(data["target"][i, row, column, 0]) / 255, float(data["corrupted"][i, row, column, 0])
            if loss_on == "all" or given != np.float16(np.float32(wanted)):
                errors.append((float(made[i, 0, row, column]) - wanted) ** 2)
                identity.append((given - wanted) ** 2)
    assert out.total.item() == pytest.approx(np.mean(errors), rel=1e-4)
    assert out.losses["restore"] == out.total
    assert out.diagnostics["restore_identity"].item() == pytest.approx(np.mean(identity), rel=1e-4)
    share = np.mean([(data["corrupted"][i] != (data["target"][i].float() / 255).half()).float().mean() for i in (0, 1)])
    assert out.diagnostics["changed"].item() == pytest.approx(share, rel=1e-4)
    assert out.diagnostics["restore_baseline"] > 0


def test_padding_moves_no_batch_statistics_of_the_network():
    method, again = started(image=CNN), started(image=CNN)
    real, padded = batch(method, records(3)), batch(method, records(4))
    padded.weight_B[3] = 0
    a, b = method(real), again(padded)
    torch.testing.assert_close(a.total, b.total)
    a.total.backward()
    for key, value in method.named_buffers():
        torch.testing.assert_close(again.get_buffer(key), value, rtol=1e-5, atol=1e-6, msg=key)
    assert all(p.grad is not None for p in method.parameters())
    assert method.decoder.up.out.weight.grad.any()


def test_pictures_have_a_row_a_sample():
    method = started().eval()
    drawn = method.pictures(batch(method, records(3)))["reconstruction"]
    assert drawn.shape == (3 * 48, 3 * 48, 3)
    assert drawn.dtype == np.uint8


def test_conventions():
    assert started(shuffle_windows=None).corruption.windows == 1000
    published = started(shuffle_windows=None, conventions="published")
    assert published.corruption.windows == 10_000
    assert (published.flip_axes, started().flip_axes) == (3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shuffle_p": 0, "curve_p": 0, "paint_p": 0}, "nothing is corrupted"),
        ({"image": {"kind": "vit", "image_size": 12, "patch": 6}}, "method.image.image_size: 12 pixels are too few to paint over; give 14"),
        ({"patch_min": 0.3, "patch_max": 0.2}, "method.patch_min: 0.3 is above method.patch_max"),
        ({"decoder": {"dim": 30, "heads": 4}}, "method.decoder.dim: 30 is not a multiple of 4"),
        ({"flip_p": 1.5}, "method.flip_p"),
        ({"shuffle_p": -0.1}, "method.shuffle_p"),
        ({"shuffle_windows": 0}, "method.shuffle_windows"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(MethodError) as raised:
        get_method("genesis").Options.parse(options)
    assert message in str(raised.value)


def test_a_network_whose_maps_do_not_fit_together_is_refused():
    with pytest.raises(MethodError, match=r"method.image.image_size: 48 is no multiple of 32, .* use 32 or 64"):
        build("genesis", image={"kind": "resnet", "name": "resnet18", "image_size": 48})


def test_a_network_that_begins_at_a_quarter_of_the_size_gets_squares_of_four_pixels():
    assert started(image={"kind": "resnet", "name": "convnext_atto", "image_size": 64}).decoder.stride == 4


# ------------------------------------------------------------------------------------------------------ the published code


def parity(real_data: Path) -> tuple[Path, ModuleType]:
    folder = real_data.parent / "parity" / "restoration_segmentation_gwas"
    if not folder.is_dir():
        pytest.skip("the published code's numbers are not part of the repository")
    spec = importlib.util.spec_from_file_location("rule_of_restoration", folder / "rule.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    return folder, rule


def windows_of_theirs() -> tuple[np.ndarray, np.ndarray]:
    """Height, width, top, left and permutation of 10,000 windows, drawn one after another."""
    rng, windows, orders = np.random.default_rng(zlib.crc32(b"draws.shuffle")), [], []
    for _ in range(10_000):
        h, w = rng.integers(1, 7), rng.integers(1, 7)
        windows.append((h, w, rng.integers(0, 64 - h + 1), rng.integers(0, 64 - w + 1)))
        orders.append(rng.permutation(h * w))
    return np.array(windows), np.concatenate(orders)


@pytest.mark.real
def test_published_code_with_the_same_draws(real_data: Path):
    folder, rule = parity(real_data)
    gold = np.load(folder / "genesis.npz")
    x_HWC = rule.unit("input.image", (64, 64))[..., None]

    def same(made, key):
        np.testing.assert_allclose(made, gold[key], rtol=0, atol=1e-6)

    for way in ("up", "flip"):
        draws = gold[f"nonlinear.{way}.draws"].astype(float)
        line = corrupt.curve(draws[1:5].reshape(2, 2), rising=way == "up")
        same(corrupt.bent(x_HWC, *line)[..., 0], f"nonlinear.{way}.out")
        same(corrupt.bent(np.linspace(0, 1, 101), *line), f"nonlinear.{way}.curve")
    boxes = [tuple(b) for b in gold["in.i"].reshape(-1, 4)]
    same(corrupt.painted_in(x_HWC, boxes, [gold[f"in.noise{i}"] for i in range(len(boxes))])[..., 0], "in.out")
    boxes = [(64 - h, 64 - w, top, left) for h, w, top, left in gold["out.i"].reshape(-1, 4)]
    same(corrupt.painted_out(x_HWC, boxes, gold["out.noise0"][..., None])[..., 0], "out.out")
    same(corrupt.shuffled(x_HWC, *windows_of_theirs())[..., 0], "shuffle.out")
