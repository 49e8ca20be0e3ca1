"""GLoRIA's local loss word by word, its words and wholes, parts of any size, and the published code's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reports
import torch
from synthetic import batch, build, records

from models.contract import MethodError
from models.losses import local_contrastive
from models.losses.contrastive import compared, symmetric
from models.losses.local_contrastive import word_similarities, words_of
from models.registry import get_method


def sides(B=4, R=5, L=6, C=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    cells, words = (torch.randn(B, n, C, generator=g, dtype=torch.float64) for n in (R, L))
    return cells.float(), words.float(), torch.tensor([1, 6, 3, 2])[:B]


def literal(cells_RC, words_LC, scales=(4.0, 5.0), agg="sum", word_softmax=True):
    """How well one image and one text fit, cell by cell."""
    logits = [[float(v @ w) for w in words_LC] for v in cells_RC]
    if word_softmax:
        logits = [[math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in logits]
    total = 0.0
    for j, w in enumerate(words_LC):
        share = [math.exp(scales[0] * row[j]) for row in logits]
        found = sum(s / sum(share) * v for s, v in zip(share, cells_RC, strict=True))
        total += math.exp(scales[1] * float(found @ w / found.norm() / w.norm()))
    return math.log(total / (len(words_LC) if agg == "mean" else 1))


@pytest.mark.parametrize("agg", ["mean", "sum"])
@pytest.mark.parametrize("word_softmax", [True, False])
def test_every_word_looks_at_every_image(agg, word_softmax):
    cells, words, count = sides()
    found = word_similarities(cells, words, count, agg=agg, word_softmax=word_softmax)
    wanted = [
        [literal(v, w[:n], agg=agg, word_softmax=word_softmax) for w, n in zip(words, count, strict=True)]
        for v in cells
    ]
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def test_the_sum_favours_longer_texts_and_the_mean_does_not():
    cells, words, _ = sides(2)
    twice = torch.cat([words, words], 1)
    once, double = torch.tensor([6, 6]), torch.tensor([12, 12])
    plain = {a: word_similarities(cells, words, once, agg=a, word_softmax=False) for a in ("mean", "sum")}
    longer = {a: word_similarities(cells, twice, double, agg=a, word_softmax=False) for a in ("mean", "sum")}
    torch.testing.assert_close(longer["mean"], plain["mean"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(longer["sum"], plain["sum"] + math.log(2), rtol=1e-5, atol=1e-5)


def test_parts_of_any_size_are_the_whole_with_its_gradient():
    results = []
    for budget in (2**24, 1, 4 * 6 * 5 * 3):
        cells, words, count = (x.clone().requires_grad_(x.is_floating_point()) for x in sides())
        fit = word_similarities(cells, words, count, budget=budget)
        (fit * torch.arange(16.0).view(4, 4)).sum().backward()
        results.append((fit.detach(), cells.grad, words.grad))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_no_tensor_between_grows_with_the_square_of_the_batch(monkeypatch):
    """Of a part: images x texts of the part x cells x words stays within the budget, or is of one text."""
    seen = []
    part = local_contrastive._part

    def spy(cells, words, *rest):
        seen.append(len(cells) * len(words) * words.shape[1] * max(cells.shape[1:]))
        return part(cells, words, *rest)

    monkeypatch.setattr(local_contrastive, "_part", spy)
    for B in (8, 32):
        cells, words = torch.randn(B, 7, 4), torch.randn(B, 5, 4)
        word_similarities(cells, words, torch.full((B,), 5), budget=3000)
    assert max(seen) <= 3000
    assert len(seen) > 5


def test_rows_beyond_a_texts_words_are_not_looked_at():
    cells, words, count = sides()
    other = words.clone()
    other[0, 1:], other[3, 2:] = 9.0, -9.0
    assert torch.equal(word_similarities(cells, words, count), word_similarities(cells, other, count))


def test_words_are_the_sums_of_their_pieces():
    x = torch.arange(12.0).view(1, 6, 2)
    word = torch.tensor([[0, 1, 1, 2, 3, -1]])
    assert words_of(x, word)[0].tolist() == [[0, 1], [6, 8], [6, 7], [8, 9], [0, 0], [0, 0]]


def entered(**options):
    method = build("gloria", still=True, **options)
    method.enter("pretrain")
    return method.eval()


def test_words_compared_are_the_class_token_and_all_words_without_the_end():
    method = entered(text_unit="report")
    made = records(2)
    made[0].fields["report"], made[1].fields["report"] = "No effusion", "No zzz effusion zzz"
    data = batch(method, made)
    words, count = method._words(data)
    assert count.tolist() == [3, 5]
    published = entered(conventions="published")
    published.load_state_dict(method.state_dict())
    unknown = int((data["report"][1] == method.tokens.unk).sum())
    assert published._words(data)[1].tolist() == [3, 5 - unknown]
    assert unknown > 0
    hidden = method.text(data["report"].long(), data["report"] != 0, last=2)["hidden"]
    torch.testing.assert_close(words[0, 0], sum(h[0, 0] for h in hidden))


def test_losses_are_both_comparisons_added():
    method = entered(same_text="negative", image={"cls_token": True})
    data = batch(method, records(5))
    out = method(data)
    whole, cells = method._image_sides(data)
    words, count = method._words(data)
    v, u = method.global_proj(whole), words.mean(1)
    S = torch.stack([torch.stack([10 * (a @ b) / a.norm() / b.norm() for b in u]) for a in v])
    to = torch.arange(5)
    ce = torch.nn.functional.cross_entropy
    assert out.losses["global"].item() == pytest.approx((ce(S, to) + ce(S.T, to)).item(), rel=1e-4)
    fit = 10 * torch.tensor(
        [[literal(c.detach(), w[:n].detach(), agg="mean") for w, n in zip(words, count, strict=True)] for c in cells]
    )
    assert out.losses["local"].item() == pytest.approx((ce(fit, to) + ce(fit.T, to)).item(), rel=1e-4)
    assert out.total.item() == pytest.approx(sum(v.item() for v in out.losses.values()), rel=1e-6)
    alone = entered(local_weight=0.0)
    assert set(alone(batch(alone, records(4))).losses) == {"global"}
    assert not alone.local_proj.weight.requires_grad


def test_the_papers_power_divides_the_logarithm():
    made = records(5)
    data = batch(entered(), made)
    by_power = entered(word_power=True)(data).losses["local"].item()
    assert by_power == pytest.approx(entered(logit_scale=2.0)(data).losses["local"].item(), rel=1e-5)
    assert by_power != pytest.approx(entered()(data).losses["local"].item(), rel=1e-2)
    with pytest.raises(MethodError, match=r"contradicts method\.word_power=True"):
        entered(conventions="published", word_power=True)


def test_cells_of_a_convolutional_network_are_its_last_map_but_one():
    method = entered(image={"kind": "resnet", "name": "resnet10t", "image_size": 64}, crop_size=48)
    data = batch(method, records(2))
    assert data["image"].shape[1:3] == (48, 48)
    x = method.tower_input(data)
    assert x.shape[2:] == (64, 64)
    whole, cells = method._image_sides(data)
    maps = method.image(x)
    assert cells.shape[1] == 16
    torch.testing.assert_close(whole, maps[-1].mean((2, 3)))
    torch.testing.assert_close(cells[:, 5], method.local_proj(maps[-2][:, :, 1, 1]))
    assert method.image_view() is None


def test_cells_of_an_earlier_block():
    a, b = (entered(local_layer=n) for n in (1, 2))
    data = batch(a, records(2))
    assert not torch.allclose(a._image_sides(data)[1], b._image_sides(data)[1], atol=1e-4)
    torch.testing.assert_close(b._image_sides(data)[1], entered()._image_sides(data)[1])


def test_options_that_do_not_go_together_are_told_at_once():
    with pytest.raises(MethodError) as raised:
        get_method("gloria").Options.parse(
            {"global_weight": 0, "local_weight": 0, "last_layers": 9, "text": {"depth": 4}, "local_layer": 3}
        )
    told = "\n".join(raised.value.problems)
    for part in ("nothing is learned", "method.last_layers: 9", "image.kind=resnet has no blocks"):
        assert part in told


def test_texts_of_one_word_and_of_unknown_words_alone_have_finite_losses():
    method = entered(text_unit="report", clean="none", conventions="recommended")
    made = records(4)
    for record, text in zip(made, ("x", "zzz qqq", "No effusion " * 30, "."), strict=True):
        record.fields["report"] = text
    out = method(batch(method, made))
    out.total.backward()
    assert out.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


# ------------------------------------------------------------------------------------------------------- the published code


@pytest.mark.real
def test_published_code_on_the_same_weights(real_data, tmp_path, monkeypatch):
    gold = reports.pack(real_data, "gloria")
    method = reports.method_of(
        gold,
        "gloria",
        tmp_path,
        conventions="published",
        image={"kind": "vit", "image_size": 32, "patch": 8, "dim": 48, "depth": 1, "heads": 4},
        text={"dim": 32, "depth": 5, "heads": 4, "inner": 64, "places": 24, "dropout": 0.0},
    ).eval()
    method.local_proj = torch.nn.Linear(24, 32, bias=False)
    reports.load(method.text, gold.weights("text_encoder"), lambda n: f"model.{n}")
    image = gold.weights("img_encoder")
    reports.load(method.global_proj, image, lambda n: f"global_embedder.{n}")
    reports.load(method.local_proj, image, lambda n: f"local_embedder.{n}")
    whole, cells = gold.normal("input.global_features", (4, 48)), gold.normal("input.local_features", (4, 24, 3, 5))
    cells_BRE = method.local_proj(cells.flatten(2).transpose(1, 2))
    monkeypatch.setattr(method, "_image_sides", lambda batch: (whole, cells_BRE))
    ids = gold["input.caption_ids"]
    word = torch.stack([torch.from_numpy(method.tokens.word_of_token(i.numpy())) for i in ids])
    data = reports.batch_of(ids, word=word)
    words, count = method._words(data)
    gold.equal(words.transpose(1, 2), "text.word_embeddings")
    gold.equal(words.mean(1), "text.sent_embedding")
    gold.equal(method.global_proj(whole), "image.global_embedding")
    assert count.tolist() == gold["cap_lens"].tolist()
    fit = word_similarities(cells_BRE, words, count, agg="sum")
    gold.equal(fit, "local_similarity_BxB_before_temp3")
    ce, to = torch.nn.functional.cross_entropy, torch.arange(4)
    for agg, end in (("sum", ""), ("mean", "_agg_mean")):
        fit = 10 * word_similarities(cells_BRE, words, count, agg=agg)
        gold.equal(ce(fit, to), f"loss.local0{end}")
        gold.equal(ce(fit.T, to), f"loss.local1{end}")
    out = method(data)
    gold.equal(out.total, "loss.total")
    out.total.backward()
    found = {f"text_encoder.model.{n}": p.grad for n, p in method.text.named_parameters()}
    found |= {f"img_encoder.global_embedder.{n}": p.grad for n, p in method.global_proj.named_parameters()}
    found |= {"img_encoder.local_embedder.weight": method.local_proj.weight.grad}
    keys = [k for k in gold.numbers.files if k.startswith("grad.") and k.removeprefix("grad.") in found]
    assert len(keys) > 5
    for key in keys:
        gold.equal(found[key.removeprefix("grad.")].double().norm(), key, rtol=1e-4)


def test_similarities_keep_float32_in_16_bits():
    cells, words, count = sides()
    exact = word_similarities(cells.bfloat16().float(), words.bfloat16().float(), count)
    assert torch.equal(word_similarities(cells.bfloat16(), words.bfloat16(), count), exact)


def test_pairs_that_do_not_count_leave_the_local_loss():
    cells, words, count = sides()
    weight, patient, text = torch.tensor([1.0, 1, 0, 1]), torch.arange(4), torch.arange(4)
    keep = weight > 0
    fit = 10 * word_similarities(cells, words, count)
    whole = symmetric(compared(fit, weight, patient, "ignore", text))
    part = symmetric(compared(fit[keep][:, keep], weight[keep], patient[keep], "ignore", text[keep]))
    assert whole.item() == pytest.approx(part.item(), rel=1e-6)


def test_pictures():
    method = entered()
    made = method.pictures(batch(method, records(3)))
    assert made["images"].shape == (48, 144, 3)
    assert made["similarity"].dtype == np.uint8
