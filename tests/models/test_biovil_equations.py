"""BioViL: its comparison, sections that find each other, hidden words, written out; bad input; the published modules' numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reports
import torch
from synthetic import batch, build, records
from torch.nn.functional import cross_entropy, normalize

from models.contract import MethodError
from models.registry import get_method

BOTH = "FINDINGS: There is a small round opacity. No effusion.\nIMPRESSION: Small opacity."


def entered(stage: str = "pretrain", **options):
    method = build("biovil", still=True, **options)
    method.enter(stage)
    return method.eval()


def read(method, *texts, epoch=0):
    made = records(len(texts))
    for record, text in zip(made, texts, strict=True):
        record.fields["report"] = text
    return batch(method, made, epoch)


def test_images_and_texts_are_compared_and_hidden_words_predicted():
    method = entered(same_text="negative", mask_ratio=0.5)
    data = batch(method, records(6))
    out = method(data)
    tokens = method.image.tokens(method.tower_input(data))
    cells = torch.stack([torch.stack([method.image_head(c[None])[0] for c in t[1:]]) for t in tokens])
    ids = data["report"].long()
    u = method.text_head(method.text(ids, ids != 0)["hidden"][-1][:, 0])
    S, to = normalize(cells.mean(1), dim=-1) @ normalize(u, dim=-1).T / 0.5, torch.arange(6)
    wanted = (cross_entropy(S, to) + cross_entropy(S.T, to)) / 2
    assert out.losses["contrastive"].item() == pytest.approx(wanted.item(), rel=1e-4)
    x = method.text(ids.masked_fill(data["hidden"], method.tokens.mask), ids != 0)["hidden"][-1]
    each = []
    for b, place in data["hidden"].nonzero().tolist():
        h = method.masked.LayerNorm(torch.nn.functional.gelu(method.masked.dense(x[b, place])))
        scores = method.text.embeddings.word_embeddings.weight @ h + method.masked.bias
        each.append(-scores.log_softmax(0)[ids[b, place]])
    assert len(each) > 6
    assert out.losses["masked"].item() == pytest.approx((sum(each) / len(each)).item(), rel=1e-4)
    torch.testing.assert_close(out.total, out.losses["contrastive"] + 0.1 * out.losses["masked"])


def test_words_are_scored_by_the_table_that_they_are_looked_up_in():
    method = entered(mask_ratio=0.5)
    table = method.text.words
    x = torch.randn(3, table.embedding_dim)
    torch.testing.assert_close(table(x), x @ table.weight.T)
    assert torch.equal(table(torch.tensor([2, 1])), table.weight[[2, 1]])
    assert not [n for n, _ in method.masked.named_parameters() if "table" in n or "words" in n]


def test_whole_words_are_hidden_but_neither_ends_nor_padding():
    method = entered(mask_ratio=0.5)
    seen = 0
    for epoch in range(20):
        data = batch(method, records(4), epoch)
        word = torch.from_numpy(np.stack([method.tokens.word_of_token(i.numpy()) for i in data["report"]]))
        for hidden, of, ids in zip(data["hidden"], word, data["report"], strict=True):
            special = torch.isin(ids, torch.tensor([method.tokens.pad, method.tokens.cls, method.tokens.sep]))
            assert not (hidden & special).any()
            for w in range(1, int(of.max())):
                assert len(set(hidden[of == w].tolist())) == 1
            seen += int(hidden.sum())
    assert seen > 100


def test_findings_and_impression_of_a_report_find_each_other():
    method = entered("text", same_text="negative", shuffle_sentences=False)
    other = "FINDINGS: The lobe is large and irregular.\nIMPRESSION: Large opacity in the lower lobe."
    data = read(
        method, BOTH, other, "No effusion.", "IMPRESSION: No effusion.", "FINDINGS AND IMPRESSION: No effusion."
    )
    assert data["sections"].tolist() == [True, True, False, False, False]
    assert data.present["report"].all()
    out = method(data)
    a, b = (normalize(method._text(data[k][:2]), dim=-1) for k in ("findings", "impression"))
    S, to = a @ b.T / 0.5, torch.arange(2)
    wanted = (cross_entropy(S, to) + cross_entropy(S.T, to)) / 2
    assert out.losses["sections"].item() == pytest.approx(wanted.item(), rel=1e-4)
    assert out.diagnostics["sections_both"].item() == pytest.approx(0.4)
    assert "image" not in data


def test_sentences_of_a_section_come_in_any_order():
    method = entered("text")
    seen = {tuple(read(method, BOTH, epoch=e)["findings"][0].tolist()) for e in range(12)}
    assert len(seen) == 2
    still = entered("text", shuffle_sentences=False)
    assert len({tuple(read(still, BOTH, epoch=e)["findings"][0].tolist()) for e in range(12)}) == 1


def test_stages_and_what_each_trains(tmp_path):
    method = entered("text")
    assert [s.name for s in method.stages()] == ["text", "pretrain"]
    assert {n.split(".")[0] for n, p in method.named_parameters() if p.requires_grad} == {"text", "text_head", "masked"}
    assert [s.name for s in entered(text_stage="never").stages()] == ["pretrain"]
    frozen = entered("text", text={"freeze_layers": 1})
    assert frozen.text.words.weight.requires_grad
    frozen.enter("pretrain")
    assert not frozen.text.words.weight.requires_grad
    from safetensors.torch import save_file

    save_file(dict(method.text.state_dict()), str(tmp_path / "bert.safetensors"))
    loaded = entered(text={"init": "file", "init_file": str(tmp_path / "bert.safetensors")})
    assert [s.name for s in loaded.stages()] == ["pretrain"]
    assert torch.equal(loaded.text.words.weight, method.text.words.weight)


def test_pixels_from_0_to_1_as_published():
    method = entered(conventions="published")
    image = torch.full((1, 48, 48, 3), 51, dtype=torch.uint8)
    torch.testing.assert_close(method.pixels(image), torch.full((1, 3, 48, 48), 0.2))
    assert method.image_view().mean == (0.0, 0.0, 0.0)


# -------------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("stage", ["text", "pretrain"])
def test_reports_without_words_change_no_term(stage):
    method = entered(stage, mask_ratio=0.5).train()
    texts = (
        BOTH,
        BOTH.replace("small", "large").replace("Small", "Irregular"),
        "FINDINGS: No lobe.\nIMPRESSION: No opacity.",
    )
    a, b = method(read(method, *texts)), method(read(method, *texts, ". .", ""))
    for term, value in a.losses.items():
        torch.testing.assert_close(b.losses[term], value, rtol=1e-4, atol=1e-5, msg=term)
    assert b.diagnostics["report_empty"].item() == pytest.approx(0.4)


@pytest.mark.parametrize("stage", ["text", "pretrain"])
def test_a_batch_without_any_text_costs_nothing(stage):
    method = entered(stage)
    out = method(read(method, "", ""))
    assert out.total == 0
    out.total.backward()


@pytest.mark.parametrize("stage", ["text", "pretrain"])
def test_texts_of_one_word_of_unknown_words_and_of_full_length_have_finite_losses(stage):
    method = entered(stage).train()
    out = method(read(method, "x", "zzz qqq", "No effusion " * 30, BOTH))
    out.total.backward()
    assert out.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_published_conventions_refuse_other_keys():
    with pytest.raises(MethodError, match=r"contradicts method\.normalise=half \(theirs: none\)"):
        get_method("biovil").Options.parse({"conventions": "published", "normalise": "half"})


def test_chance_and_pictures():
    method = entered()
    assert method.chance(8) == {"contrastive": math.log(8), "masked": math.log(method.tokens.rows)}
    assert method.pictures(batch(method, records(3)))["similarity"].dtype == np.uint8
    method.enter("text")
    assert set(method.chance(8)) == {"sections", "masked"}
    assert method.pictures(batch(method, records(3))) == {}


# -------------------------------------------------------------------------------------------------- the published modules

HEAD = {"0": "dense_to_hidden", "2": "LayerNorm", "3": "dense_to_output"}


def theirs(name: str) -> str:
    """The published name of one of ours."""
    part, _, rest = name.partition(".")
    if part == "text":
        return f"bert.{rest}"
    if part == "text_head":
        return f"cls_projection_head.{HEAD[rest[0]]}{rest[1:]}"
    if part == "masked":
        return "cls.predictions.bias" if rest == "bias" else f"cls.predictions.transform.{rest}"
    return f"projector.model.{rest.removeprefix('layers.')}"


@pytest.mark.real
def test_published_modules_on_the_same_weights(real_data, tmp_path, monkeypatch):
    gold = reports.pack(real_data, "biovil")
    method = reports.method_of(
        gold,
        "biovil",
        tmp_path,
        conventions="published",
        image={"kind": "vit", "image_size": 8, "patch": 8, "dim": 24, "depth": 1, "heads": 4, "cls_token": False},
        text={"dim": 32, "depth": 2, "heads": 4, "inner": 64, "places": 24, "dropout": 0.0},
        project=16,
    )
    weights = gold.weights("CXRBertModel") | gold.weights("ImageModel (projector only)")
    for part in ("text", "text_head", "masked", "image_head"):
        reports.load(getattr(method, part), weights, lambda n, part=part: theirs(f"{part}.{n}"))
    tokens = gold.normal("input.patch_features", (4, 24, 3, 5)).flatten(2).mT
    monkeypatch.setattr(method, "tower_input", lambda batch: None)
    monkeypatch.setattr(method.image, "tokens", lambda x: tokens)
    ids = gold["input.ids"]
    data = reports.batch_of(ids, hidden=gold["input.mlm_mask"])
    # The losses are of the running numbers after one pass in training.
    method.eval()
    gold.equal(method._cells(tokens, torch.ones(4)).mT.unflatten(2, (3, 5)), "image.eval.patches")
    for mode, rtol in (("eval", 1e-5), ("train", 1e-4)):
        method.train(mode == "train")
        gold.equal(method._image(data)[0], f"image.{mode}.global", rtol=rtol)
    method.eval()
    hidden = method.text(ids, ids != 0)["hidden"][-1]
    gold.equal(hidden, "text.last_hidden")
    gold.equal(method.masked(hidden, method.text.words), "text.mlm_logits")
    gold.equal(method._text(ids), "text.projected")
    out = method(data)
    gold.equal(out.losses["contrastive"], "own.global_infonce_tau0.5_mean_of_two")
    gold.equal(out.losses["masked"], "own.mlm")
    gold.equal(out.total, "own.total_biovil_1_0.1")
    out.total.backward()
    found = {theirs(n): p.grad for n, p in method.named_parameters() if p.grad is not None}
    keys = [k for k in gold.numbers.files if k.startswith("grad.")]
    assert len(keys) == 7
    for key in keys:
        gold.equal(found[key.removeprefix("grad.")].double().norm(), key, rtol=1e-4)
