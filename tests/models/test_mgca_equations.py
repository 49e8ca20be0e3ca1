"""MGCA: words, their shares, both alignments and the prototypes, written out; options and bad input; the published code's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reports
import torch
from synthetic import batch, build, records
from torch.nn.functional import cross_entropy, normalize

from models.contract import MethodError
from models.heads.projection import ProjectionHead
from models.layers.batch_norm import counted
from models.losses.prototypes import Prototypes, codes
from models.losses.token_alignment import align, clipped
from models.registry import get_method


def entered(**options):
    method = build("mgca", still=True, **options)
    method.enter("pretrain")
    return method.eval()


def read(method, *texts):
    made = records(len(texts))
    for record, text in zip(made, texts, strict=True):
        record.fields["report"] = text
    return batch(method, made)


# ------------------------------------------------------------------------------------------------------------------ parts


def test_shares_are_cut_at_their_own_quantiles():
    share = torch.tensor([[0.0, 5, 1, 2, 3, 4, 0], [0.0, 0, 0, 7, 0, 0, 0], [0.0] * 7])
    found = clipped(share)
    cut = torch.tensor([4.6, 1.4, 2, 3, 4])
    torch.testing.assert_close(found[0, 1:6], cut / cut.sum())
    assert found[0, [0, 6]].tolist() == [0, 0]
    assert found[1].tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert found[2].tolist() == [0] * 7


def sides(seed=0):
    g = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 3, 5, generator=g), torch.randn(2, 4, 5, generator=g)
    real = torch.tensor([[True, True, True], [True, True, False]])
    share = torch.rand(2, 3, generator=g) * real
    return a, real, share, b, torch.ones(2, 4, dtype=torch.bool)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("everywhere", [True, False])
def test_padding_is_an_answer_and_what_is_found_keeps_its_length_only_if_asked_for(normalise, everywhere):
    a, real, share, b, all_b = sides()
    found = align(a, real, share, b, all_b, torch.ones(2), 0.3, normalise, everywhere)
    wanted = 0.0
    for i, n in enumerate((3, 3 if everywhere else 2)):
        x, y = normalize(a[i, :n].double(), dim=-1), normalize(b[i].double(), dim=-1)
        o = (x @ y.T / 0.3).softmax(1) @ y
        o = normalize(o, dim=-1) if normalise else o
        s, to = x @ o.T / 0.3, torch.arange(n)
        rows, columns = (cross_entropy(m, to, reduction="none") for m in (s, s.T))
        wanted += float(((rows + columns) / 2 * share[i, :n]).sum()) / 2
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_prototypes_that_stand_still_have_a_gradient_of_nothing():
    torch.manual_seed(0)
    prototypes, x = Prototypes(4, 3), torch.randn(5, 4, requires_grad=True)
    moving, still = prototypes(x), prototypes(x, still=True)
    torch.testing.assert_close(still, moving)
    still.sum().backward()
    assert prototypes.weight_KC.grad.abs().max() == 0
    assert x.grad.abs().max() > 0


def test_prototypes_stand_still_for_the_first_share_of_the_updates():
    method = entered(prototype_wait=0.25)
    data = batch(method, records(4))
    for done, moves in ((0.0, False), (0.24, False), (0.25, True), (1.0, True)):
        method.at(done)
        method.zero_grad()
        method(data).total.backward()
        assert (float(method.prototypes.weight_KC.grad.abs().max()) > 0) == moves


def test_the_class_row_is_the_last_blocks_attention():
    method = entered()
    x = method.tower_input(batch(method, records(2)))
    tokens, row = method.image.tokens_and_class_row(x)
    torch.testing.assert_close(tokens, method.image.tokens(x))
    seen = []
    last = method.image.blocks[-1]
    hook = last.norm1.register_forward_hook(lambda m, given, out: seen.append(out))
    method.image.tokens(x)
    hook.remove()
    q, k, _ = last.attn.heads_of(seen[0])
    wanted = torch.stack(
        [
            torch.stack([(q[i, h, 0] @ k[i, h].T / math.sqrt(q.shape[-1])).softmax(0) for h in range(4)]).mean(0)
            for i in range(2)
        ]
    )
    torch.testing.assert_close(row, wanted[:, 1:])


def test_words_are_sums_of_pieces_without_the_class_token_and_count_by_its_attention():
    method = entered()
    data = read(method, "No effusion.", "There is a small round opacity in the left upper lobe.")
    text, word, share, there = method._text_side(data)
    ids = data["report"].long()
    made = method.text(ids, ids != 0, weights=True)
    torch.testing.assert_close(text, made["hidden"][-1][:, 0])
    assert there.sum(1).tolist() == data["word"].amax(1).tolist()
    n = int(there[0].sum())
    row = made["weights"][0, :, 0].mean(0)
    pieces = [[t for t, w in enumerate(data["word"][0].tolist()) if w == k] for k in range(1, n + 1)]
    for k, at in enumerate(pieces):
        torch.testing.assert_close(word[0, k], made["hidden"][-1][0, at].sum(0))
    raw = torch.stack([row[at].sum() for at in pieces]).detach()
    torch.testing.assert_close(share[0, :n], clipped(raw[None])[0])
    shifted = entered(attention_shift=1)
    shifted.load_state_dict(method.state_dict())
    behind = torch.stack([sum(row[t + 1] for t in at) for at in pieces]).detach()
    assert behind[-1] == 0
    torch.testing.assert_close(shifted._text_side(data)[2][0, :n], clipped(behind[None])[0])


def test_padding_is_in_the_statistics_of_words_only_if_asked_for():
    for asked in (False, True):
        method = entered(norm_padding=asked).train()
        s = method._sides(read(method, "No effusion.", "There is a small round opacity."))
        weight = torch.ones(2)
        method.word_head.train()
        found = method._parts(s, weight)[1]
        mask = torch.ones_like(s.there_BW) if asked else s.there_BW
        with counted(None):
            wanted = method.word_head(s.word_BWE[mask])
        torch.testing.assert_close(found[mask], wanted, rtol=1e-4, atol=1e-5)


def test_the_total_is_the_weighted_sum_and_a_term_of_weight_0_is_not_there():
    method = entered(same_text="negative")
    data = batch(method, records(6))
    out = method(data)
    s = method._sides(data)
    v, u = (normalize(x, dim=-1) for x in method._wholes(s, torch.ones(6)))
    S, to = v @ u.T / 0.07, torch.arange(6)
    assert out.losses["contrastive"].item() == pytest.approx(
        (cross_entropy(S, to) + cross_entropy(S.T, to)).item(), rel=1e-4
    )
    wanted = out.losses["contrastive"] + 0.7 * out.losses["local"] + 0.5 * out.losses["prototype"]
    torch.testing.assert_close(out.total, wanted)
    alone = entered(local_weight=0.0, prototype_weight=0.0)
    assert list(alone(batch(alone, records(4))).losses) == ["contrastive"]
    assert list(alone.chance(4)) == ["contrastive"]


def test_parts_of_a_convolutional_network_are_its_last_map_but_one_and_count_alike():
    method = entered(image={"kind": "resnet", "name": "resnet10t", "image_size": 64})
    data = batch(method, records(2))
    whole, patch, share = method._image_side(data)
    maps = method.image(method.tower_input(data))
    torch.testing.assert_close(whole, maps[-1].mean((2, 3)))
    torch.testing.assert_close(patch[:, 5], maps[-2][:, :, 1, 1])
    assert share.tolist() == [[1 / 16] * 16] * 2
    assert method(data).total.isfinite()


def test_a_transformer_without_a_class_token_weighs_patches_alike():
    method = entered(image={"cls_token": False})
    whole, patch, share = method._image_side(batch(method, records(2)))
    torch.testing.assert_close(whole, patch.mean(1))
    assert torch.equal(share, torch.full_like(share, 1 / patch.shape[1]))


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("conventions", ["recommended", "published"])
def test_texts_of_one_word_of_unknown_words_and_of_full_length_have_finite_losses(conventions):
    method = entered(conventions=conventions).train()
    out = method(read(method, "x y", "zzz qqq", "No effusion " * 30, "There is a small opacity."))
    out.total.backward()
    assert out.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_reports_without_words_change_no_term():
    method = entered()
    method.train()
    few = read(method, "No effusion.", "There is a small opacity.", "A large lobe.")
    more = read(method, "No effusion.", "There is a small opacity.", "A large lobe.", ". .", "")
    a, b = method(few), method(more)
    for term, value in a.losses.items():
        torch.testing.assert_close(b.losses[term], value, rtol=1e-4, atol=1e-5, msg=term)
    assert b.diagnostics["report_empty"].item() == pytest.approx(0.4)


def test_a_batch_without_any_text_costs_nothing():
    method = entered()
    out = method(read(method, "", ""))
    assert out.total == 0
    out.total.backward()


def test_published_conventions_set_their_keys_and_refuse_others():
    Options = get_method("mgca").Options
    assert Options.parse({"conventions": "published"}).attention_shift == 1
    with pytest.raises(MethodError, match=r"contradicts method\.word_classes=real \(theirs: all\)"):
        Options.parse({"conventions": "published", "word_classes": "real"})


def test_pictures():
    method = entered()
    made = method.pictures(batch(method, records(3)))
    assert made["similarity"].dtype == np.uint8


# ----------------------------------------------------------------------------------------------------- the published code

HEADS = {
    "image_head": "img_encoder_q.global_embed",
    "patch_head": "img_encoder_q.local_embed",
    "text_head": "text_encoder_q.global_embed",
    "word_head": "text_encoder_q.local_embed",
}


IMAGES = {
    "vit_base": {
        "kind": "vit",
        "image_size": 32,
        "patch": 8,
        "dim": 32,
        "depth": 2,
        "heads": 4,
        "positions": "learned",
    },
    "resnet_50": {"kind": "resnet", "name": "resnet10t", "image_size": 32},
}


def theirs(name: str) -> str:
    """The published name of one of ours."""
    if name == "text.embeddings.token_type_embeddings.weight":
        return "segment"
    part, _, rest = name.partition(".")
    if part in HEADS:
        return f"{HEADS[part]}.{rest.replace('layers', 'head')}"
    if part == "prototypes":
        return "prototype_layer.weight"
    return f"{'img' if part == 'image' else part}_encoder_q.model.{rest}"


def published(gold, form: str, folder):
    """The method with the pack's weights."""
    method = reports.method_of(
        gold,
        "mgca",
        folder,
        conventions="published",
        image=IMAGES[form],
        text={"dim": 32, "depth": 2, "heads": 4, "inner": 64, "places": 24, "dropout": 0.0, "positions": "none"},
        hidden=48,
        project=16,
        prototypes=10,
    )
    weights = gold.weights(form)
    weights["segment"] = torch.zeros(2, 32)
    for head in HEADS.values():
        # A bias before a batch norm does nothing but move its running mean.
        for linear, norm in ((0, 1), (3, 4)):
            weights[f"{head}.head.{norm}.running_mean"] -= weights[f"{head}.head.{linear}.bias"]
    # They are renormalised in place before use.
    weights["prototype_layer.weight"] = normalize(weights["prototype_layer.weight"], dim=-1)
    if form == "resnet_50":
        # The pack begins behind the network, with a whole of 32 and cells of 24.
        method.image_head, method.patch_head = (ProjectionHead(w, 48, 16, 2, "batch", "plain") for w in (32, 24))
        weights |= {theirs(n): v for n, v in method.state_dict().items() if n.startswith("image.")}
    reports.load(method, weights, theirs)
    return method


