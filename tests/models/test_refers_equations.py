"""REFERS' fusion, decoder and comparison, literally; which images a study's views are; and the published code's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reports
import torch
from synthetic import batch, build, records

from models.contract import MethodError
from models.decoders.caption import CaptionDecoder, CaptionOptions, turned
from models.layers.view_fusion import ViewFusion
from models.losses.contrastive import all_pairs, directed
from models.registry import get_method

VIEWS = ("image", "image_2", "image_3")


def entered(**options):
    method = build("refers", still=True, **options)
    method.enter("pretrain")
    return method.eval()


def studies(counts=(1, 2, 3, 1, 2), grey=40):
    """Records with so many images, each of a shade of its own."""
    made = records(len(counts))
    for i, count in enumerate(counts):
        made[i].fields = {k: v for k, v in made[i].fields.items() if k not in VIEWS}
        for k in range(count):
            made[i].fields[VIEWS[k]] = np.full((64, 64, 3), grey * (k + 1) + i, np.uint8)
    return made


def shades(sample):
    return [int(sample.arrays[v].mean()) for v in VIEWS]


# ------------------------------------------------------------------------------------------------------------------ views


def plain(**options):
    return entered(brightness=0.0, rotate=0.0, blur=0.0, **options)


def test_what_is_there_is_taken_once_and_the_rest_is_told_absent():
    method = plain()
    for record, count in zip(studies(), (1, 2, 3, 1, 2), strict=True):
        made = method.sample(record, np.random.default_rng(0))
        assert [made.present[v] for v in VIEWS] == [k < count for k in range(3)]
        first = shades(made)[0]
        assert shades(made) == [first + 40 * k if k < count else 0 for k in range(3)]


def test_repeated_and_drawn_views_fill_all_three():
    two, three = studies()[1:3]
    repeat = plain(views="repeat").sample(two, np.random.default_rng(0))
    assert shades(repeat) == [41, 81, 41]
    assert all(repeat.present[v] for v in VIEWS)
    seen = {tuple(shades(plain(views="drawn").sample(three, np.random.default_rng(s)))) for s in range(200)}
    assert len(seen) == 27, "three draws with replacement from three"


def test_a_study_without_its_first_image_takes_part_by_the_others():
    made = studies((3, 3))
    del made[0].fields["image"]
    method = plain()
    one = method.sample(made[0], np.random.default_rng(0))
    assert shades(one) == [0, 80, 120]
    assert [one.present[v] for v in VIEWS] == [False, True, True]
    data = batch(method, made)
    assert method.weight(data).tolist() == [1, 1]
    before = method(data)
    data["image"][0] = 255
    torch.testing.assert_close(method(data).total, before.total)


@pytest.mark.parametrize("rule", ["together", "each"])
def test_words_follow_the_first_image_that_is_mirrored(rule):
    method = plain(flip="swap", flip_views=rule, crop_scale=(1.0, 1.0))
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, :32] = 200
    plain_ids = None
    mirrored = []
    for seed in range(16):
        record = studies((3,))[0]
        record.fields |= dict.fromkeys(VIEWS, half) | {"report": "Opacity in the left upper lobe."}
        made = method.sample(record, np.random.default_rng(seed))
        turned_V = [bool(made.arrays[v][:, :16].mean() < made.arrays[v][:, -16:].mean()) for v in VIEWS]
        mirrored.append(turned_V)
        if not turned_V[0]:
            plain_ids = made.arrays["report"] if plain_ids is None else plain_ids
            assert (made.arrays["report"] == plain_ids).all()
        elif plain_ids is not None:
            assert (made.arrays["report"] != plain_ids).any()
    assert any(m[0] for m in mirrored)
    assert any(len(set(m)) > 1 for m in mirrored) == (rule == "each")


def test_a_text_encoder_without_a_pooler_begins_it(tmp_path):
    """As BioViL's stage of reports alone leaves it."""
    method = build("refers")
    state = {n: v for n, v in method.text.state_dict().items() if not n.startswith("pooler.")}
    torch.save(state, tmp_path / "bert.bin")
    text = {"init": "file", "init_file": str(tmp_path / "bert.bin")}
    with pytest.raises(MethodError, match=r"give method\.text_pooler=new"):
        build("refers", text=text)
    begun = build("refers", seed=1, text=text, text_pooler="new").text
    assert all(torch.equal(begun.state_dict()[n], v) for n, v in state.items())


