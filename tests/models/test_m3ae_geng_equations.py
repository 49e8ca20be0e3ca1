"""M3AE (Geng): both losses written out, what is hidden and from whom, missing modalities, bad input; the published code's numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import reports
import torch
from synthetic import batch, build, records
from torch.nn.functional import cross_entropy

from models.contract import MethodError
from models.encoders.positions import sincos, sincos_2d
from models.layers.patches import kept_words
from models.registry import get_method

LONG = "There is a small round opacity in the left upper lobe. No effusion. There is a large irregular opacity in the lobe."


def entered(**options):
    method = build("m3ae_geng", still=True, **options)
    method.enter("pretrain")
    return method.eval()


def read(method, *texts, epoch=0):
    made = records(len(texts))
    for record, text in zip(made, texts, strict=True):
        record.fields["report"] = text
    return batch(method, made, epoch)


def restored(method, data):
    return method._restored(method.pixels(data["image"]), data)


# --------------------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize("norm", [False, True])
def test_pixels_are_compared_patch_by_patch_over_images_that_count(norm):
    method = entered(norm_pix=norm)
    data = batch(method, records(5, missing={1: ["image"]}))
    data.weight_B[3] = 0
    x, (_, made, masked, _, _), terms = method.pixels(data["image"]), restored(method, data), []
    for i in (0, 2, 4):
        for place, guess in zip(masked[i].tolist(), made[i], strict=True):
            row, column = (8 * p for p in divmod(place, 6))
            want = x[i, :, row : row + 8, column : column + 8].permute(1, 2, 0).flatten()
            want = (want - want.mean()) / (want.var() + 1e-6).sqrt() if norm else want
            terms.append(((guess - want) ** 2).mean().item())
    assert len(terms) == 3 * (36 - int(36 * 0.4))
    assert method(data).losses["image"].item() == pytest.approx(np.mean(terms), rel=1e-5)
    assert ("image" in method.chance(5)) == norm


def texts_each(method, data) -> list[float]:
    """-log p averaged over the hidden words of each sample that has any."""
    _, _, _, logits, hidden = restored(method, data)
    each, at = [], 0
    for i, row in enumerate(hidden):
        n = int(row.sum())
        if n and data.weight_B[i]:
            each.append(cross_entropy(logits[at : at + n], data["report"][i][row].long()).item())
        at += n
    return each


@pytest.mark.parametrize("empty", ["skip", "dilute"])
def test_words_are_averaged_in_a_sample_first_and_one_without_is_left_out_or_a_zero(empty):
    method = entered(text_loss_empty=empty)
    data = read(method, LONG, "No effusion.", "", LONG)
    data.weight_B[3] = 0
    each, out = texts_each(method, data), method(data)
    assert len(each) == 2
    wanted = sum(each) / (2 if empty == "skip" else 3)
    assert out.losses["report"].item() == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(out.total, out.losses["image"] + 0.5 * out.losses["report"])
    assert out.diagnostics["report_empty"].item() == pytest.approx(1 / 3)
    assert method.chance(4)["report"] == pytest.approx(math.log(method.tokens.rows))


def test_the_share_of_words_told_right():
    method = entered()
    data = read(method, LONG, LONG)
    _, _, _, logits, hidden = restored(method, data)
    right = (logits.argmax(1) == data["report"][hidden].long()).float().mean()
    assert method(data).diagnostics["report_right"].item() == pytest.approx(right.item())


# ------------------------------------------------------------------------------------------------------- what is hidden


def test_a_share_of_a_reports_own_words_is_kept_or_of_all_places_as_published():
    noise = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [0.8, 0.7, 0.6, 0.5, 0.1, 0.2, 0.3, 0.4]])
    real = torch.tensor([[1] * 8, [1] * 4 + [0] * 4]).bool()
    keep, seen = kept_words(noise, real, 0.5)
    assert seen.int().tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]]
    assert keep[0].tolist() == [0, 1, 2, 3]
    assert set(keep[1, :2].tolist()) == {2, 3}
    keep, seen = kept_words(noise, real, 0.5, padding=True)
    assert keep[1].tolist() == [4, 5, 6, 7]
    assert not seen[1].any(), "a short report that shows nothing"
    assert not kept_words(noise, torch.zeros_like(real), 0.5)[1].any()


def test_words_of_equal_noise_are_kept_together():
    noise, real = torch.tensor([[0.5, 0.2, 0.2, 0.2, 0.7, 0.9]]), torch.ones(1, 6, dtype=torch.bool)
    assert kept_words(noise, real, 0.5)[1].int().tolist() == [[0, 1, 1, 1, 0, 0]]
    assert not kept_words(noise, real, 0.66)[1].any(), "two of its three would be kept"


def test_whole_words_or_tokens_are_hidden():
    split = {"token": 0, "whole_word": 0}
    for kind in split:
        method = entered(mask_words=kind)
        for epoch in range(10):
            data = read(method, "opacityround effusion smallest lobular upperright", epoch=epoch)
            hidden = restored(method, data)[4][0]
            word = torch.from_numpy(method.tokens.word_of_token(data["report"][0].numpy()))
            assert not hidden[word < 0].any()
            split[kind] += sum(len(set(hidden[word == w].tolist())) > 1 for w in range(int(word.max()) + 1))
    assert split["whole_word"] == 0
    assert split["token"] > 0


def test_one_mask_for_all_samples_as_published_or_one_each():
    for shared in (True, False):
        method = entered(mask_shared=shared)
        data = read(method, LONG, LONG, LONG)
        _, _, masked, _, hidden = restored(method, data)
        assert bool((masked[0] == masked[1]).all()) == shared
        assert bool((hidden[0] == hidden[1]).all()) == shared


def test_what_is_hidden_is_not_seen():
    method = entered()
    data = read(method, LONG, "No effusion.")
    x = method.pixels(data["image"])
    tokens, made, masked, logits, hidden = method._restored(x, data)
    row, column = (8 * p for p in divmod(int(masked[0, 0]), 6))
    spoilt = x.clone()
    spoilt[0, :, row : row + 8, column : column + 8] = 9
    place = int(hidden[0].nonzero()[0])
    kept = data["report"].clone()
    data["report"][0, place] = 1
    again = method._restored(spoilt, data)
    real = slice(None), slice(0, 1 + method.kept_patches)
    torch.testing.assert_close(again[0][real], tokens[real])
    torch.testing.assert_close(again[1], made)
    torch.testing.assert_close(again[3], logits)
    # What is seen is told to both, across modalities.
    data["report"][0] = kept[0]
    shown = int(((kept[0] != 0) & ~hidden[0]).nonzero()[0])
    data["report"][0, shown] = 1
    other = method._restored(x, data)
    assert not torch.allclose(other[1][0], made[0])
    torch.testing.assert_close(other[1][1], made[1])


def test_padding_changes_nothing():
    short, long = entered(report_length=24), entered(report_length=40)
    long.load_state_dict(short.state_dict())
    data, more = read(short, LONG), read(long, LONG)
    assert not data["report"][0, -1]
    more["report_noise"][:, :24] = data["report_noise"]
    assert torch.equal(more["noise"], data["noise"])
    for term, value in short(data).losses.items():
        torch.testing.assert_close(long(more).losses[term], value, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------------- missing modalities


def test_an_absent_image_tells_nothing_and_its_report_is_still_learned_from():
    method = entered()
    data = batch(method, records(3, missing={1: ["image"]}))
    out = method(data)
    data["image"][1] = 200
    again = method(data)
    for term, value in out.losses.items():
        torch.testing.assert_close(again.losses[term], value)
    data.present["image"][1] = True
    assert not torch.allclose(method(data).losses["report"], out.losses["report"])


def test_reports_without_words_leave_the_image_term_alone():
    method = entered()
    out = method(read(method, "", ". ."))
    assert out.losses["report"] == 0
    assert out.losses["image"] > 0
    out.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    absent = records(2, missing={0: ["report"], 1: ["report", "image"]})
    assert method(batch(method, absent)).total.isfinite()


def test_texts_of_one_word_of_unknown_words_and_of_full_length_have_finite_losses():
    for conventions in ("recommended", "published"):
        method = entered(conventions=conventions).train()
        out = method(read(method, "x", "zzz qqq", "No effusion " * 30, LONG))
        out.total.backward()
        assert out.total.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
        assert out.diagnostics["report_cut"].item() == pytest.approx(1 / 3)


# ------------------------------------------------------------------------------------------------------------- deployed


def test_the_deployed_encoder_sees_whole_films_and_pools_patches():
    method = build("m3ae_geng")
    data = batch(method, records(2))
    encoded = method.encode(data)
    tokens = method.image(method.pixels(data["image"]))
    torch.testing.assert_close(encoded["tokens_BLD"], tokens)
    torch.testing.assert_close(encoded["pooled_BD"], tokens[:, 1:].mean(1))
    view = method.image_view()
    assert (view.mean, view.std, view.pool) == ((0.4978,) * 3, (0.2449,) * 3, "avg")
    method.enter("pretrain")
    flat = {id(p) for g in method.param_groups() if g.decay_scale == 0 for p in g.params}
    spared = {n for n, p in method.named_parameters() if id(p) in flat and p.ndim > 1}
    assert spared == {"image.cls_token", "words.words.weight", "decoder.mask_MW", "decoder.kind_MW"}


def test_a_picture_of_what_was_restored():
    method = entered()
    data = batch(method, records(2))
    made = method.pictures(data)["reconstruction"]
    assert made.shape == (2 * 48, 3 * 48, 3)
    assert np.abs(made[:48, :48].astype(int) - data["image"][0].numpy().astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": {"cls_token": False}}, "method.image.cls_token: the decoder expects a class token"),
        ({"image": {"kind": "resnet"}}, "method.image.kind"),
        ({"decoder_dim": 30}, "method.decoder_dim: 30 is not a multiple of 16"),
        (
            {"mask_ratio": 0.999},
            "method.mask_ratio: 0.999 of 196 patches hides all or none; give a share between 0.0051",
        ),
        ({"report_length": 3}, "method.text_mask_ratio: 0.75 of 3 tokens hides all or none"),
        ({"conventions": "published", "mask_shared": False}, "contradicts method.mask_shared=False (theirs: True)"),
    ],
)
def test_what_makes_no_system_is_told(given, said):
    with pytest.raises(MethodError) as raised:
        get_method("m3ae_geng").Options.parse(given)
    assert said in str(raised.value)


# ------------------------------------------------------------------------------------------------------ published code


def published(gold: reports.Pack) -> dict[str, torch.Tensor]:
    """Weights by our names: matrices turned, patches as a convolution, the image's embedding in the bias of its patches."""
    [module] = gold.names
    theirs, own = gold.weights(module), dict[str, torch.Tensor]()
    for name, w in theirs.items():
        own[name] = w.T if name.endswith("/kernel") else w
    weight = theirs["image_embedding/kernel"].T.unflatten(1, (8, 8, 3)).permute(0, 3, 1, 2)
    kind = theirs["encoder_image_type_embedding"].flatten()
    found = {
        "image.cls_token": own["cls_token"],
        "image.patch_embed.proj.weight": weight,
        "image.patch_embed.proj.bias": own["image_embedding/bias"] + kind,
        "words.words.weight": own["text_embedding/embedding"],
        "words.kind_D": own["encoder_text_type_embedding"].flatten(),
        "decoder.mask_MW": torch.cat([own[f"{m}_mask_embedding"][0] for m in ("image", "text")]),
        "decoder.kind_MW": torch.cat([own[f"decoder_{m}_type_embedding"][0] for m in ("image", "text")]),
    }
    linear = {"decoder.embed": "decoder_input_projection"}
    linear |= {f"decoder.heads.{a}": f"decoder_{b}_output/Dense_0" for a, b in (("image", "image"), ("report", "text"))}
    norms = {"image.norm": "encoder/LayerNorm_0", "decoder.norm": "decoder/LayerNorm_0"}
    for at, part, depth in (("image", "encoder", 2), ("decoder", "decoder", 1)):
        for i in range(depth):
            a, b = f"{at}.blocks.{i}", f"{part}/Block_{i}"
            norms |= {f"{a}.norm{n + 1}": f"{b}/LayerNorm_{n}" for n in range(2)}
            linear |= {f"{a}.attn.{ours}": f"{b}/Attention_0/Dense_{n}" for n, ours in enumerate(("qkv", "proj"))}
            linear |= {f"{a}.mlp.{fc}": f"{b}/TransformerMLP_0/{fc}" for fc in ("fc1", "fc2")}
    for ours, name in linear.items():
        found |= {f"{ours}.weight": own[f"{name}/kernel"], f"{ours}.bias": own[f"{name}/bias"]}
    for ours, name in norms.items():
        found |= {f"{ours}.weight": own[f"{name}/scale"], f"{ours}.bias": own[f"{name}/bias"]}
    return found