def test_codes_are_three_rounds_of_sharing_out():
    score = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    q = [[math.exp(float(s) / 0.05 - float(score.max()) / 0.05) for s in row] for row in score[:3]]
    for _ in range(3):
        down = [sum(q[g][k] for g in range(3)) for k in range(3)]
        q = [[x / down[k] / 3 for k, x in enumerate(row)] for row in q]
        q = [[x / sum(row) / 3 for x in row] for row in q]
    wanted = torch.tensor([[3 * x for x in row] for row in q] + [[0.0] * 3])
    torch.testing.assert_close(codes(score, torch.tensor([True, True, True, False])), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.real
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("form", ["vit_base", "resnet_50"])
def test_published_code_on_the_same_weights(real_data, tmp_path, monkeypatch, form, mode):
    gold = reports.pack(real_data, "mgca")
    method = published(gold, form, tmp_path).train(mode == "train")
    ids = gold["input.caption_ids"]
    word = torch.stack([torch.from_numpy(method.tokens.word_of_token(i.numpy())) for i in ids])
    data = reports.batch_of(ids, word=word)
    # Their gradient does not see the renormalisation; ours is of the direction alone.
    prototypes = method.prototypes
    monkeypatch.setattr(prototypes, "forward", lambda x, still: normalize(x, dim=-1) @ prototypes.weight_KC.T)
    if form == "vit_base":
        monkeypatch.setattr(method, "tower_input", lambda batch: gold.normal("input.image", (4, 3, 32, 32)))
    else:
        whole, cells = gold.normal("input.global_features", (4, 32)), gold.normal("input.local_features", (4, 12, 24))
        monkeypatch.setattr(method, "_image_side", lambda batch: (whole, cells, torch.full((4, 12), 1 / 12)))
    out = method(data)
    rtol = 1e-4 if mode == "train" else 1e-5
    for ours, name in (("contrastive", "ita"), ("local", "local"), ("prototype", "proto")):
        gold.equal(out.losses[ours], f"{form}.{mode}.loss.{name}", rtol=rtol)
    gold.equal(out.total, f"{form}.{mode}.loss.total_1_0.7_0.5", rtol=rtol)
    out.total.backward()
    found = {theirs(n): p.grad for n, p in method.named_parameters() if p.grad is not None}
    keys = [k for k in gold.numbers.files if k.startswith(f"{form}.{mode}.grad.")]
    assert len(keys) >= 8
    for key in keys:
        gold.equal(found[key.removeprefix(f"{form}.{mode}.grad.")].double().norm(), key, rtol=1e-4)


@pytest.mark.real
def test_published_words_and_attention(real_data, tmp_path, monkeypatch):
    gold = reports.pack(real_data, "mgca")
    method = published(gold, "vit_base", tmp_path).eval()
    ids = gold["input.caption_ids"]
    word = torch.stack([torch.from_numpy(method.tokens.word_of_token(i.numpy())) for i in ids])
    monkeypatch.setattr(method, "tower_input", lambda batch: gold.normal("input.image", (4, 3, 32, 32)))
    s = method._sides(reports.batch_of(ids, word=word))
    gold.equal(s.text_BE, "eval.text.report_feature")
    gold.equal(s.word_BWE, "eval.text.word_features")
    assert torch.equal(s.there_BW, ~gold["eval.text.pad_mask"])
    torch.testing.assert_close(s.word_share_BW, clipped(gold["eval.text.word_attention"]), rtol=1e-5, atol=1e-6)
    gold.equal(s.image_BD, "eval.vit.cls")
    gold.equal(s.patch_BRD, "eval.vit.patches")
    row = gold["eval.vit.attention_map_last"][:, :, 0, 1:].mean(1)
    torch.testing.assert_close(s.patch_share_BR, clipped(row), rtol=1e-5, atol=1e-6)
    weight = torch.ones(4)
    for x, key in zip(
        (*method._wholes(s, weight), *method._parts(s, weight)), ("img", "report", "patch", "word"), strict=True
    ):
        gold.equal(normalize(x, dim=-1), f"eval.{key}_emb")
    scores = gold.normal("input.sinkhorn_scores", (7, 10)).tanh()
    gold.equal(codes(scores, torch.ones(7, dtype=torch.bool)), "sinkhorn.code")
