"""Masked records beside the equations: views of images, text and tokenizers, weights from files, pictures."""

from __future__ import annotations

import argparse
import datetime
import math

import numpy as np
import pytest
import torch
from synthetic import batch, build, records, schema

from models.contract import Field, MethodError, Schema
from models.encoders.vit import fit_positions
from models.methods.masked.mrm_record.method import MrmRecordOptions
from models.methods.masked.mrm_record.published import load_published, published_state
from models.transforms.crops import centre_view, draw_box, grey, random_view
from models.transforms.text import CLS, MASK, PAD, SPECIALS, UNK, ReportTokenizer, draw_report_mask, read_tokenizer


def made(n: int = 6, missing=None, **options):
    """A method in eval mode (no dropout) and a batch of it."""
    method = build("mrm_record", **options)
    method.enter("pretrain")
    method.eval()
    return method, batch(method, records(n, missing=missing))


# ------------------------------------------------------------------------------------------------------------ images


def test_crop_boxes_have_the_stated_areas_and_aspects():
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box(300, 200, (0.2, 1.0), rng) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= 200).all()
    assert (bottom <= 300).all()
    area = (right - left) * (bottom - top) / 60_000
    aspect = (right - left) / (bottom - top)
    assert 0.19 < area.min() < 0.25 < 0.85 < area.max() <= 1
    assert 0.7 < aspect.min() < 0.8 < 1.25 < aspect.max() < 1.4
    assert draw_box(10, 1000, (1.0, 1.0), rng) == (493, 0, 506, 10), "the largest centred box where no try fits"


def test_views_flip_half_the_time_and_only_if_asked():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 1))
    falls = [
        int(v[0, 0, 0]) > int(v[0, -1, 0])
        for v in (random_view(ramp, 16, (0.5, 1.0), 0.5, np.random.default_rng(i)) for i in range(60))
    ]
    assert 15 < sum(falls) < 45
    assert not any(
        int(v[0, 0, 0]) > int(v[0, -1, 0])
        for v in (random_view(ramp, 16, (0.5, 1.0), 0.0, np.random.default_rng(i)) for i in range(20))
    )


def test_grey_and_centre():
    colour = np.zeros((4, 6, 3), np.uint8)
    colour[..., 0], colour[..., 1], colour[..., 2] = 200, 100, 50
    assert grey(colour).shape == (4, 6, 1)
    assert abs(int(grey(colour)[0, 0, 0]) - round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)) <= 1
    wide = np.zeros((10, 30, 1), np.uint8)
    wide[:, 10:20] = 255
    assert (centre_view(wide, 10) == 255).all()


# -------------------------------------------------------------------------------------------------------------- text

WORDS = [*SPECIALS, "les", "##ion", "##s", "small", "no", "[", "]", "mask", "e", "12", "."]


def test_text_becomes_ids():
    ids, count = ReportTokenizer(WORDS, "words").encode("Small LESIONS. É 12\x07é quux", 12)
    word = {w: i for i, w in enumerate(WORDS)}
    expected = ["small", "les", "##ion", "##s", ".", "e", "12", "e", "[UNK]"]
    assert ids.tolist() == [CLS, *(word[w] for w in expected), PAD, PAD]
    assert count == 9


def test_report_text_never_makes_special_tokens():
    ids, _ = ReportTokenizer(WORDS, "words").encode("[MASK] [PAD]", 9)
    assert [WORDS[i] for i in ids[1:6]] == ["[", "mask", "]", "[", "[UNK]"]
    assert not {MASK, PAD} & set(ids[1:7].tolist())


def test_long_reports_are_cut_and_counted():
    method, data = made(report_length=5)
    assert (data["words"] > 4).all()
    assert method(data).diagnostics["report_cut"] == 1
    method, data = made(report_length=40)
    assert method(data).diagnostics["report_cut"] == 0


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_report_counts_as_absent(text):
    method, _ = made()
    some = records(4)
    some[1].fields["report"] = text
    data = batch(method, some)
    assert data.present["report"].tolist() == [True, False, True, True]
    assert not data["hidden"][1].any()
    assert method(data).diagnostics["report_empty"] == 0.25


def test_unknown_words_are_counted():
    method, _ = made()
    some = records(4)
    some[0].fields["report"] = "☃ ☃ ☃ ☃"
    data = batch(method, some)
    real = (data["report"] != PAD) & (data["report"] != CLS)
    assert (data["report"][0, 1:5] == UNK).all()
    torch.testing.assert_close(method(data).diagnostics["report_unknown"], 4.0 / real.sum())