def test_views_that_are_not_there_say_nothing():
    """Whatever stands in the place of a missing image, and whoever else is in the batch."""
    method = entered()
    data = batch(method, studies())
    before = method(data)
    for view in VIEWS[1:]:
        data[view][~data.present[view]] = 255
    for name, value in method(data).losses.items():
        torch.testing.assert_close(value, before.losses[name], msg=name)
    ones = [method(batch(method, studies()[i : i + 1])) for i in range(5)]
    words = torch.tensor([float(o["counts"]["forward"]) for o in ones])
    each = torch.tensor([float(o.losses["forward"]) for o in ones])
    assert float(before.losses["forward"]) == pytest.approx(float((words * each).sum() / words.sum()), rel=1e-4)
    assert float(before.diagnostics["views"]) == pytest.approx(9 / 5)


# -------------------------------------------------------------------------------------------------------------- equations


def test_fusion_weighs_each_place_by_all_views():
    fusion, x = ViewFusion(4, 3), torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    there = torch.tensor([[True, True, True], [True, True, False]])
    found = fusion(x, there).unflatten(1, (3, 5))
    W, b = fusion.weigh.weight, fusion.weigh.bias
    for study in range(2):
        n = int(there[study].sum())
        for p in range(5):
            views = [x[study, v, p] * 3 / n if there[study, v] else torch.zeros(4) for v in range(3)]
            w = torch.sigmoid(W @ torch.cat(views) + b)
            for v in range(3):
                wanted = w[v] * x[study, v, p] if there[study, v] else torch.zeros(4)
                torch.testing.assert_close(found[study, v, p], wanted)


def decoder(both=True):
    torch.manual_seed(0)
    return CaptionDecoder(12, 6, 8, CaptionOptions(dim=8, heads=2, inner=16, dropout=0.0), both).eval()


def decoded(net, ids, length, image=None):
    image = torch.randn(len(ids), 3, 8, generator=torch.Generator().manual_seed(1)) if image is None else image
    return net(image, torch.ones(len(ids), 3, dtype=torch.bool), ids, length)


def test_a_word_is_told_by_those_before_it_alone():
    net, ids = decoder(), torch.tensor([[2, 5, 6, 7, 3, 0]])
    found, other = (decoded(net, i, torch.tensor([5])) for i in (ids, torch.tensor([[2, 5, 6, 9, 3, 0]])))
    assert torch.equal(found["forward"][0, :2], other["forward"][0, :2])
    assert (found["forward"][0, 2:4] != other["forward"][0, 2:4]).all()
    # From behind: the end, then word 3 (position 1 of the turned report).
    assert (found["backward"][0, :4] != other["backward"][0, :4]).all()
    assert found["forward"][0, 4] == found["backward"][0, 4] == 0
    far = decoded(net, ids, torch.tensor([5]), torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(5)))
    assert (far["forward"] != found["forward"])[0, :4].all(), "the image is looked at"


def test_reports_are_turned_within_their_length():
    ids = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 3, 0, 0, 0, 0]])
    assert turned(ids, torch.tensor([4, 2])).tolist() == [[3, 6, 5, 2, 0, 0], [3, 2, 0, 0, 0, 0]]


def test_at_chance_a_word_costs_the_logarithm_of_the_vocabulary():
    net = decoder()
    torch.nn.init.zeros_(net.word_VC)
    found = decoded(net, torch.tensor([[2, 5, 6, 3, 0, 0]]), torch.tensor([4]))
    assert found["forward"][0].tolist() == pytest.approx([math.log(12)] * 3 + [0, 0])
    method = entered()
    assert method.chance(8) == {
        "contrastive": math.log(8), "forward": math.log(method.tokens.rows), "backward": math.log(method.tokens.rows),
    }  # fmt: skip
    assert set(entered(direction="forward").chance(8)) == {"contrastive", "forward"}