@pytest.mark.real
def test_published_code_on_the_same_weights(real_data, tmp_path, monkeypatch):
    gold = reports.pack(real_data, "m3ae_geng")
    gold.words = gold.words[:30]
    method = reports.method_of(
        gold,
        "m3ae_geng",
        tmp_path,
        conventions="published",
        image={"image_size": 32, "patch": 8, "dim": 32, "depth": 2, "heads": 4},
        report_length=8,
        text_mask_ratio=0.75,
        decoder_dim=16,
        decoder_depth=1,
        decoder_heads=4,
    )
    weights = published(gold)
    own = {n for n, _ in method.named_parameters()}
    assert own == set(weights)
    reports.load(method, weights | {n: v for n, v in method.state_dict().items() if n not in own}, lambda n: n)
    gold.equal(sincos_2d(4, 4, 32)[None], "pos2d_emb")
    gold.equal(sincos(torch.arange(8), 32)[None], "pos1d_emb")
    x = gold.normal("input.image", (3, 32, 32, 3)).permute(0, 3, 1, 2)
    monkeypatch.setattr(method, "pixels", lambda image: x)
    ids = gold["input.text"]
    noise: dict[str, Any] = {
        key: torch.from_numpy(gold.rule.uniform(f"input.noise.{name}", (n,))).expand(3, -1)
        for key, name, n in (("noise", "image", 16), ("report_noise", "text", 8))
    }
    data = reports.batch_of(ids, **noise)
    data["words"] = (ids != 0).sum(1)

    # Everything shown: what the published code calls its representation.
    every, real = torch.arange(8).expand(3, -1), ids != 0
    shown = torch.cat([method.image.embed(x), method.words(ids, every)], 1)
    tokens = method.image(shown, real_BL=torch.cat([torch.ones(3, 17, dtype=torch.bool), real], 1))
    gold.equal(tokens, "representation")
    gold.equal(method.image(x), "representation_image_only")

    _, made, masked, logits, hidden = method._restored(x, data)
    gold.equal(torch.zeros(3, 16).scatter(1, masked, 1.0), "image_mask")
    assert torch.equal(hidden, gold["text_mask"].bool() & real)
    output = gold["image_output"].gather(1, masked[..., None].expand(-1, -1, 192))
    torch.testing.assert_close(made, output, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, gold["text_logits"][hidden], rtol=1e-5, atol=1e-6)
    out = method(data)
    gold.equal(out.losses["image"], "loss.image")
    gold.equal(out.losses["report"], "loss.text")
    gold.equal(out.total, "loss.total_1_0.5")
    out.total.backward()
    found = {n: p.grad for n, p in method.named_parameters()}
    pairs = {
        "encoder/Block_0/Attention_0/Dense_0/kernel": found["image.blocks.0.attn.qkv.weight"],
        "encoder/Block_1/TransformerMLP_0/fc1/kernel": found["image.blocks.1.mlp.fc1.weight"],
        "text_embedding/embedding": found["words.words.weight"],
        "image_embedding/kernel": found["image.patch_embed.proj.weight"],
        "decoder/LayerNorm_0/scale": found["decoder.norm.weight"],
        "cls_token": found["image.cls_token"],
        "image_mask_embedding": found["decoder.mask_MW"][0],
        "text_mask_embedding": found["decoder.mask_MW"][1],
        "encoder_text_type_embedding": found["words.kind_D"],
        "decoder_text_output/Dense_0/kernel": found["decoder.heads.report.weight"],
    }
    assert {f"grad.{n}" for n in pairs} == {k for k in gold.numbers.files if k.startswith("grad.")}
    for name, grad in pairs.items():
        gold.equal(grad.double().norm(), f"grad.{name}", rtol=1e-4)