def test_whole_words_are_hidden_together_at_the_stated_rate():
    continues_V = np.array([w.startswith("##") for w in WORDS])
    ids = np.array([CLS, 7, 4, 5, 6, 8, 4, 5, 14, 7, 8, 4, 5, 6, 7, PAD, PAD])
    drawn = np.stack(
        [draw_report_mask(ids, continues_V, 0.5, "whole_word", np.random.default_rng(i)) for i in range(4000)]
    )
    for start, end in ((2, 5), (6, 8), (11, 14)):
        assert (drawn[:, start:end] == drawn[:, start : start + 1]).all()
    assert not drawn[:, [0, 15, 16]].any()
    rate = drawn[:, 1:15].mean(0)
    assert np.abs(rate - 0.5).max() < 0.04
    full = np.full(6, 7)
    assert not draw_report_mask(full, continues_V, 1.0, "whole_word", np.random.default_rng(0))[[0, 5]].any()
    tokens = np.stack([draw_report_mask(ids, continues_V, 0.5, "token", np.random.default_rng(i)) for i in range(200)])
    assert (tokens[:, 2] != tokens[:, 3]).any()


def test_vocabulary_is_checked():
    for words, match in (
        (["a", *SPECIALS], "starts with a"),
        (list(SPECIALS), "no words"),
        ([*SPECIALS, "a", "a"], "twice"),
    ):
        with pytest.raises(MethodError, match=match):
            ReportTokenizer(words, "here")
    bare = schema().fields | {"report": Field("report", "text")}
    with pytest.raises(MethodError, match="python -m shards tokenizer"):
        type(made()[0])(MrmRecordOptions.parse({}), Schema(bare))