def test_a_word_s_loss_is_the_mean_over_all_words_of_the_batch():
    method, data = entered(report_weight=0.5, contrast_weight=2.0), None
    data = batch(method, studies())
    out = method(data)
    tokens, there = method._views(data)
    nll = method.decoder(*method._fused(tokens, there), data["written"].long(), data["written_length"].long())
    for name, x in nll.items():
        scored = data["written"][:, 1:] != 0
        assert out.losses[name].item() == pytest.approx(x[scored].mean().item(), rel=1e-5)
    parts = out.losses
    wanted = 2.0 * parts["contrastive"] + 0.5 * (parts["forward"] + parts["backward"])
    assert out.total.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_text_to_image_may_count_without_gradient():
    g = torch.Generator().manual_seed(0)
    v, u = (torch.randn(5, 6, generator=g).requires_grad_() for _ in range(2))
    pairs = lambda: all_pairs(v, u, torch.tensor(10.0), torch.ones(5), torch.arange(5))  # noqa: E731
    full, half = entered()._contrast(pairs()), entered(text_to_image_grad=False)._contrast(pairs())
    assert half.item() == pytest.approx(full.item(), rel=1e-6)
    (wanted,) = torch.autograd.grad(0.75 * directed(pairs(), 1.0), v)
    torch.testing.assert_close(torch.autograd.grad(half, v)[0], wanted)
    assert (torch.autograd.grad(full, v)[0] - wanted).abs().max() > 1e-4


def test_a_report_that_is_cut_keeps_its_end_or_not():
    record = studies((1,))[0]
    for keep in (True, False):
        method = entered(report_length=6, keep_end=keep)
        made = method.sample(record, np.random.default_rng(0))
        assert (made.arrays["written"][-1] == method.tokens.sep) == keep
        assert made.arrays["report"][-1] == method.tokens.sep
        assert made.arrays["written_length"] == 6
    record.fields["report"] = "effusion"
    short, kept = (
        entered(report_length=24, keep_end=k).sample(record, np.random.default_rng(0)) for k in (False, True)
    )
    assert (short.arrays["written"] == kept.arrays["written"]).all()


def test_unknown_words_are_words_or_nothing():
    known, hidden = entered(), entered(unknown_words="nothing")
    hidden.load_state_dict(known.state_dict())
    data = batch(known, studies())
    data["written"][:, 2] = known.tokens.unk
    assert known(data)["counts"]["forward"] - hidden(data)["counts"]["forward"] == 5


def test_the_text_side_has_a_rate_of_its_own():
    groups = {g.name: g.lr_scale for g in entered(text_lr=0.1).param_groups()}
    assert groups == {"decay": 1.0, "decay_text": 0.1, "no_decay": 1.0, "no_decay_text": 0.1}


def test_published_conventions_set_their_keys_and_refuse_others():
    Options = get_method("refers").Options
    o = Options.parse({"conventions": "published"})
    assert (o.views, o.direction, o.text_to_image_grad, o.unknown_words, o.compared) == (
        "drawn", "forward", False, "nothing", "rank",
    )  # fmt: skip
    with pytest.raises(MethodError, match=r"contradicts method\.direction=both \(theirs: forward\)"):
        Options.parse({"conventions": "published", "direction": "both"})


# ----------------------------------------------------------------------------------------------------- the published code

PARTS = {
    "text.": "contrastive_bert.text_encoder.",
    "text_fc.": "contrastive_bert.fc.",
    "decoder.visual.": "textual.visual_projection.",
    "decoder.norm.": "textual.embedding.layer_norm.",
    "decoder.word_VC": "textual.embedding.words.weight",
    "decoder.position_LC": "textual.embedding.positions.weight",
    "decoder.bias_V": "textual.output.bias",
    "decoder.forwards.": "textual.transformer.layers.",
    "decoder.backwards.": "backward_textual.transformer.layers.",
}
LAYER = {
    "self_qkv.": "self_attn.in_proj_", "self_out.": "self_attn.out_proj.", "cross_q.": "multihead_attn.q_",
    "cross_kv.": "multihead_attn.kv_", "cross_out.": "multihead_attn.out_proj.",
}  # fmt: skip


def official(name: str) -> str:
    for mine, theirs in PARTS.items():
        if name.startswith(mine):
            name = theirs + name.removeprefix(mine)
            break
    for mine, theirs in LAYER.items():
        name = name.replace(f".{mine}", f".{theirs}")
    return name


def weights_of(gold, form):
    found = gold.weights("forward") | (
        {n: v for n, v in gold.weights(form).items() if n.startswith("backward_textual.transformer")}
    )
    for name in [n for n in found if "multihead_attn.in_proj" in n]:
        head, _, leaf = name.rpartition("in_proj_")
        found[f"{head}q_{leaf}"], found[f"{head}kv_{leaf}"] = found[name].split([32, 64])
    for leaf in ("weight", "bias"):
        found[f"fusion.weigh.{leaf}"] = torch.cat([found[f"fusion.fc{k}.{leaf}"] for k in (1, 2, 3)])
    return found


