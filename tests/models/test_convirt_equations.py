"""ConVIRT's objective and pooling, literally; equal texts, sides, sections in `sample`; and both public codes' numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reports
import torch
from synthetic import batch, build, records, schema

from models.contract import MethodError
from models.losses.contrastive import all_pairs, chance, directed, symmetric
from models.registry import get_method


def vectors(B=5, C=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, C, generator=g), torch.randn(B, C, generator=g)


def literal_rows(v, u, tau, positives, candidates):
    """-log softmax of each row over its candidates, the mean over its positives."""
    s = [[(a @ b / a.norm() / b.norm()).item() / tau for b in u] for a in v]
    rows = []
    for i in range(len(v)):
        below = sum(math.exp(s[i][k]) for k in candidates[i])
        rows.append(-sum(math.log(math.exp(s[i][k]) / below) for k in positives[i]) / len(positives[i]))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("a", [0.0, 0.5, 0.75, 1.0])
def test_objective_weighs_the_directions(a):
    v, u = vectors()
    n = torch.arange(5)
    pairs = all_pairs(v, u, torch.tensor(1 / 0.1), torch.ones(5), n, "negative", n, "negative")
    one, everyone = [[i] for i in range(5)], [range(5)] * 5
    wanted = a * literal_rows(v, u, 0.1, one, everyone) + (1 - a) * literal_rows(u, v, 0.1, one, everyone)
    assert float(directed(pairs, a)) == pytest.approx(wanted, rel=1e-5)
    if a == 0.5:
        assert torch.equal(directed(pairs, a), symmetric(pairs))


def test_equal_texts_are_left_out_or_positives_or_negatives():
    v, u = vectors(4)
    text = torch.tensor([3, 3, 8, 9])
    left = [[0, 2, 3], [1, 2, 3], range(4), range(4)]
    shared = [[0, 1], [0, 1], [2], [3]]
    one, everyone = [[i] for i in range(4)], [range(4)] * 4
    for rule, positives, candidates in (
        ("ignore", one, left),
        ("positive", shared, everyone),
        ("negative", one, everyone),
    ):
        pairs = all_pairs(v, u, torch.tensor(5.0), torch.ones(4), torch.arange(4), "ignore", text, rule)
        wanted = (literal_rows(v, u, 0.2, positives, candidates) + literal_rows(u, v, 0.2, positives, candidates)) / 2
        assert float(symmetric(pairs)) == pytest.approx(wanted, rel=1e-5), rule


def entered(**options):
    method = build("convirt", still=True, **options)
    method.enter("pretrain")
    return method.eval()


@pytest.mark.parametrize("pool", ["max", "mean", "cls"])
def test_a_text_is_pooled_over_its_real_tokens(pool):
    method = entered(pool_text=pool)
    data = batch(method, records(4))
    found = method._text(data)
    for b, ids in enumerate(data["report"].long()):
        x_LE = method.text(ids[None, ids != 0], torch.ones(1, int((ids != 0).sum()), dtype=torch.bool))["hidden"][0][0]
        wanted = {"max": x_LE.max(0).values, "mean": x_LE.mean(0), "cls": x_LE[0]}[pool]
        torch.testing.assert_close(found[b], wanted, rtol=1e-4, atol=1e-5)


def test_loss_is_that_of_projected_pairs_and_its_chance():
    method = entered(image_to_text=0.75)
    data = batch(method, records(6))
    v, u, _ = method._projected(data)
    one, everyone = [[i] for i in range(6)], [range(6)] * 6
    sure = entered(same_text="negative")
    sure.load_state_dict(method.state_dict())
    tau = method.options.temperature
    wanted = 0.75 * literal_rows(v, u, tau, one, everyone) + 0.25 * literal_rows(u, v, tau, one, everyone)
    assert sure(data).losses["contrastive"].item() == pytest.approx(wanted, rel=1e-4)
    assert sure.chance(6)["contrastive"] == pytest.approx(math.log(6))
    summed = entered(reduction="sum", same_text="negative")
    assert summed.chance(6)["contrastive"] == pytest.approx(2 * math.log(6))
    assert summed(data).diagnostics["contrastive_chance"].item() == pytest.approx(2 * math.log(6), rel=1e-5)
    same = torch.ones(6, 3)
    pairs = all_pairs(same, same, torch.tensor(1.0), torch.ones(6), torch.arange(6))
    assert directed(pairs, 0.75).item() == pytest.approx(chance(pairs).item(), rel=1e-5)


def test_heads_are_two_linear_layers_with_a_relu_between():
    method = entered()
    x = torch.randn(3, method.image.width)
    first, _, last = method.image_head.layers
    wanted = torch.stack([last.weight @ (first.weight @ v + first.bias).clamp_min(0) + last.bias for v in x])
    torch.testing.assert_close(method.image_head(x), wanted)


# ------------------------------------------------------------------------------------------------------------------ texts


def read(method, text, seed=0):
    record = records(1)[0]
    record.fields["report"] = text
    return method.sample(record, np.random.default_rng(seed))


def words_of(method, sample):
    known = schema().fields["report"].vocabulary
    special = (method.tokens.pad, method.tokens.cls, method.tokens.sep)
    return "".join(known[i].removeprefix("##") for i in sample.arrays["report"] if i not in special)


def test_a_visit_reads_one_sentence_or_all():
    text = "There is a small round opacity. No effusion."
    seen = {words_of(m := entered(), read(m, text, s)) for s in range(20)}
    assert seen == {"thereisasmallroundopacity", "noeffusion"}
    whole = entered(text_unit="report")
    assert words_of(whole, read(whole, text)) == "thereisasmallroundopacitynoeffusion"


def test_a_report_without_the_section_or_without_words_has_no_text():
    method = entered(sections="impression")
    assert not read(method, "The lobe is small.").present["report"]
    assert read(method, "FINDINGS: x y.\nIMPRESSION: No effusion.").present["report"]
    few = entered(min_words=3)
    assert not read(few, "No effusion.").present["report"]
    made = records(4)
    for record in made:
        record.fields["report"] = "The lobe is small."
    out = method(batch(method, made))
    assert out.diagnostics["report_empty"] == 1
    assert out.losses["contrastive"] == 0


def test_what_a_report_lacks_is_told_with_its_remedy():
    record = records(1)[0]

    def untold(text, **options):
        record.fields["report"] = text
        return entered(**options).untold(record)

    assert untold("No effusion.") == untold("IMPRESSION: No effusion.", sections="impression") == ""
    assert "give method.sections=whole" in untold("No effusion.", sections="impression")
    assert "give method.min_words=1" in untold("No effusion.", min_words=3)
    assert "is not empty" in untold(" \n")
    assert "give method.tokenizer=null" in untold("Qqq zzz qqq zzz.")


def test_sides_follow_the_image():
    method = entered(flip="swap", text_unit="report", crop_scale=(1.0, 1.0), rotate=0.0, brightness=0.0)
    text = "Opacity in the left upper lobe."
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32] = 200
    for seed in range(8):
        record = records(1)[0]
        record.fields |= {"image": image, "report": text}
        made = method.sample(record, np.random.default_rng(seed))
        left_is_bright = made.arrays["image"][:, :16].mean() > made.arrays["image"][:, -16:].mean()
        assert ("left" in words_of(method, made)) == left_is_bright
    plain = entered(flip=False)
    still = [read(plain, text, s) for s in range(8)]
    assert all("left" in words_of(plain, s) for s in still)


def test_texts_that_are_cut_are_counted():
    method = entered(report_length=4, text_unit="report")
    assert method(batch(method, records(4))).diagnostics["report_cut"] == 1


def test_frozen_layers_keep_their_weights():
    method = entered(text={"freeze_layers": 1})
    still = {n for n, p in method.named_parameters() if not p.requires_grad}
    assert still == {
        n for n, _ in method.named_parameters() if n.startswith(("text.embeddings.", "text.encoder.layer.0."))
    }
    fixed = entered(train_text=False)
    assert {n.split(".")[0] for n, p in fixed.named_parameters() if p.requires_grad} == {"image", "image_head"}


def test_weights_of_another_vocabulary_are_refused():
    method, other = entered(), entered()
    state = other.state_dict()
    state["tokenizer_sha256"] = torch.zeros(32, dtype=torch.uint8)
    with pytest.raises(MethodError, match="the weights belong to the tokenizer 000000000000"):
        method.load_state_dict(state)


def test_published_conventions_set_their_keys_and_refuse_others():
    Options = get_method("convirt").Options
    assert Options.parse({"conventions": "published"}).pool_text == "mean"
    with pytest.raises(MethodError, match=r"contradicts method\.pool_text=max \(theirs: mean\)"):
        Options.parse({"conventions": "published", "pool_text": "max"})


# ------------------------------------------------------------------------------------------------------ the published codes


@pytest.mark.real
def test_published_reimplementation_on_the_same_weights(real_data, tmp_path, monkeypatch):
    gold = reports.pack(real_data, "convirt_unofficial")
    v, u = (gold.normal(f"input.{n}", (6, 32)).requires_grad_() for n in "vu")
    for a in (0.75, 0.5, 1.0, 0.0):
        pairs = all_pairs(v, u, torch.tensor(10.0), torch.ones(6), torch.arange(6))
        gold.equal(directed(pairs, a), f"rule.loss.alpha{a}")
        if a == 0.75:
            directed(pairs, a).backward()
            gold.equal(v.grad, "rule.grad.v", rtol=1e-4)
            gold.equal(u.grad, "rule.grad.u", rtol=1e-4)
    method = reports.method_of(
        gold,
        "convirt",
        tmp_path,
        conventions="published",
        image={"kind": "resnet", "name": "resnet18", "image_size": 64},
        text={"dim": 768, "depth": 2, "heads": 12, "inner": 64, "places": 24},
        project=32,
    ).eval()
    reports.load(method, gold.weights("model"), unofficial)
    monkeypatch.setattr(method, "tower_input", lambda batch: gold.normal("input.image", (4, 3, 64, 64)))
    data = reports.batch_of(gold["input.ids"])
    image_BC, text_BC, pooled_BD = method._projected(data)
    gold.equal(pooled_BD, "image.hidden")
    gold.equal(image_BC, "image.projection")
    gold.equal(text_BC, "text.projection")
    gold.equal(method._text(data), "text.mean_pooled")
    gold.equal(method(data).total, "loss.total")
    method(data).total.backward()
    found = {unofficial(n): p.grad for n, p in method.named_parameters() if p.grad is not None}
    assert not [n for n in found if n.startswith("bert")]
    checked = [k for k in gold.numbers.files if k.startswith("grad.") and float(gold[k]) > 0]
    assert checked
    for key in checked:
        gold.equal(found[key.removeprefix("grad.")].double().norm(), key, rtol=1e-4)


RES = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
HEADS = {
    "image_head.layers.0": "res_l1",
    "image_head.layers.2": "res_l2",
    "text_head.layers.0": "bert_l1",
    "text_head.layers.2": "bert_l2",
}


def unofficial(name: str) -> str:
    head, _, leaf = name.rpartition(".")
    if head in HEADS:
        return f"{HEADS[head]}.{leaf}"
    if name.startswith("text."):
        return f"bert_model.{name.removeprefix('text.')}"
    _, _, part, rest = name.split(".", 3)
    return f"res_features.{RES[part]}.{rest}"


@pytest.mark.real
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_later_code_on_the_same_weights(real_data, tmp_path, monkeypatch, mode):
    gold = reports.pack(real_data, "convirt_mgca")
    method = reports.method_of(
        gold,
        "convirt",
        tmp_path,
        image={"kind": "vit", "image_size": 32, "patch": 8, "dim": 32, "depth": 2, "heads": 4, "positions": "learned"},
        text={"dim": 32, "depth": 2, "heads": 4, "inner": 64, "places": 24, "dropout": 0.0, "positions": "none"},
        pool_text="cls",
        hidden=48,
        project=16,
        head_norm="batch",
        temperature=0.07,
        reduction="sum",
    )
    weights = gold.weights("vit_base")
    weights["segment"] = torch.zeros(2, 32)
    for side in ("img", "text"):
        # A bias before a batch norm does nothing but move its running mean.
        for linear, norm in ((0, 1), (3, 4)):
            at = f"{side}_encoder.global_embed.head"
            weights[f"{at}.{norm}.running_mean"] -= weights[f"{at}.{linear}.bias"]
    reports.load(method, weights, later)
    method.train(mode == "train")
    monkeypatch.setattr(method, "tower_input", lambda batch: gold.normal("input.image", (4, 3, 32, 32)))
    data = reports.batch_of(gold["input.caption_ids"])
    rtol = 1e-4 if mode == "train" else 1e-5
    projected = method._projected(data)
    for x, key in zip(projected, ("img_emb", "sent_emb"), strict=False):
        gold.equal(torch.nn.functional.normalize(x, dim=-1), f"{mode}.{key}", rtol=rtol)
    reports.load(method, weights, later)
    out = method(data)
    gold.equal(out.total, f"{mode}.loss.total", rtol=rtol)
    out.total.backward()
    found = {later(n): p.grad for n, p in method.named_parameters()}
    keys = [k for k in gold.numbers.files if k.startswith(f"{mode}.grad.")]
    assert len(keys) == 4
    for key in keys:
        gold.equal(found[key.removeprefix(f"{mode}.grad.")].double().norm(), key, rtol=1e-4)


def later(name: str) -> str:
    """The later code's name of one of ours."""
    if name == "text.embeddings.token_type_embeddings.weight":
        return "segment"
    side, _, rest = name.partition(".")
    if side in ("image_head", "text_head"):
        return f"{'img' if side == 'image_head' else 'text'}_encoder.global_embed.{rest.replace('layers', 'head')}"
    return f"{'img' if side == 'image' else side}_encoder.model.{rest}"
