"""The equations of MRM (ICCV 2023), each against a literal reference written from the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import batch, build, records

from models.contract import MethodError
from models.decoders.mae import norm_patches, patchify, unpatchify
from models.encoders.gene_tokens import GeneTokens
from models.encoders.vit import Block
from models.layers.relation import Masking, count_masked, masked_self_attention, relation_attention
from models.losses.relation import Matching, cosines, draw_pairs, squared_error
from models.pictures import CELL
from models.transforms.image import augment, fitted, normalised, to_pixels

B, H, L, S, D = 3, 2, 7, 12, 8


def tensors(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = ((B, H, L, D), (B, H, S, D), (B, H, S, D))
    return [torch.randn(s, generator=g, dtype=dtype).requires_grad_() for s in shapes]


def literal(q, k, v, masking: Masking, real=None):
    """Eq. 3-6, row by row: softmax over real keys, the k strongest of the row to zero, times v. Returns R^M too."""
    out, kept = torch.zeros(B, H, L, D, dtype=q.dtype), torch.zeros(B, H, L, S, dtype=q.dtype)
    for b in range(B):
        keys = [s for s in range(S) if real is None or real[b, s]]
        R = torch.zeros(H, L, S, dtype=q.dtype)
        for h in range(H):
            R[h][:, keys] = torch.softmax(q[b, h] @ k[b, h, keys].T / D**0.5, -1)
        for h in range(H):
            for p in range(L):
                strength = (R.mean(0) if masking.share_heads else R[h])[p].detach()
                counted = [s for s in keys if not (masking.spare_cls and s == 0)]
                n = int(masking.ratio * len(counted) + 0.5)
                gone = sorted(counted, key=lambda s: -strength[s])[:n]
                if masking.spare_cls and p == 0:
                    gone = []
                stays = torch.tensor([float(s not in gone) for s in range(S)], dtype=q.dtype)
                row = R[h, p] * stays
                if masking.renorm and keys:
                    row = row / row.sum()
                kept[b, h, p] = row
                out[b, h, p] = row @ v[b, h]
    return out, kept


SETTINGS = [
    Masking(0.75), Masking(0.5), Masking(0.5, renorm=True), Masking(0.75, share_heads=True),
    Masking(0.5, spare_cls=True), Masking(0.5, share_heads=True, spare_cls=True, renorm=True), Masking(0.0), Masking(1.0),
]  # fmt: skip


@pytest.mark.parametrize("masking", SETTINGS, ids=str)
@pytest.mark.parametrize("missing", [False, True])
def test_relation_masking_is_eq_3_to_6_in_value_and_gradient(masking, missing):
    q, k, v = tensors()
    real = torch.ones(B, S, dtype=torch.bool)
    real[0, 4:9] = False
    real[2, 1:] = False if masking.ratio < 0.5 else real[2, 1:]
    mask = real if missing else None
    mine, _ = relation_attention(q, k, v, masking, mask)
    theirs, _ = literal(q, k, v, masking, mask)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)  # the softmax is taken in float32
    if not theirs.requires_grad:
        return
    w = torch.randn(mine.shape, generator=torch.Generator().manual_seed(9), dtype=mine.dtype)
    a, b = (torch.autograd.grad((x * w).sum(), (q, k, v), allow_unused=True) for x in (mine, theirs))
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, torch.zeros_like(x) if y is None else y, rtol=1e-4, atol=1e-5)


def relations(masking: Masking, real=None, seed: int = 0) -> torch.Tensor:
    """R^M itself: values that are the identity."""
    q, k, _ = tensors(seed, torch.float32)
    out, kept = relation_attention(q, k, torch.eye(S).expand(B, H, S, S), masking, real)
    torch.testing.assert_close(out.sum(-1), kept if not masking.renorm else torch.ones_like(kept))
    return out.detach()


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_exactly_k_zeros_a_row_and_they_are_the_strongest(ratio):
    whole, left = relations(Masking(0.0)), relations(Masking(ratio))
    assert ((left == 0).sum(-1) == round(ratio * S)).all()
    torch.testing.assert_close(left[left > 0], whole[left > 0], msg="what stays is not renormalised")
    gone = torch.where(left == 0, whole, torch.inf).amin(-1)
    assert (torch.where(left > 0, whole, -torch.inf).amax(-1) < gone).all()


def test_absent_keys_are_left_out_before_the_count():
    real = torch.ones(B, S, dtype=torch.bool)
    real[1, 6:] = False
    left = relations(Masking(0.5), real)
    assert (left[1, ..., 6:] == 0).all()
    assert ((left[1, ..., :6] == 0).sum(-1) == 3).all(), "half of the six real keys"
    torch.testing.assert_close(relations(Masking(0.0), real)[1].sum(-1), torch.ones(H, L))
    nobody = torch.zeros(B, S, dtype=torch.bool)
    q, k, v = tensors(dtype=torch.float32)
    out, _ = relation_attention(q, k, v, Masking(0.5), nobody)
    assert not out.any()
    out.sum().backward()
    assert not q.grad.any()
    assert v.grad.isfinite().all()


def test_ties_with_the_threshold_go_too():
    q, k, v = tensors(dtype=torch.float32)
    with torch.no_grad():
        k[:, :, 1:] = k[:, :, :1]  # all keys alike: every relation ties with the k-th largest
    assert not relation_attention(q, k, v, Masking(0.25))[0].any()


def test_k_is_rounded_with_halves_up():
    assert [count_masked(0.75, n) for n in (197, 2, 1)] == [148, 2, 1]
    assert [count_masked(0.5, n) for n in (213, 5, 1)] == [107, 3, 1]
    assert count_masked(0.25, 1) == 0


@pytest.mark.parametrize(("spread", "mass"), [(0.1, 0.22), (0.5, 0.12), (1.0, 0.049), (2.0, 0.0045)])
def test_kept_mass_of_gaussian_logits(spread, mass):
    """What tau = 0.75 of 197 keys leaves when logits are N(0, spread^2)."""
    g = torch.Generator().manual_seed(0)
    k = torch.randn(1, 1, 197, 64, generator=g)
    q = torch.randn(1, 1, 400, 64, generator=g) * spread
    _, kept = relation_attention(q, k, k, Masking(0.75))
    assert kept.mean().item() == pytest.approx(mass, rel=0.15)


def test_one_matrix_is_kept_and_chunks_change_nothing(monkeypatch):
    q, k, v = tensors(dtype=torch.float32)
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        whole, _ = relation_attention(q, k, v, Masking(0.75))
    assert sizes.count(B * H * L * S) == 1
    assert sum(sizes) == B * H * L * S + sum(t.numel() for t in (q, k, v))
    grads = torch.autograd.grad(whole.square().sum(), (q, k, v))
    monkeypatch.setattr("models.layers.relation.CHUNK", {"cpu": 1})
    parts, _ = relation_attention(q, k, v, Masking(0.75))
    torch.testing.assert_close(parts, whole)
    for a, b in zip(grads, torch.autograd.grad(parts.square().sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_block_without_masking_is_the_plain_block():
    torch.manual_seed(0)
    block, x = Block(16, 4), torch.randn(2, 5, 16)
    plain = x + block.attn(block.norm1(x))
    torch.testing.assert_close(masked_self_attention(block, x, Masking(0.0))[0], plain)
    masked, kept = masked_self_attention(block, x, Masking(0.5))
    assert not torch.allclose(masked, plain)
    assert ((kept > 0) & (kept < 0.5)).all()


# ------------------------------------------------------------------------------------------------------ the two passes


def entered(train: bool = False, **options):
    method = build("mrm_relation", **options)
    method.enter("pretrain")
    return method.train(train)


def literal_masked_pass(two, image, values, cascade):
    """Section 3.2 with both modalities present: z^S, then z^C, then the MLP, in blocks 0 and 1; then plain blocks."""
    x, g = two.vit.embed(image), two.genes.embed(values)
    for i in range(len(two.vit.blocks)):
        a, b = two.vit.blocks[i], two.genes.blocks[i] if i < len(two.genes.blocks) else None
        if i > 1:
            x, g = a(x), g if b is None else b(g)
            continue
        if cascade in ("per_block", "self") or i == 0:
            x, g = masked_self_attention(a, x, two.plan.image)[0], masked_self_attention(b, g, two.plan.genes)[0]
        if cascade == "per_block" or (i == 1 and cascade != "self"):
            z = x
            x = two.cross_image[str(i)](x, g, two.plan.image)[0]
            g = two.cross_genes[str(i)](g, z, two.plan.genes)[0]
        x, g = x + a.mlp(a.norm2(x)), g + b.mlp(b.norm2(g))
    return two.vit.norm(x), two.genes.norm(g)


@pytest.mark.parametrize("cascade", ["per_block", "self_then_cross", "self"])
def test_two_passes(cascade):
    """`self` stands for relations=self: the same without the middle part."""
    method = entered(**({"relations": "self"} if cascade == "self" else {"cascade": cascade}))
    data = batch(method, records(3))
    image, two = normalised(data["image"]), method.encoder
    values = method._vectors(data)[0]
    out = two(image, values, None, None)
    torch.testing.assert_close(out["tokens"]["image"], two.vit(image))
    torch.testing.assert_close(out["tokens"]["image"], method.encode(data)["tokens_BLD"])
    x, g = literal_masked_pass(two, image, values, cascade)
    torch.testing.assert_close(out["tokens"]["image_masked"], x)
    torch.testing.assert_close(out["tokens"]["genes_masked"], g)
    everyone = method.encoder.genes.real({n: torch.ones(3, dtype=torch.bool) for n in method.widths})
    with_mask = two(image, values, torch.ones(3, x.shape[1], dtype=torch.bool), everyone)
    for name, z in out["tokens"].items():
        torch.testing.assert_close(with_mask["tokens"][name], z, rtol=1e-4, atol=1e-5)


def test_without_cross_relations_nothing_crosses_before_the_decoders():
    method, whole = entered(relations="self"), entered()
    names = {n for n, _ in method.named_parameters()}
    assert {n for n, _ in whole.named_parameters()} - names == {
        n for n, _ in whole.named_parameters() if ".cross_" in n
    }
    data = batch(method, records(4))
    out, other = method(data), batch(method, records(4))
    for name in method.widths:
        other[name] = other[name].roll(1, 0)
    assert {n for n in out.diagnostics if n.startswith("kept_")} == {"kept_self_image", "kept_self_genes"}
    assert {"match_self", "match_cross"} <= out.losses.keys(), "vectors can be compared across all the same"
    mine, theirs = (method._passes(b)[0]["tokens"]["image_masked"] for b in (data, other))
    torch.testing.assert_close(mine, theirs)
    mine, theirs = (whole._passes(b)[0]["tokens"]["image_masked"] for b in (data, other))
    assert (mine - theirs).abs().max() > 1e-4
    with pytest.raises(MethodError, match=r"relations=self has none; use method\.cascade=per_block"):
        entered(relations="self", cascade="self_then_cross")


def test_fragments_are_padded_cut_and_put_together_again():
    genes = GeneTokens({"snp": 7854, "pgs": 481, "burden": 18574}, 16, 1, 2, 128, 8)
    assert list(genes.embed.tokens.values()) == [62, 4, 146]
    values = {n: torch.randn(2, w) for n, w in genes.widths.items()}
    fragments = torch.cat([F.pad(v, (0, -v.shape[1] % 128)).view(2, -1, 128) for v in values.values()], 1)
    back = genes.split(torch.cat([torch.zeros(2, 1, 128), fragments], 1))
    for name, value in values.items():
        assert torch.equal(back[name], value)
    one = genes.eval().embed(values)[:, 1 + 62]
    embed = genes.embed
    by_hand = embed.snn["pgs"](values["pgs"][:, :128])[0] + embed.position_TC[62] + embed.modality_MC[1]
    torch.testing.assert_close(one, by_hand)
    real = genes.real(
        {"snp": torch.tensor([1, 0]).bool(), "pgs": torch.zeros(2).bool(), "burden": torch.zeros(2).bool()}
    )
    assert real.sum(1).tolist() == [1 + 62, 0]


# ------------------------------------------------------------------------------------------------------------- losses


def test_reconstruction_is_eq_7():
    g = torch.Generator().manual_seed(0)
    shapes = {"snp": (4, 5), "pgs": (4, 3)}
    x, y = ({n: torch.randn(s, generator=g) for n, s in shapes.items()} for _ in range(2))
    ones = {n: torch.ones(s) for n, s in shapes.items()}
    norms = [sum((x[n][b] - y[n][b]).norm() ** 2 for n in shapes) for b in range(4)]
    torch.testing.assert_close(squared_error(x, y, ones, "sum"), sum(norms) / 4)
    torch.testing.assert_close(squared_error(x, y, ones), sum(norms) / (4 * 8))
    part = {"snp": torch.tensor([1.0, 1, 0, 0])[:, None], "pgs": torch.tensor([1.0, 0, 0, 0])[:, None]}
    gaps = (x["snp"] - y["snp"])[:2].square().sum() + (x["pgs"] - y["pgs"])[:1].square().sum()
    torch.testing.assert_close(squared_error(x, y, part), gaps / (2 * 5 + 3))
    torch.testing.assert_close(squared_error(x, y, part, "sum"), gaps / 2)
    bits = {"burden": torch.tensor([[1.0, 0.0]])}
    bce = squared_error(
        {"burden": torch.zeros(1, 2)}, bits, {"burden": torch.ones(1, 1)}, "mean", frozenset({"burden"})
    )
    assert bce.item() == pytest.approx(np.log(2))


def test_matching_is_eq_8_to_12():
    g = torch.Generator().manual_seed(0)
    n = 5
    z, zm, e, em = (torch.randn(n, 6, generator=g) for _ in range(4))

    def sim(a, b):
        return (a @ b) / (a.norm() * b.norm())

    own, cross = 0.0, 0.0
    for i in range(n):
        for j in range(n):
            own += (sim(z[i], z[j]) - sim(zm[i], zm[j])) ** 2 + (sim(e[i], e[j]) - sim(em[i], em[j])) ** 2
            cross += (sim(z[i], e[j]) - sim(zm[i], em[j])) ** 2
    draws, ones = torch.rand(n, 2, generator=g), torch.ones(n)
    mine = Matching((z, zm), (e, em), draws, ones, ones.bool(), 8).losses()
    torch.testing.assert_close(mine[0], own / (2 * n**2))
    torch.testing.assert_close(mine[1], cross / n**2)
    alone = Matching((z, zm), None, draws, ones, ones.bool(), 8).losses()
    torch.testing.assert_close(alone[0], (cosines(z, z) - cosines(zm, zm)).square().mean() / 2)
    assert alone[1] == 0
    has = torch.tensor([True, True, False, True, False])
    some = Matching((z, zm), (e, em), draws, ones, has, 8).losses()
    torch.testing.assert_close(some[1], (cosines(z, e[has]) - cosines(zm, em[has])).square().mean())
    same = Matching((z, z), (e, e), draws, ones, ones.bool(), 8)
    assert same.losses()[0] == 0
    assert same.losses(shuffled=True)[0] > 0.01
    assert same.losses(shuffled=True)[1] > 0.01


def test_drawn_pairs():
    draws, weight = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)), torch.ones(20)
    weight[:5] = 0
    i, j, counts, _ = draw_pairs(draws, weight, 8, "subset")
    assert torch.equal(i, j)
    assert len(set(i.tolist())) == 8
    assert counts.all()
    assert i.min() >= 5
    assert set(i.tolist()) == set((draws[5:, 0].argsort()[:8] + 5).tolist())
    i, j, _, _ = draw_pairs(draws, weight, 8, "index_pairs")
    assert not torch.equal(i, j)
    assert draw_pairs(draws[:7], weight[:7], 8, "subset")[2].sum() == 2
    z, zm = torch.randn(20, 4), torch.randn(20, 4)
    loss, _ = Matching((z, zm), None, draws, weight, weight > 0, 8, "index_pairs").losses()
    single = torch.stack([(cosines(z, z) - cosines(zm, zm))[a, b] ** 2 for a, b in zip(i, j, strict=True)])
    torch.testing.assert_close(loss, single.mean() / 2)


def test_patches_and_their_norm():
    image = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).view(2, 3, 8, 12)
    patches = patchify(image, 4)
    assert patches.shape == (2, 6, 48)
    torch.testing.assert_close(patches[1, 4].view(4, 4, 3), image[1, :, 4:8, 4:8].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, 4, (2, 3)), image)
    done = norm_patches(torch.randn(2, 6, 48))
    torch.testing.assert_close(done.mean(-1), torch.zeros(2, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(done.var(-1), torch.ones(2, 6), atol=1e-3, rtol=0)
    assert entered(norm_pix_loss=True).chance(8)["rec_image"] == pytest.approx(done.square().mean().item(), abs=0.05)


# ------------------------------------------------------------------------------------------------------------ options

VARIANTS = [
    {"genetics": []}, {"genes": {"encoder": "snn_vec"}}, {"genes": {"dim": 64}}, {"cascade": "self_then_cross"},
    {"renorm": True, "share_heads": True, "mask_cls": False}, {"match_feature": "cls", "match_mode": "index_pairs"},
    {"match_stopgrad": "intact"}, {"match_stopgrad": "masked"}, {"reduction": "sum"}, {"norm_pix_loss": True},
    {"image": {"positions": "learned"}}, {"relations": "self"}, {"relations": "self", "match_weight": 0.0},
    {"genetics": ["burden", "cnv"], "burden_loss": "bce"}, {"missing": "drop"},
    {"view": {"fit": "stretch"}, "genes": {"normalise": "none"}},
]  # fmt: skip


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))
def test_every_variant_trains_all_its_parameters(options):
    method = entered(train=True, **options)
    out = method(batch(method, records(8, missing={1: ["snp", "burden"], 2: ["snp", "pgs", "rna", "burden", "cnv"]})))
    out.total.backward()
    assert out.total.isfinite()
    assert not [n for n, p in method.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not [n for n, p in method.named_parameters() if not p.grad.any()]
    assert ("rec_genes" in out.losses) == bool(method.widths)
    assert ("match_cross" in out.losses) == bool(method.widths)
    assert ("kept_cross_image" in out.diagnostics) == (
        bool(method.widths) and method.options.genes.encoder != "snn_vec" and method.options.relations != "self"
    )


def test_drop_path_leaves_branches_out_in_training_only():
    method = entered(train=True, image={"drop_path": 0.9}, genes={"dropout": 0.0})
    data, same = batch(method, records(4)), entered(train=True, genes={"dropout": 0.0})
    same.load_state_dict(method.state_dict())
    assert [round(b.drop_path.rate, 2) for b in method.encoder.vit.blocks] == [0.0, 0.3, 0.6, 0.9]
    assert not torch.allclose(method(data).losses["rec_image"], same(data).losses["rec_image"])
    torch.testing.assert_close(method.eval()(data).total, same.eval()(data).total)


def test_learned_positions_go_on_from_fixed_ones():
    fixed, learned = entered(), entered(image={"positions": "learned"})
    learned.load_state_dict(fixed.state_dict())  # the same name and shape
    data = batch(fixed, records(4))
    torch.testing.assert_close(learned(data).total, fixed(data).total)
    assert "encoder.vit.pos_embed" in {n for n, p in learned.named_parameters() if p.requires_grad}
    assert "encoder.vit.pos_embed" in learned.no_weight_decay()


def test_one_kind_of_relations_can_be_matched_alone():
    data = batch(entered(), records(4))
    both = entered()(data)
    parts = {kind: entered(match=kind)(data) for kind in ("self", "cross")}
    for kind, out in parts.items():
        other = {"self": "cross", "cross": "self"}[kind]
        torch.testing.assert_close(out.losses[f"match_{kind}"], both.losses[f"match_{kind}"])
        assert f"match_{other}" not in out.losses
        torch.testing.assert_close(out.total, both.total - both.losses[f"match_{other}"])
    with pytest.raises(MethodError, match=r"method\.match=cross needs method\.genetics"):
        entered(match="cross", genetics=[])


def test_image_only_has_nothing_of_the_genome():
    method = entered(genetics=[])
    assert not [n for n, _ in method.named_parameters() if "gene" in n or "cross" in n or "embed_other" in n]
    data = batch(method, records(4))
    assert set(data) == {"image", "draw"}
    z = method.encoder(normalised(data["image"]), {}, None, None)["tokens"]
    torch.testing.assert_close(
        method(data).losses["match_self"],
        0.5
        * (cosines(*[z["image"][:, 1:].mean(1)] * 2) - cosines(*[z["image_masked"][:, 1:].mean(1)] * 2))
        .square()
        .mean(),
    )


def test_missing_drop_leaves_the_whole_sample_out():
    method = entered(missing="drop")
    whole = method(batch(method, records(4)))
    more = records(5, missing={4: ["pgs"]})
    part = method(batch(method, more))
    for name, value in whole.losses.items():
        torch.testing.assert_close(part.losses[name], value, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(entered()(batch(method, more)).total, whole.total)


def test_missing_calls_are_imputed_and_no_target():
    method = entered(genetics=["snp"], genes={"normalise": "none"})
    made = records(4)
    made[0].fields["snp"][:12] = -1
    data = batch(method, made)
    method.mean_snp[:12] = torch.linspace(0, 2, 12)
    values, known = method._vectors(data)
    assert known["snp"].sum(1).tolist() == [288, 300, 300, 300]
    frequency = method.mean_snp[:12] / 2
    genotypes = torch.stack([(1 - frequency) ** 2, 2 * frequency * (1 - frequency), frequency**2])
    assert torch.equal(values["snp"][0, :12], genotypes.argmax(0).float())
    by_hand = squared_error({"snp": torch.zeros(4, 300)}, values, {"snp": known["snp"]})
    torch.testing.assert_close(
        by_hand,
        torch.stack([v[k].square().sum() for v, k in zip(values["snp"], known["snp"], strict=True)]).sum() / 1188,
    )


def test_values_and_their_yardstick():
    """Counts are centred, the rest are z-scores; the baseline is the loss of predicting the training mean."""
    made = records(6)
    for options in ({}, {"genes": {"normalise": "none"}}):
        method = entered(genetics=["snp", "pgs"], **options)
        data = batch(method, made)
        values, _ = method._vectors(data)
        snp, pgs = data["snp"].float(), data["pgs"].float()
        if not options:
            torch.testing.assert_close(values["snp"], snp - method.mean_snp)
            torch.testing.assert_close(values["pgs"], (pgs - method.mean_pgs) / method.std_pgs)
            pgs, mean = values["pgs"], torch.zeros(12)
        else:
            assert torch.equal(values["snp"], snp)
            mean = method.mean_pgs
        gaps = (snp - method.mean_snp).square().sum() + (pgs - mean).square().sum()
        torch.testing.assert_close(method(data).diagnostics["rec_genes_baseline"], gaps / (6 * 312))
    method = entered(genetics=["burden"], burden_loss="bce")
    data = batch(method, made)
    f = method.mean_burden.clamp(1e-3, 1 - 1e-3)
    bits = data["burden"].float()
    entropy = -(bits * f.log() + (1 - bits) * (1 - f).log()).mean()
    torch.testing.assert_close(method(data).diagnostics["rec_genes_baseline"], entropy)


def test_wrong_codes_and_widths_are_refused_by_name():
    method = entered(genetics=["snp"])
    [record] = records(1)
    record.fields["snp"][3] = 3
    with pytest.raises(MethodError, match=r"sample s0000: 'snp' holds \[3.0\]; genotypes are 0, 1, 2, and -1"):
        batch(method, [record])
    record.fields["snp"] = record.fields["snp"][:7]
    with pytest.raises(MethodError, match=r"shape \(7,\), not \(300,\)"):
        batch(method, [record])


def test_all_problems_of_the_options_at_once():
    with pytest.raises(MethodError) as e:
        build(
            "mrm_relation",
            genetics=["snp", "eye_colour", "patches"],
            image={"dim": 90, "heads": 5, "positions": "learned"},
            genes={"dim": 36},
            cross_attn_blocks=[1, 0],
        )
    text = str(e.value)
    for part in ("no field 'eye_colour'", "field 'patches'", "method.genes.dim: 36", "cross_attn_blocks"):
        assert part in text


def test_gene_encoder_takes_no_weight_decay():
    groups = {g.name: g for g in entered(genes={"lr_scale": 0.5}).param_groups()}
    assert groups["genes"].decay_scale == 0
    assert groups["genes"].lr_scale == 0.5
    assert groups["decay"].decay_scale == 1


# -------------------------------------------------------------------------------------------------------------- images


def test_images_are_fitted_and_augmented():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (40, 60), dtype=np.uint8)
    assert fitted(grey, 32).shape == fitted(grey[..., None], 32, "stretch").shape == (32, 32, 3)
    np.testing.assert_array_equal(fitted(grey[:, 10:50], 40)[..., 0], fitted(grey, 40)[..., 1])
    image = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(augment(image, rng, 0, 1.0), image[:, ::-1])
    np.testing.assert_array_equal(augment(image, rng, 0, 0.0), image)
    assert not np.array_equal(augment(image, rng, 20, 0.0), image)
    np.testing.assert_array_equal(to_pixels(normalised(torch.from_numpy(image[None])))[0], image)


def test_pictures():
    method = entered(train=True)
    data = batch(method, records(9, missing={1: ["image"], 2: ["snp", "pgs", "rna"]}))
    made = method.pictures(data)
    side = method.options.image.image_size
    assert made["reconstruction"].shape == (2 * side, 8 * side, 3)
    assert made["similarity"].shape == (2 * (8 * CELL + 2), 2 * (8 * CELL + 2), 3)
    assert all(p.dtype == np.uint8 for p in made.values())
    assert method.training
    np.testing.assert_array_equal(made["reconstruction"], method.pictures(data)["reconstruction"])
    assert tuple(made["similarity"][2, 2]) == (253, 231, 37), "a sample is like itself"
    assert entered(genetics=[], norm_pix_loss=True).pictures(data)["similarity"].shape[1] == 8 * CELL + 2