@pytest.mark.real
@pytest.mark.parametrize("form", ["forward", "bidirectional"])
def test_published_code_on_the_same_weights(real_data, tmp_path, monkeypatch, form):
    gold = reports.pack(real_data, "refers")
    method = reports.method_of(
        gold,
        "refers",
        tmp_path,
        image={"kind": "vit", "image_size": 32, "patch": 16, "dim": 768, "depth": 1, "heads": 12},
        text={"dim": 768, "depth": 1, "heads": 12, "inner": 64, "places": 24, "dropout": 0.0},
        direction="both" if form == "bidirectional" else "forward",
        text_to_image_grad=False,
    ).eval()
    small = CaptionOptions(dim=32, depth=1, heads=4, inner=64, dropout=0.0)
    method.decoder = CaptionDecoder(40, 10, 768, small, form == "bidirectional").eval()
    weights = weights_of(gold, form)
    for part in ("fusion", "decoder", "text", "text_fc"):
        reports.load(getattr(method, part), weights, lambda n, part=part: official(f"{part}.{n}"))
    views = torch.stack([gold.normal(f"input.view{k}", (4, 5, 768)) for k in (1, 2, 3)], 1)
    there = torch.ones(4, 3, dtype=torch.bool)
    monkeypatch.setattr(method, "_views", lambda batch: (views, there))
    ids, length = gold["input.caption_tokens"], gold["input.caption_lengths"]
    assert torch.equal(turned(ids, length), gold["input.noitpac_tokens"])
    data = reports.batch_of(gold["input.bert_ids"], written=ids, written_length=length)
    data.present.update(dict.fromkeys(VIEWS, data.present["image"]))
    fused, there_BM = method._fused(views, there)
    places = (views[:, :, 1:] + views[:, :, :1]).transpose(1, 2).flatten(2)
    for k in range(3):
        gold.equal(torch.sigmoid(method.fusion.weigh(places))[..., k : k + 1], f"fusion.weight{k + 1}")
    memory = method.decoder.visual(fused)
    gold.equal(method.decoder.scores(method.decoder.forwards, memory, there_BM, ids, length), "logits")
    gold.equal(method._text(data), "text_feature")
    out = method(data)
    gold.equal(out.losses["contrastive"], f"{form}.loss.contrastive_learning")
    gold.equal(out.losses["forward"], f"{form}.loss.captioning_forward")
    if form == "bidirectional":
        gold.equal(out.losses["backward"], f"{form}.loss.captioning_backward")
    gold.equal(out.total, f"{form}.loss.total")
    out.total.backward()
    checked = [k for k in gold.numbers.files if k.startswith(f"{form}.grad.")]
    assert len(checked) >= 9
    found = gradients(method)
    for key in checked:
        gold.equal(found[key.removeprefix(f"{form}.grad.")].double().norm(), key, rtol=1e-4)


def gradients(method) -> dict[str, torch.Tensor]:
    """By published names."""
    found = {official(n): p.grad for n, p in method.named_parameters() if p.grad is not None}
    for name in [n for n in found if "multihead_attn.q_" in n]:
        head, _, leaf = name.rpartition("q_")
        found[f"{head}in_proj_{leaf}"] = torch.cat([found[name], found[f"{head}kv_{leaf}"]])
    for leaf in ("weight", "bias"):
        for k in range(3):
            found[f"fusion.fc{k + 1}.{leaf}"] = found[f"fusion.weigh.{leaf}"][k : k + 1]
    return found


@pytest.mark.real
def test_the_comparison_alone(real_data):
    gold = reports.pack(real_data, "refers")
    v, u = (gold.normal(f"input.{n}", (6, 32)).requires_grad_() for n in "vu")
    method = entered(text_to_image_grad=False)
    loss = method._contrast(all_pairs(v, u, torch.tensor(10.0), torch.ones(6), torch.arange(6)))
    gold.equal(loss, "rule.loss")
    loss.backward()
    gold.equal(v.grad, "rule.grad.v", rtol=1e-4)
    gold.equal(u.grad, "rule.grad.u", rtol=1e-4)