def test_tokenizer_files(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import BertPreTokenizer

    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    ours = ReportTokenizer(WORDS, "words")
    assert read_tokenizer(tmp_path / "words.txt").sha256 == ours.sha256
    theirs = Tokenizer(WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    theirs.pre_tokenizer = BertPreTokenizer()
    theirs.add_special_tokens(list(SPECIALS))
    theirs.save(str(tmp_path / "words.json"))
    given = read_tokenizer(tmp_path / "words.json")
    assert given.words == ours.words
    assert given.sha256 != ours.sha256, "other text rules make another tokenizer"
    ids, _ = given.encode("Small small", 4)
    assert ids.tolist() == [CLS, UNK, 7, PAD], "its own rules: no lower case"
    assert MASK not in given.encode("[MASK]", 6)[0]
    (tmp_path / "bad.json").write_text('{"model": {"type": "BPE", "vocab": {}, "merges": []}}')
    for name in ("bad.json", "none.txt"):
        with pytest.raises(MethodError, match=name):
            read_tokenizer(tmp_path / name)


def test_weights_of_another_tokenizer_are_refused():
    method, _ = made()
    fields = schema().fields
    words = fields["report"].vocabulary
    swapped = (*words[:-2], words[-1], words[-2])
    other = Schema({**fields, "report": Field("report", "text", vocabulary=swapped)})
    twin = type(method)(method.options, other)
    with pytest.raises(MethodError, match="belong to the tokenizer"):
        twin.load_state_dict(method.state_dict())


# ----------------------------------------------------------------------------------------------------------- encoder


def test_drop_path_leaves_branches_out_in_training_only():
    method, data = made(image={"drop_path": 0.9}, report_dropout=0.0)
    same, _ = made(report_dropout=0.0)
    same.load_state_dict(method.state_dict())
    assert [round(b.drop_path.rate, 2) for b in method.encoder.blocks] == [0.0, 0.45, 0.9]
    torch.testing.assert_close(method(data).total, same(data).total)
    assert not torch.allclose(method.train()(data).losses["image"], same.train()(data).losses["image"])


def test_learned_positions_go_on_from_fixed_ones():
    (fixed, data), (learned, _) = made(), made(image={"positions": "learned"})
    learned.load_state_dict(fixed.state_dict())  # the same name and shape
    out = learned(data)
    torch.testing.assert_close(out.total, fixed(data).total)
    out.total.backward()
    assert learned.encoder.pos_embed.grad.any()
    assert learned.no_weight_decay() == ["encoder.pos_embed"]
    torch.testing.assert_close(published_state(learned)["pos_embed"], fixed.encoder.pos_embed)


def test_weights_fit_images_of_another_size():
    small, large = build("mrm_record"), build("mrm_record", seed=1, image={"image_size": 96})
    state = fit_positions(large, small.state_dict())
    large.load_state_dict(state, strict=True)
    D, grid = small.options.image.dim, small.encoder.grid
    body = small.encoder.pos_embed[:, 1:].transpose(1, 2).reshape(1, D, *grid)
    wider = torch.nn.functional.interpolate(body, large.encoder.grid, mode="bicubic", align_corners=False)
    torch.testing.assert_close(large.encoder.pos_embed[0, 1:], wider.flatten(2)[0].T)
    torch.testing.assert_close(large.decoder.pos_embed, build("mrm_record", image={"image_size": 96}).decoder.pos_embed)
    assert set(state) == set(small.state_dict())
    assert torch.equal(fit_positions(small, small.state_dict())["encoder.pos_embed"], small.encoder.pos_embed)


# ----------------------------------------------------------------------------------------------------------- weights


def test_published_weights_go_out_and_come_back(tmp_path):
    method, data = made()
    other = build("mrm_record", seed=1)
    torch.save({"model": published_state(method), "epoch": 200}, tmp_path / "MRM.pth")
    load_published(other, str(tmp_path / "MRM.pth"))
    other.enter("pretrain")
    other.eval()
    assert torch.equal(other(data).total, method(data).total)


def test_published_weights_that_do_not_match_are_listed(tmp_path):
    method, _ = made()
    state = published_state(method)
    del state["blocks.0.norm1.weight"]
    state["pooler.dense.weight"] = torch.zeros(2)
    state["bert_mlp.bias"] = torch.zeros(3)
    state["bert_encoder.model.cls.predictions.decoder.weight"] += 1
    torch.save({"model": state}, tmp_path / "MRM.pth")
    with pytest.raises(MethodError) as e:
        load_published(method, str(tmp_path / "MRM.pth"))
    text = str(e.value)
    for part in (
        "lacks 1 tensors: blocks.0.norm1.weight",
        "pooler.dense.weight",
        "bert_mlp.bias is (3,)",
        "method.tie=false",
    ):
        assert part in text


def test_no_class_but_a_bag_of_arguments_may_stand_in_a_file(tmp_path):
    torch.save({"model": published_state(made()[0]), "when": datetime.date(2026, 1, 1)}, tmp_path / "MRM.pth")
    with pytest.raises(MethodError, match="not a readable weights file"):
        build("mrm_record", published_file=str(tmp_path / "MRM.pth"))


def test_the_image_side_of_a_published_file_starts_an_encoder(tmp_path):
    method, _ = made()
    torch.save({"model": published_state(method), "args": argparse.Namespace(lr=1.0)}, tmp_path / "MRM.pth")
    started = build("mrm_record", seed=1, image={"init": "file", "init_file": str(tmp_path / "MRM.pth")})
    assert all(torch.equal(v, started.encoder.state_dict()[n]) for n, v in method.encoder.state_dict().items())
    loaded = started.encoder.load_file(tmp_path / "MRM.pth")
    assert any(n.startswith("bert_encoder.") for n in loaded.skipped)


def test_start_from_mae(tmp_path):
    method, _ = made()
    encoder = {k: v + 1 for k, v in method.encoder.state_dict().items() if k != "pos_embed"}
    encoder["pos_embed"] = method.encoder.pos_embed
    torch.save({"model": encoder | {"decoder_embed.weight": torch.zeros(1)}}, tmp_path / "mae.pth")
    started = build("mrm_record", image={"init": "file", "init_file": str(tmp_path / "mae.pth")})
    torch.testing.assert_close(started.encoder.norm.weight, method.encoder.norm.weight + 1)
    del encoder["norm.weight"]
    torch.save({"model": encoder}, tmp_path / "mae.pth")
    with pytest.raises(MethodError, match=r"lacks 1 of .* tensors: norm\.weight"):
        build("mrm_record", image={"init": "file", "init_file": str(tmp_path / "mae.pth")})
    with pytest.raises(MethodError, match=r"method\.image\.init_file=FILE go together"):
        build("mrm_record", image={"init": "file"})


def test_xavier_reaches_the_word_matrix_only_when_tied():
    normal, tied = (build("mrm_record", init_text=k).report.word_VC for k in ("normal", "xavier_tied"))
    untied = build("mrm_record", init_text="xavier", tie=False).report
    assert untied.out_VC.abs().max() <= math.sqrt(6 / sum(tied.shape)) < 10 * untied.out_VC.std()
    assert abs(untied.word_VC[1:].std().item() - 0.02) < 0.002
    assert not untied.word_VC[PAD].any()
    bound = math.sqrt(6 / sum(tied.shape))
    assert tied.abs().max() <= bound < 10 * tied.std()
    assert abs(normal[1:].std().item() - 0.02) < 0.002
    assert not normal[PAD].any()


def test_pictures():
    method, data = made(3)
    found = method.pictures(data)
    side = method.options.image.image_size * method.options.super_resolution
    assert found["reconstruction"].shape == (3 * side, 3 * side, 3)
    assert all(p.dtype == np.uint8 for p in found.values())
    original = np.repeat(data["image"][0].numpy(), 3, -1)
    assert np.abs(found["reconstruction"][:side, :side].astype(int) - original).max() <= 1
    assert (found["words"] < 255).any()
