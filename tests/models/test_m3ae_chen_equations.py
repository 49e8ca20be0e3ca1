"""M3AE of Chen et al. against a few literal lines: streams, what is hidden, who is matched with whom; and the published numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from synthetic import batch, build, records, schema
from views_packs import Pack

from models.contract import MethodError, Schema
from models.decoders.image import MaskedImageDecoder
from models.decoders.mae import norm_patches, patchify
from models.encoders.report_bert import BertOptions
from models.encoders.two_streams import TwoStreams
from models.heads.token_values import TokenValues
from models.layers.patches import mask_order, take
from models.layers.vit_block import as_clips, quick_gelu
from models.losses.matching import matched, partners
from models.registry import get_method


def entered(**options):
    method = build("m3ae_chen", still=True, **options)
    method.enter("pretrain")
    return method


def shaken(module: torch.nn.Module, seed: int = 1, std: float = 0.2) -> torch.nn.Module:
    torch.manual_seed(seed)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=std)
    return module


# --------------------------------------------------------------------------------------------------------------- streams


def half(part, x: torch.Tensor, other: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """LN(x + W softmax(q k^T / sqrt(d)) v), by hand, one head at a time."""
    own = part["self"]
    d = x.shape[-1] // own.heads
    heads = []
    for h in range(own.heads):
        at = slice(h * d, h * d + d)
        q, k, v = own.query(x)[..., at], own.key(other)[..., at], own.value(other)[..., at]
        logits = (q @ k.mT / d**0.5).masked_fill(~real[:, None], -torch.inf)
        heads.append(logits.softmax(-1) @ v)
    return part["output"].LayerNorm(x + part["output"].dense(torch.cat(heads, -1)))


@torch.no_grad()
def test_streams_look_at_what_the_other_was_before_the_layer():
    streams = shaken(TwoStreams(6, 5, 8, 2, 2, 0.0))
    image, genes = torch.randn(2, 4, 6), torch.randn(2, 3, 5)
    real = torch.tensor([[1, 1, 1], [1, 0, 1]], dtype=torch.bool)
    x = streams.image_proj(image) + streams.kind_2D[1]
    y = streams.gene_proj(genes) + streams.kind_2D[0]
    every, states = torch.ones(2, 4, dtype=torch.bool), [(x, y)]
    for a, b in zip(streams.image_layers, streams.gene_layers, strict=True):
        x_old, y_old = states[-1]
        made = []
        for layer, own, own_real, other, other_real in ((a, x_old, every, y_old, real), (b, y_old, real, x_old, every)):
            z = half(layer.attention, own, own, own_real)
            z = half(layer.crossattention, z, other, other_real)
            inner = F.gelu(layer.intermediate["dense"](z))
            made.append(layer.output.LayerNorm(z + layer.output.dense(inner)))
        states.append((made[0], made[1]))
    for layers, (x, y) in enumerate(states):
        got = streams(image, genes, real, layers)
        torch.testing.assert_close(got[0], x, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(got[1], y, rtol=1e-4, atol=1e-5)
    pooled = streams(image, genes, real, pooled=True)
    torch.testing.assert_close(pooled[1], streams.gene_pooler.dense(states[-1][1][:, 0]).tanh(), rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- what is hidden


def test_half_of_what_a_sample_has_is_hidden_and_not_seen():
    method = shaken(entered()).eval()
    data = batch(method, records(4, missing={1: ["snp"], 2: ["snp", "rna"], 3: ["snp", "pgs", "rna"]}))
    real = method.genes.real(data.present)
    hidden = method.hidden_fragments(data["gene_noise"], real[:, 1:])
    counts = real[:, 1:].sum(1)
    assert counts.tolist() == [62, 12, 2, 0]  # 300 SNPs, 12 scores, 60 genes in sixes
    assert hidden.sum(1).tolist() == [31, 6, 1, 0]
    assert not (hidden & ~real[:, 1:]).any()
    values, _ = method._vectors(data)
    tokens = method.genes(values, real, hidden)
    place = int(hidden[0, :50].nonzero()[0]) * 6
    values["snp"][0, place : place + 6] += 3
    torch.testing.assert_close(method.genes(values, real, hidden), tokens)
    assert not torch.allclose(method.genes(values, real)[0], tokens[0])


def literal_genes(method, data) -> float:
    """Squared error of known features of hidden fragments, of a sample, then of samples."""
    values, known = method._vectors(data)
    real = method.genes.real(data.present)
    hidden = method.hidden_fragments(data["gene_noise"], real[:, 1:])
    whole = method.image(method.pixels(data["views"][:, 0]))
    stream = method.fusion(whole, method.genes(values, real, hidden), real)[1]
    means, first = [], 0
    said = method.gene_head(stream[:, 1:])
    gaps: list[list[float]] = [[] for _ in range(len(real))]
    for name, width in method.widths.items():
        for t in range(math.ceil(width / 6)):
            for b in range(len(real)):
                if hidden[b, first + t] and data.weight_B[b] and data.present["image"][b]:
                    for f in range(t * 6, min(width, t * 6 + 6)):
                        if known[name][b, f]:
                            gaps[b].append(float((said[b, first + t, f - t * 6] - values[name][b, f]) ** 2))
        first += math.ceil(width / 6)
    means = [sum(g) / len(g) for g in gaps if g]
    return sum(means) / len(means)


def test_losses_are_of_hidden_and_known_values_of_counted_samples():
    method = shaken(entered())
    made = records(6, missing={1: ["image"], 2: ["snp"], 4: ["snp", "pgs", "rna"]})
    made[0].fields["snp"][::3] = -1
    data = batch(method, made)
    data["rna"][3, 5] = float("nan")
    data.weight_B[5] = 0
    with torch.no_grad():
        out = method(data)
        assert out.losses["genes"].item() == pytest.approx(literal_genes(method, data), rel=1e-4)
        x = method.pixels(data["views"][:, 0])
        values, _ = method._vectors(data)
        real = method.genes.real(data.present)
        keep, hidden = mask_order(data["noise"], 0.75)
        stream = method.fusion(method.image(x, keep), method.genes(values, real), real, 1)[0]
        gap = method.decoder(stream, keep, hidden) - norm_patches(take(patchify(x, 6), hidden))
    want = gap.square().mean((1, 2))[[0, 2, 3, 4]].mean()
    assert out.losses["image"].item() == pytest.approx(want.item(), rel=1e-4)
    total = sum(v.item() for v in out.losses.values())
    assert out.total.item() == pytest.approx(total, rel=1e-5)
    assert out.counts["genes"] == 3  # neither without an image, nor without genetics, nor padding
    weighed = shaken(entered(image_weight=2.0, gene_weight=0.5, match_weight=0.0))(data)
    two = 2 * out.losses["image"].item() + 0.5 * out.losses["genes"].item()
    assert weighed.total.item() == pytest.approx(two, rel=1e-4)


# --------------------------------------------------------------------------------------------------------------- matching


def test_half_keep_their_own_and_the_others_get_another_patients():
    torch.manual_seed(0)
    counts = torch.tensor([1, 1, 0, 1, 1, 1, 1, 1, 1], dtype=torch.bool)
    patient = torch.tensor([0, 0, 1, 2, 2, 3, 3, 4, 4])
    kept, given = torch.zeros(9), set()
    for _ in range(400):
        place, own, asked = partners(torch.rand(9), counts, patient)
        assert torch.equal(asked, counts)
        assert int((own & counts).sum()) == 4
        assert torch.equal(place == torch.arange(9), own | ~counts)
        assert (patient[place] != patient)[counts & ~own].all()
        assert counts[place[counts]].all()
        kept += own
        given |= set(zip(range(9), place.tolist(), strict=True))
    assert ((kept[counts] / 400 - 0.5).abs() < 0.1).all()
    assert len([1 for i, j in given if i != j]) == 8 * 6  # every other of another patient was given


def test_a_batch_of_one_patient_has_nobody_elses_genetics():
    draw, counts, one = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.ones(4, dtype=torch.bool), torch.zeros(4)
    place, own, asked = partners(draw, counts, one)
    assert asked.tolist() == own.tolist() == [True, True, False, False]
    place, own, asked = partners(draw, counts, one, same_patient=True)
    assert asked.all()
    assert place.tolist() == [0, 1, 3, 0]
    assert not partners(draw, counts & False, one)[2].any()


def test_matching_is_a_coin_at_the_start_and_counts_who_is_asked():
    logits = torch.tensor([[0.0, 0.0], [2.0, -1.0], [9.0, 9.0]])
    own, asked = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    cost, right = matched(logits, own, asked)
    want = (math.log(2) + math.log(1 + math.exp(-3))) / 2
    assert cost.item() == pytest.approx(want, rel=1e-5)
    assert right.item() == 0.5
    method = entered()
    assert method.chance(8) == {"image": 1 - 1 / 108, "match": math.log(2)}
    loss = method(batch(method, records(8))).losses["match"]
    assert loss.item() == pytest.approx(math.log(2), rel=0.05)


# ---------------------------------------------------------------------------------------------------------------- the rest


def test_streams_and_heads_have_a_rate_of_their_own():
    method = entered(fusion_lr=5.0)
    scale = {id(p): g.lr_scale for g in method.param_groups() for p in g.params}
    for name, p in method.named_parameters():
        assert scale[id(p)] == (1.0 if name.startswith(("image.", "genes.")) else 5.0), name
    flat = {id(p) for g in method.param_groups() if g.decay_scale == 0 for p in g.params}
    decays = {n for n, p in method.named_parameters() if id(p) not in flat}
    assert "match_head.weight" in decays
    assert not [n for n in decays if n.endswith(("bias", "mask_token", "cls_token", "kind_2D", "mask_C"))]


def test_the_deployed_encoder_sees_images_alone():
    method = build("m3ae_chen")
    assert method.inputs == ("image",)
    assert not [n for n, p in method.named_parameters() if p.requires_grad != n.startswith("image.")]
    data = batch(method, records(2))
    tokens = method.encode(data)["tokens_BLD"]
    torch.testing.assert_close(method.encode(data)["pooled_BD"], tokens[:, 1:].mean(1))


def test_views_as_published_change_nothing():
    method, [one] = entered(views="official"), records(1)
    a, b = (batch(method, [one], epoch)["views"][0, 0] for epoch in range(2))
    assert torch.equal(a, b)
    method.enter("")
    assert torch.equal(a, batch(method, [one])["image"][0])
    mild = entered()
    assert not torch.equal(*(batch(mild, [one], epoch)["views"] for epoch in range(2)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"genetics": []}, "m3ae_chen needs a genetic modality; name a field (mae is for images alone)"),
        ({"image": {"cls_token": False}}, "image.cls_token: decoder and matching need a class token"),
        ({"fusion_heads": 5}, "fusion_dim: 768 is not a multiple of method.fusion_heads (5)"),
        ({"decoder_dim": 42}, "decoder_dim: 42 is not a multiple of 4"),
        ({"genes": {"dim": 40}}, "genes.dim: 40 is not a multiple of method.image.heads (12)"),
        ({"mim_layer": 7}, "mim_layer: 7 of 6 layers; give at most method.fusion_depth"),
        ({"mask_ratio": 0.999}, "mask_ratio: 0.999 of 196 patches hides all or none"),
    ],
)
def test_options_that_make_no_system_are_told(given, said):
    with pytest.raises(MethodError) as raised:
        get_method("m3ae_chen").Options.parse(given)
    assert said in str(raised.value)


def test_data_without_the_genetics_are_told():
    cls = get_method("m3ae_chen")
    without = Schema({"image": schema().fields["image"]}, schema().labels, "here")
    with pytest.raises(MethodError, match=r"here has no field 'snp' \(method.genetics\)"):
        cls(cls.Options.parse({"genetics": ["snp"]}), without)


# ---------------------------------------------------------------------------------------------------- the published code


def clip(weights: dict[str, torch.Tensor], x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
    """CLIP's image encoder as the published code uses it: its norm on all tokens, positions before patches are left out."""
    w = {n.removeprefix("vision_encoder.visual."): v for n, v in weights.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    x = F.conv2d(x, w["conv1.weight"], stride=16).flatten(2).mT + w["positional_embedding"][1:]
    x = x if keep is None else take(x, keep)
    first = (w["class_embedding"] + w["positional_embedding"][0]).expand(len(x), 1, -1)
    x = norm(torch.cat([first, x], 1), "ln_pre")
    for i in range(2):
        at = f"transformer.resblocks.{i}."
        z = norm(x, f"{at}ln_1")
        q, k, v = F.linear(z, w[f"{at}attn.in_proj_weight"], w[f"{at}attn.in_proj_bias"]).chunk(3, -1)
        z = F.scaled_dot_product_attention(q, k, v)  # one head
        x = x + F.linear(z, w[f"{at}attn.out_proj.weight"], w[f"{at}attn.out_proj.bias"])
        z = quick_gelu(F.linear(norm(x, f"{at}ln_2"), w[f"{at}mlp.c_fc.weight"], w[f"{at}mlp.c_fc.bias"]))
        x = x + F.linear(z, w[f"{at}mlp.c_proj.weight"], w[f"{at}mlp.c_proj.bias"])
    return norm(x, "ln_post")


def roberta(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Places are counted from 2 there."""
    bert = BertOptions.parse({"dim": 64, "depth": 2, "heads": 4, "inner": 256, "dropout": 0.0}).build(40, 10)
    own = {n.removeprefix("language_encoder."): v for n, v in weights.items() if n.startswith("language_encoder.")}
    places = own.pop("embeddings.position_embeddings.weight")
    state = {n: v for n, v in own.items() if not n.startswith("pooler.")}
    state["embeddings.position_embeddings.weight"] = F.pad(places[2:], (0, 0, 0, 512))[
        : bert.embeddings.position_embeddings.weight.shape[0]
    ]
    state["embeddings.token_type_embeddings.weight"] = state["embeddings.token_type_embeddings.weight"].expand(2, -1)
    bert.load_state_dict(state)
    return bert


def published(weights: dict[str, torch.Tensor], heads: int = 4) -> tuple[TwoStreams, MaskedImageDecoder, TokenValues]:
    names = {"image_proj": "multi_modal_vision_proj", "gene_proj": "multi_modal_language_proj"}
    names |= {"image_layers": "multi_modal_vision_layers", "gene_layers": "multi_modal_language_layers"}
    names |= {"image_pooler": "multi_modal_vision_pooler", "gene_pooler": "multi_modal_language_pooler"}
    streams = TwoStreams(64, 64, 64, 4, heads, 0.0)
    state = {"kind_2D": weights["modality_type_embeddings.weight"]}
    for here, there in names.items():
        state |= {n.replace(there, here): v for n, v in weights.items() if n.startswith(f"{there}.")}
    streams.load_state_dict(state)
    decoder = MaskedImageDecoder(64, (4, 4), 32, 2, 4, 768)
    as_clips(decoder)
    own = {n.removeprefix("mim_head."): v for n, v in weights.items() if n.startswith("mim_head.")}
    for there, here in (
        ("decoder.resblocks.", "blocks."), ("attn.in_proj_", "attn.qkv."), ("attn.out_proj", "attn.proj"), ("ln_", "norm"),
        ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"), ("decoder_", ""),
    ):  # fmt: skip
        own = {n.replace(there, here): v for n, v in own.items()}
    told = decoder.load_state_dict(own, strict=False)
    assert told == (["pos_embed"], [])
    head = TokenValues(64, 40)
    own = {n.removeprefix("mlm_head.").removeprefix("transform."): v for n, v in weights.items() if "mlm_head" in n}
    own["decoder.bias"] = own.pop("bias")
    head.load_state_dict(own)
    return streams, decoder, head


@pytest.mark.real
def test_published_code_on_the_same_weights(real_data: Path):
    """Its second stream is of reports: their encoder stands in for that of genes, CLIP's for ours."""
    pack = Pack(real_data, "m3ae_chen")
    weights = pack.weights()
    streams, decoder, head = published(weights)
    n = {k: torch.from_numpy(pack.numbers[k]) for k in pack.numbers.files}
    bert, real = roberta(weights), n["text_masks"].bool()
    text, hidden_text = (bert(n[k], real)["hidden"][0] for k in ("text_ids", "text_ids_mlm"))
    image, false_image = (pack.image(k, (4, 3, 64, 64)) for k in ("input.image", "input.false_image"))
    match = torch.nn.Linear(128, 2)
    match.load_state_dict({k: weights[f"itm_head.fc.{k}"] for k in ("weight", "bias")})

    x, y = streams(clip(weights, image), text, real)
    pack.equal(x, "image_tokens_unmasked")
    torch.testing.assert_close(y[real], n["text_tokens_unmasked"][real], rtol=1e-4, atol=1e-5)
    pooled = streams(clip(weights, image), text, real, pooled=True)
    pack.equal(torch.cat(pooled[::-1], 1), "cls_unmasked")

    keep, hidden = mask_order(torch.from_numpy(pack.rule.uniform("input.noise", (4, 16))), 0.75)
    stream = streams(clip(weights, image, keep), text, real, 2)[0]
    pack.equal(stream, "mim_input_image_tokens")
    made = decoder(stream, keep, hidden)
    torch.testing.assert_close(made, take(n["mim_logits"], hidden), rtol=1e-4, atol=1e-5)
    mim = (made - take(norm_patches(patchify(image, 16)), hidden)).square().mean()
    pack.equal(mim, "mim_loss")

    said = head(streams(clip(weights, image), hidden_text, real)[1])
    torch.testing.assert_close(said[real], n["mlm_logits"][real], rtol=1e-4, atol=1e-5)
    mlm = F.cross_entropy(said.flatten(0, 1), n["text_labels_mlm"].flatten(), ignore_index=-100)
    pack.equal(mlm, "mlm_loss")

    own = n["itm_labels"].bool()
    given = torch.where(own[:, None, None, None], image, false_image)
    logits = match(torch.cat(streams(clip(weights, given), text, real, pooled=True)[::-1], 1))
    pack.equal(logits, "itm_logits")
    itm = matched(logits, own, torch.ones(4))[0]
    pack.equal(itm, "itm_loss")

    total = mlm + mim + itm
    pack.equal(total, "total")
    total.backward()
    for key, found in (
        ("multi_modal_vision_proj.weight", streams.image_proj.weight),
        ("modality_type_embeddings.weight", streams.kind_2D),
        ("multi_modal_vision_layers.1.crossattention.self.value.weight", streams.image_layers[1].crossattention["self"].value.weight),
        ("multi_modal_language_layers.3.output.dense.weight", streams.gene_layers[3].output.dense.weight),
        ("mim_head.decoder_pred.weight", decoder.pred.weight),
        ("mlm_head.decoder.weight", head.decoder.weight),
        ("itm_head.fc.weight", match.weight),
    ):  # fmt: skip
        pack.equal(found.grad.norm(), f"grad:{key}")
