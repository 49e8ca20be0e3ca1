"""TransVW against a few literal lines: deformation, one change of four, neighbourhoods of words, losses; the published code's numbers."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import batch, build, records

from models.contract import MethodError
from models.methods.restoration.transvw import word_loss
from models.registry import get_method
from models.transforms import corrupt, elastic
from models.transforms.visual_words import FORMAT, drawn_places, read_words

CNN = {"kind": "resnet", "name": "resnet10t", "image_size": 32}


def started(**options):
    method = build("transvw", **options)
    method.enter("pretrain")
    return method.train()


def written(path: Path, **changed) -> Path:
    images = {f"s{i:04d}": [[i % 3, 0.25, 0.75], [2, 0.5, 0.5]] for i in range(0, 40, 2)}
    path.write_text(json.dumps({"format": FORMAT, "split": "train", "words": 3, "images": images, **changed}))
    return path


def test_moves_take_each_place_what_lies_elsewhere():
    x = np.random.default_rng(0).random((12, 15, 3)).astype(np.float32)
    down, right = np.full((12, 15), 2.0), np.full((12, 15), -0.5)
    made = elastic.moved(x, down, right)
    np.testing.assert_allclose(made[:9, 1:], (x[2:11, 1:] + x[2:11, :-1]) / 2, atol=1e-6)
    np.testing.assert_array_equal(elastic.moved(x, 0 * down, 0 * right), x)
    (
        np.testing.assert_allclose(elastic.moved(x, 2 * down, 0 * right)[-1], x[-4], atol=1e-6),
        "mirrored beyond the border",
    )


@pytest.mark.parametrize("side", [48, 160])
def test_the_deviation_of_the_moves_is_what_is_asked_for(side):
    fields = [elastic._field(side, side, 3.0, np.random.default_rng(s)) for s in range(150)]
    middle = np.std([f[side // 2, side // 2] for f in fields])
    assert middle == pytest.approx(3.0, rel=0.2)
    neighbours = np.corrcoef([f[side // 2, side // 2] for f in fields], [f[side // 2, side // 2 + 1] for f in fields])
    assert neighbours[0, 1] > 0.98


def test_one_change_of_four_is_made():
    x = np.random.default_rng(0).integers(0, 256, (42, 42, 1), np.uint8)
    plain, kinds = corrupt.unit(x), []
    for seed in range(200):
        made = corrupt.Perturbation(elastic=0.0)(x, np.random.default_rng(seed))
        same = (made == plain).mean()
        rows = (made != plain).any((1, 2))
        moved = np.isin(made, plain).all()
        kinds.append(
            "shuffle" if moved else "in" if same > 0.8 and not rows[:3].any() else "out" if same > 0.1 else "curve"
        )
    counts = {k: kinds.count(k) for k in ("shuffle", "in", "out", "curve")}
    assert all(30 < n < 75 for n in counts.values()), counts
    assert (corrupt.Perturbation()(x, np.random.default_rng(0)) != plain).any()


def test_what_is_restored_is_the_neighbourhood_as_it_was(tmp_path):
    """Without jitter and zoom: rows and columns around the word; the corruption is of the input alone."""
    file = written(tmp_path / "words.json")
    method = started(
        words="file", words_file=str(file), jitter=0.0, zoom=(1.0, 1.0), neighbourhood=0.75, grayscale=False
    )
    assert method.chance(4) == {"word": math.log(3)}
    (record,) = records(1)
    seen = {}
    for seed in range(20):
        made = method.sample(record, np.random.default_rng(seed)).arrays
        seen[int(made["word"])] = made["target"]
    assert set(seen) == {0, 2}
    # Images of 64 pixels, neighbourhoods of 48: round (0.25, 0.75) of the side moved into the image, and around the middle.
    np.testing.assert_array_equal(seen[0], record.fields["image"][:48, 16:])
    np.testing.assert_array_equal(seen[2], record.fields["image"][8:56, 8:56])


def test_an_image_without_a_word_is_restored_alone(tmp_path):
    method = started(words="file", words_file=str(written(tmp_path / "words.json")))
    data = batch(method, records(4))
    assert (data["word"] < 0).tolist() == [False, True, False, True]
    out = method(data)
    assert out.diagnostics["with_word"] == 0.5
    with_word = batch(method, records(4))
    with_word.weight_B[[1, 3]] = 0
    torch.testing.assert_close(started(words="file", words_file=str(written(tmp_path / "w.json"))).eval()(with_word).losses["word"],
                               method.eval()(data).losses["word"])  # fmt: skip
    nobody = method(batch(method, records(4)[1::2]))
    assert nobody.losses["word"] == 0
    assert nobody.total.isfinite()


@pytest.mark.parametrize("net", [{}, CNN], ids=["vit", "resnet"])
def test_the_total_is_both_losses_by_their_weights(net):
    method = started(image=net, restore_weight=2.0, word_weight=0.3).eval()
    data = batch(method, records(5))
    out = method(data)
    made = method.restored(data["corrupted"], method.weight(data))
    logits = method.word(method.pooled(made.tokens_BLD), made.maps[-1] if made.maps else None).detach()
    wanted = np.mean([-float(row.log_softmax(0)[w]) for row, w in zip(logits, data["word"].tolist(), strict=True)])
    assert out.losses["word"].item() == pytest.approx(wanted, rel=1e-5)
    error = (made.made_BCHW - data["target"].permute(0, 3, 1, 2) / 255).square().mean()
    assert out.losses["restore"].item() == pytest.approx(error.item(), rel=1e-4)
    assert out.total.item() == pytest.approx(2 * error.item() + 0.3 * wanted, rel=1e-4)
    right = (logits.argmax(1) == data["word"]).float().mean()
    assert out.diagnostics["word_accuracy"] == right


def test_a_word_that_is_sure_costs_no_infinity():
    loss, _ = word_loss(torch.tensor([[300.0, -300.0]]), torch.tensor([1]), torch.ones(1))
    assert loss.item() == pytest.approx(600)


def test_places_keep_their_distance():
    places = drawn_places(30, 0.1, 0.05, np.random.default_rng(0))
    assert places.shape == (30, 2)
    assert 0.1 <= places.min() <= places.max() <= 0.9
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(30)
    assert gaps.min() >= 0.05
    with pytest.raises(MethodError, match="no room for 30 words"):
        drawn_places(30, 0.4, 0.3, np.random.default_rng(0))


# ------------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split": "test"}, "found on images of split 'test', not 'train'"),
        ({"split": None}, "not 'train'"),
        ({"format": "words"}, "is no file of visual words"),
        ({"words": 1}, "'words' is 1"),
        ({"images": {}}, "'images' is no mapping"),
        ({"images": {"a": [[3, 0.5, 0.5]], "b": [[0, 0.5, 0.5]], "c": [[-1, 0.5, 0.5]]}}, "2 of 3 images have a word that is none of 0"),
        ({"images": {"a": [[0, 0.5, 1.5]]}}, "a place outside 0 to 1"),
        ({"images": {"a": [[0, 0.5]], "b": []}}, "have no list of words (b)"),
        ({"images": {"a": [[0, "x", 0.5]]}}, "something else than [word, row, column]"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_words_or_leaks_is_refused(tmp_path, changed, message):
    with pytest.raises(MethodError) as raised:
        read_words(written(tmp_path / "words.json", **changed))
    assert message in str(raised.value)
    assert "words.json" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": "mild"}, "method.views"),
        ({"crop_scale": [0.5, 1.0]}, "method.crop_scale: words are places of whole images"),
        ({"zoom": [1.5, 1.0]}, "method.zoom"),
        ({"words_file": "nowhere.json"}, "method.words_file"),
        ({"places": 1}, "method.places"),
        ({"word_weight": 0}, "method.word_weight"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(MethodError) as raised:
        get_method("transvw").Options.parse(options)
    assert message in str(raised.value)


def test_words_are_asked_for_by_the_command_that_finds_them(tmp_path):
    with pytest.raises(MethodError, match="medpair words RUN DATA --out FILE"):
        build("transvw", words="file")
    file = str(written(tmp_path / "words.json"))
    with pytest.raises(MethodError, match=r"method.words=places reads no file"):
        build("transvw", words="places", words_file=file)


# ------------------------------------------------------------------------------------------------------ the published code


@pytest.mark.real
def test_published_code_on_the_same_numbers(real_data: Path):
    """Deformation and losses; its network is for volumes, and has no counterpart here."""
    folder = real_data.parent / "parity" / "restoration_segmentation_gwas"
    if not folder.is_dir():
        pytest.skip("the published code's numbers are not part of the repository")
    spec = importlib.util.spec_from_file_location("rule_of_restoration", folder / "rule.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    gold = np.load(folder / "transvw.npz")
    x, columns, rows = (rule.unit(n, (24, 24, 1)) for n in ("input.elastic2", "draws.dx2", "draws.dy2"))
    # Their filter also goes along the axis of depth, of which there is one place: its middle weight, as scipy cuts the Gaussian off.
    weights = np.exp(-0.5 * (np.arange(-32, 33) / 8) ** 2)
    factor = 991 * (weights / weights.sum())[32]
    down, right = (elastic.smoothed(2 * noise[..., 0] - 1, 8, factor) for noise in (rows, columns))
    np.testing.assert_allclose(elastic.moved(x, down, right)[..., 0], gold["elastic2d.out"], rtol=0, atol=1e-5)
    labels = torch.from_numpy(rule.integers("input.labels", (4,), 0, 7))
    word, _ = word_loss(torch.from_numpy(gold["cls"]).log(), labels, torch.ones(4))
    assert 0.01 * word.item() == pytest.approx(float(gold["loss_cls_weighted"]), rel=1e-5)
    method = started()
    target = torch.from_numpy(rule.unit("input.target", (4, 1, 16, 16, 16))).float()
    made = torch.from_numpy(gold["img"])
    assert torch.nn.functional.mse_loss(made, target).item() == pytest.approx(float(gold["loss_rec"]), rel=1e-5)
    total = method.options.restore_weight * float(gold["loss_rec"]) + 0.01 * word.item()
    assert total == pytest.approx(float(gold["total"]), rel=1e-5)
