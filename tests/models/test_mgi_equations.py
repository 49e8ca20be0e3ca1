"""MGI's equations, each against a few literal lines written from the papers (Zhou et al. 2024; Gu and Dao 2023)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import batch, build, records, schema

from models.contract import MethodError, Schema
from models.encoders.mamba import GeneMamba, GeneTokens, PooledGenes
from models.encoders.positions import sincos_2d
from models.encoders.vit import ViT
from models.layers.mamba import Mamba, MambaBlock
from models.layers.pooling import MixedPooling
from models.losses.contrastive import Temperature, all_pairs, chance, joint, retrieval, symmetric
from models.pictures import CELL
from models.transforms.slices import augmented, resized, zscored

# --------------------------------------------------------------------------------------------- section 2.3: contrastive


def views(B=6, C=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, C, generator=g, dtype=torch.float64), torch.randn(B, C, generator=g, dtype=torch.float64)


def pairs_of(I_BC, G_BC, tau=0.2, weight=None, patient=None, same="positive"):
    B = len(I_BC)
    weight = torch.ones(B) if weight is None else weight
    patient = torch.arange(B) if patient is None else patient
    return all_pairs(I_BC, G_BC, torch.tensor(1 / tau), weight, patient, same)


def literal_cosines(I_BC, G_BC):
    return [[float(i @ g / i.norm() / g.norm()) for g in G_BC] for i in I_BC]


def test_joint_is_equation_1_with_minus_and_mean():
    I_BC, G_BC = views()
    s, tau, B = literal_cosines(I_BC, G_BC), 0.2, 6
    below = sum(math.exp(s[j][k] / tau) for j in range(B) for k in range(B))
    literal = -sum(math.log(math.exp(s[i][i] / tau) / below) for i in range(B)) / B
    assert float(joint(pairs_of(I_BC, G_BC))) == pytest.approx(literal, rel=1e-5)


def test_symmetric_is_two_cross_entropies():
    I_BC, G_BC = views()
    s, tau, B = literal_cosines(I_BC, G_BC), 0.2, 6
    to_gene = [-math.log(math.exp(s[i][i] / tau) / sum(math.exp(s[i][k] / tau) for k in range(B))) for i in range(B)]
    to_image = [-math.log(math.exp(s[i][i] / tau) / sum(math.exp(s[k][i] / tau) for k in range(B))) for i in range(B)]
    literal = (sum(to_gene) + sum(to_image)) / (2 * B)
    assert float(symmetric(pairs_of(I_BC, G_BC))) == pytest.approx(literal, rel=1e-5)


@pytest.mark.parametrize("B", [2, 8])
def test_chance_and_floor(B):
    same = torch.ones(B, 4)
    assert float(symmetric(pairs_of(same, same))) == pytest.approx(math.log(B), rel=1e-5)
    assert float(joint(pairs_of(same, same))) == pytest.approx(2 * math.log(B), rel=1e-5)
    for weight, count in ((None, B), (torch.arange(B) > 0, B - 1)):
        pairs = pairs_of(same, same, weight=weight)
        assert chance(pairs).item() == pytest.approx(symmetric(pairs).item(), abs=1e-6)
        assert chance(pairs, whole=True).item() == pytest.approx(2 * math.log(count), abs=1e-6)
    apart = torch.eye(B)
    assert float(symmetric(pairs_of(apart, apart, tau=0.01))) == pytest.approx(0, abs=1e-5)
    assert float(joint(pairs_of(apart, apart, tau=0.01))) == pytest.approx(math.log(B), rel=1e-5)


def test_method_states_its_chance():
    assert build("mgi", loss="symmetric").chance(8)["contrastive"] == pytest.approx(math.log(8))
    assert build("mgi", loss="joint").chance(8)["contrastive"] == pytest.approx(2 * math.log(8))


def test_samples_without_weight_are_in_no_pair():
    I_BC, G_BC = views()
    weight = torch.tensor([1.0, 0, 1, 1, 0, 1])
    keep = weight > 0
    for loss in (symmetric, joint):
        whole = loss(pairs_of(I_BC, G_BC, weight=weight))
        assert float(whole) == pytest.approx(float(loss(pairs_of(I_BC[keep], G_BC[keep]))), rel=1e-6)
        assert float(loss(pairs_of(I_BC, G_BC, weight=torch.zeros(6)))) == 0.0


@pytest.mark.parametrize("loss", [symmetric, joint])
def test_gradient_stays_finite_without_any_pair(loss):
    I_BC, G_BC = views()
    I_BC.requires_grad_()
    loss(pairs_of(I_BC, G_BC, weight=torch.zeros(6))).backward()
    assert I_BC.grad.isfinite().all()


def test_two_slices_of_a_patient():
    I_BC, G_BC = views(4)
    patient = torch.tensor([7, 7, 8, 9])
    s, tau = literal_cosines(I_BC, G_BC), 0.2

    def row(i, positives, candidates, flip=False):
        at = (lambda i, k: s[k][i]) if flip else (lambda i, k: s[i][k])
        below = sum(math.exp(at(i, k) / tau) for k in candidates)
        return -sum(math.log(math.exp(at(i, k) / tau) / below) for k in positives) / len(positives)

    everyone = range(4)
    groups = {0: [0, 1], 1: [0, 1], 2: [2], 3: [3]}
    positive = sum(row(i, groups[i], everyone, f) for i in everyone for f in (False, True)) / 8
    assert float(symmetric(pairs_of(I_BC, G_BC, patient=patient))) == pytest.approx(positive, rel=1e-5)
    left = {0: [0, 2, 3], 1: [1, 2, 3], 2: everyone, 3: everyone}
    ignore = sum(row(i, [i], left[i], f) for i in everyone for f in (False, True)) / 8
    assert float(symmetric(pairs_of(I_BC, G_BC, patient=patient, same="ignore"))) == pytest.approx(ignore, rel=1e-5)
    plain = float(symmetric(pairs_of(I_BC, G_BC)))
    assert float(symmetric(pairs_of(I_BC, G_BC, patient=patient, same="negative"))) == pytest.approx(plain, rel=1e-6)
    assert len({round(positive, 4), round(ignore, 4), round(plain, 4)}) == 3


def test_retrieval_counts_nearest():
    I_BC = torch.eye(4)
    found = retrieval(pairs_of(I_BC, I_BC[[0, 1, 3, 2]]))
    assert float(found["top1_a_to_b"]) == 0.5
    assert float(found["top1_b_to_a"]) == 0.5


def test_temperature_is_clamped_but_can_rise_again():
    t = Temperature(0.07, learn=True, floor=0.01)
    assert t().item() == pytest.approx(1 / 0.07, rel=1e-5)
    with torch.no_grad():
        t.log_scale.fill_(9.0)
    assert t().item() == pytest.approx(100, rel=1e-4)
    t().sum().backward()
    assert float(t.log_scale.grad) > 0
    assert not list(Temperature(learn=False).parameters())


# --------------------------------------------------------------------------------------- section 2.2: pooling, tokens


def test_mixed_pooling():
    x_BLD = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    for pool in (MixedPooling(0.3), MixedPooling(0.3, learn=True)):
        torch.testing.assert_close(pool(x_BLD), 0.3 * x_BLD.max(1).values + 0.7 * x_BLD.mean(1))


def test_chunk_tokens():
    torch.manual_seed(0)
    encoder = GeneMamba(10, dim=8, depth=1, states=4, tokens="chunk", chunk=4)
    genes_BG, embed = torch.randn(2, 10), encoder.embed
    padded = torch.cat([genes_BG, torch.zeros(2, 2)], 1)
    literal = [padded[:, i : i + 4] @ embed.proj.weight.T + embed.proj.bias + embed.place_LC[i // 4] for i in (0, 4, 8)]
    torch.testing.assert_close(embed(genes_BG), torch.stack(literal, 1))
    assert encoder(genes_BG).shape == (2, encoder.count, 8) == (2, 3, 8)


def test_per_gene_tokens():
    torch.manual_seed(0)
    embed, genes_BG = GeneTokens(5, 8), torch.randn(2, 5)
    literal = [[v * embed.weight_C + embed.bias_C + embed.place_LC[i] for i, v in enumerate(row)] for row in genes_BG]
    torch.testing.assert_close(embed(genes_BG), torch.stack([torch.stack(row) for row in literal]))


def test_gene_parts_equal_the_whole_batch():
    torch.manual_seed(0)
    encoder, genes_BG = GeneMamba(20, dim=8, depth=2, states=4, tokens="per_gene"), torch.randn(5, 20)
    results = []
    for micro in (None, 2):
        encoder.zero_grad()
        pooled = PooledGenes(encoder, MixedPooling(), micro)(genes_BG)
        pooled.square().sum().backward()
        results.append([pooled.detach(), *(p.grad.clone() for p in encoder.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ section 2.2: Mamba


def literal_mamba(m: Mamba, x_LC):
    """One sequence, one step after another (Gu and Dao 2023, algorithm 2 and figure 3)."""
    inner = m.D.numel()
    x_LD, gate_LD = (x_LC @ m.in_proj.weight.T).split(inner, -1)
    padded = torch.cat([x_LD.new_zeros(m.kernel - 1, inner), x_LD])
    conv = [(padded[t : t + m.kernel] * m.conv1d.weight[:, 0].T).sum(0) + m.conv1d.bias for t in range(len(x_LD))]
    x_LD = F.silu(torch.stack(conv))
    dt, B, C = (x_LD @ m.x_proj.weight.T).split([m.rank, m.states, m.states], -1)
    delta = F.softplus(dt @ m.dt_proj.weight.T + m.dt_proj.bias)
    A, h, y = -m.A_log.exp(), x_LD.new_zeros(inner, m.states), []
    for t in range(len(x_LD)):
        h = torch.exp(delta[t][:, None] * A) * h + (delta[t] * x_LD[t])[:, None] * B[t]
        y.append(h @ C[t] + m.D * x_LD[t])
    return (torch.stack(y) * F.silu(gate_LD)) @ m.out_proj.weight.T


def test_mamba_block_is_its_equations():
    torch.manual_seed(0)
    m, x_BLC = Mamba(8, states=4).double(), torch.randn(2, 11, 8, dtype=torch.float64)
    torch.testing.assert_close(m(x_BLC), torch.stack([literal_mamba(m, x) for x in x_BLC]))


def test_mamba_exchanges_weights_with_another_implementation():
    from mambapy.mamba import MambaBlock as Theirs
    from mambapy.mamba import MambaConfig

    torch.manual_seed(0)
    ours, theirs = Mamba(32), Theirs(MambaConfig(d_model=32, n_layers=1))
    nine = {"A_log", "D", "in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight",
            "dt_proj.bias", "out_proj.weight"}  # fmt: skip
    assert set(ours.state_dict()) == nine == set(theirs.state_dict())
    x_BLC = torch.randn(2, 21, 32)
    assert not torch.allclose(ours(x_BLC), theirs(x_BLC), atol=1e-3)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(ours(x_BLC), theirs(x_BLC), rtol=1e-4, atol=1e-5)
    theirs.load_state_dict(Mamba(32).state_dict(), strict=True)


def test_mamba_starts_as_the_paper_says():
    torch.manual_seed(0)
    m = Mamba(64)
    torch.testing.assert_close(-m.A_log.exp(), -torch.arange(1.0, 17).repeat(128, 1))
    steps = F.softplus(m.dt_proj.bias)
    assert 1e-3 <= steps.min() < 3e-3
    assert 3e-2 < steps.max() <= 0.1 + 1e-6
    assert m.rank == 4
    assert m.D.eq(1).all()


def test_mamba_is_causal_and_bidirectional_is_not():
    torch.manual_seed(0)
    x_BLC = torch.randn(1, 9, 8)
    changed = x_BLC.clone()
    changed[:, 5] += 1
    one, both = MambaBlock(8, 4), MambaBlock(8, 4, bidirectional=True)
    assert torch.equal(one(x_BLC)[:, :5], one(changed)[:, :5])
    assert not torch.equal(one(x_BLC)[:, 5:], one(changed)[:, 5:])
    assert not torch.equal(both(x_BLC)[:, :5], both(changed)[:, :5])


# -------------------------------------------------------------------------------------------------- section 2.2: images


def test_vit_is_timms_with_its_weights(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64, depth=2, num_classes=0)
    theirs.global_pool = ""
    torch.save({"model": theirs.state_dict()}, tmp_path / "weights.pth")
    ours, x_BCHW = ViT(64, 16, dim=192, depth=2, heads=3, positions="learned"), torch.randn(2, 3, 64, 64)
    assert "0 skipped" in str(ours.load_weights(tmp_path / "weights.pth"))
    torch.testing.assert_close(ours(x_BCHW), theirs.eval().forward_features(x_BCHW), rtol=1e-4, atol=1e-5)
    larger = ViT(96, 16, dim=192, depth=2, heads=3, cls_token=False)
    assert larger.load_weights(tmp_path / "weights.pth").skipped == ("cls_token",)
    with pytest.raises(MethodError, match=r"another shape: .*qkv.weight is \(576, 192\)"):
        ViT(64, 16, dim=96, depth=2, heads=3).load_weights(tmp_path / "weights.pth")
    with pytest.raises(MethodError, match=r"lacks 12 of .*blocks\.2\.norm1\.weight"):
        ViT(64, 16, dim=192, depth=3, heads=3).load_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("name", "size"), [("vit_base_patch16_224", (768, 12, 12)), ("vit_small_patch16_224", (384, 12, 6))]
)
def test_timms_models_have_our_names_and_shapes(name, size):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
        dim, depth, heads = size
        ours = ViT(224, 16, dim=dim, depth=depth, heads=heads, positions="learned").state_dict()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}


def test_sincos_positions_are_mae_s():
    places, D, row, column = sincos_2d(3, 5, 16), 16, 2, 4
    rate = [1 / 10_000 ** (i / (D // 4)) for i in range(D // 4)]
    literal = [f(p * r) for p in (column, row) for f in (math.sin, math.cos) for r in rate]
    torch.testing.assert_close(places[row * 5 + column], torch.tensor(literal))


def test_kept_patches_keep_their_positions():
    torch.manual_seed(0)
    vit, x_BCHW = ViT(32, 8, dim=16, depth=1, heads=2), torch.randn(2, 3, 32, 32)
    keep_BK = torch.tensor([[5, 0], [3, 7]])
    all_BLD, some_BLD = vit.embed(x_BCHW), vit.embed(x_BCHW, keep_BK)
    for i in range(2):
        assert torch.equal(some_BLD[i], all_BLD[i, [0, *(1 + keep_BK[i])]])
    assert torch.equal(vit(some_BLD), vit(x_BCHW, keep_BK))


def test_slices_are_zscored():
    x = torch.randint(0, 256, (2, 6, 6, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x[1] = 9
    z = zscored(x)
    assert z[0].mean() == pytest.approx(0, abs=1e-5)
    assert z[0].std(correction=0) == pytest.approx(1, abs=1e-5)
    assert not z[1].any()


def test_augmentation_keeps_the_centre_and_identity():
    rng = np.random.default_rng(0)
    image = np.zeros((41, 41, 1), np.uint8)
    image[18:23, 18:23] = 200
    assert np.array_equal(augmented(image, rng, 0, 0, 0), image)
    assert np.array_equal(augmented(image, rng, 0, 0, 1), image[:, ::-1])
    turned = augmented(image, np.random.default_rng(1), 15, 0.1, 0.5)
    assert turned.shape == image.shape
    assert turned[20, 20, 0] == 200
    assert not np.array_equal(turned, image)
    assert resized(image, 16).shape == (16, 16, 1)


def test_mirrored_rotation_is_the_mirror_of_one():
    image = np.random.default_rng(0).integers(0, 255, (33, 33, 3), dtype=np.uint8)
    plain, mirrored = (augmented(image, np.random.default_rng(3), 15, 0.1, f) for f in (0, 1))
    difference = np.abs(plain[:, ::-1].astype(int) - mirrored.astype(int)).max()
    # The mirror of the source, then the same turn: equal to turning the mirrored image.
    turned = augmented(np.ascontiguousarray(image[:, ::-1]), np.random.default_rng(3), 15, 0.1, 0)
    assert min(difference, np.abs(turned.astype(int) - mirrored.astype(int)).max()) <= 2


# ------------------------------------------------------------------------------------------------------- options, refusals


def test_channels():
    image = np.stack([np.full((64, 64), v, np.uint8) for v in (10, 20, 30)], -1)
    for channels, values in (("flair", [20]), ("all3", [10, 20, 30])):
        method = build("mgi", view={"channels": channels})
        record = records(1)[0]
        record.fields["image"] = image
        assert method.sample(record, np.random.default_rng(0)).arrays["image"][5, 5].tolist() == values
    record.fields["image"] = image[..., :1]
    with pytest.raises(MethodError, match="all3, but its image has 1"):
        method.sample(record, np.random.default_rng(0))


def test_loss_of_the_method_is_the_equation():
    method = build("mgi", loss="joint")
    method.enter("pretrain")
    data = batch(method, records(6))
    out = method(data)
    z = (data["rna"].float() - method.gene_mean_G) / method.gene_std_G
    tokens = method.image(zscored(data["image"]).expand(-1, 3, -1, -1))
    pooled = [0.5 * t.amax(1) + 0.5 * t.mean(1) for t in (tokens, method.genes.encoder(z))]
    s = literal_cosines(method.image_proj(pooled[0]).double(), method.gene_proj(pooled[1]).double())
    tau = method.options.temperature
    below = sum(math.exp(v / tau) for row in s for v in row)
    literal = -sum(math.log(math.exp(s[i][i] / tau) / below) for i in range(6)) / 6
    assert float(out.total) == pytest.approx(literal, rel=1e-4)


def changed_schema(**fields):
    return Schema({**schema().fields, **fields}, schema().labels, "the other data set")


def test_constant_genes():
    from dataclasses import replace

    rna = schema().fields["rna"]
    std = rna.std.copy()
    std[[3, 9]] = 0
    method_class = type(build("mgi"))
    given = {"genes": {"tokens": "per_gene", "dim": 16}, "image": {"image_size": 32, "dim": 16, "heads": 2, "depth": 1}}
    for drop, tokens in ((False, rna.shape[0]), (True, rna.shape[0] - 2)):
        options = method_class.Options.parse(method_class.Options.over(given, {"genes": {"drop_constant": drop}}))
        method = method_class(options, changed_schema(rna=replace(rna, std=std)))
        assert method.genes.encoder.count == tokens
        z = method._expression(batch(method, records(2)))
        assert z.isfinite().all()
        assert z.abs().max() < 50


def test_weights_of_another_gene_order_are_refused():
    from dataclasses import replace

    one, rna = build("mgi"), schema().fields["rna"]
    other = type(one)(one.options, changed_schema(rna=replace(rna, vocabulary=rna.vocabulary[::-1])))
    one.load_state_dict(build("mgi", seed=3).state_dict())
    with pytest.raises(MethodError, match="in another order"):
        other.load_state_dict(one.state_dict())


def test_genes_that_are_not_finite_are_refused():
    method, record = build("mgi"), records(1)[0]
    record.fields["rna"][4] = np.nan
    with pytest.raises(MethodError, match=r"s0000: 1 gene values are not finite"):
        method.sample(record, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"image": {"init": "file"}}, "init_file=FILE go together"),
        ({"alpha": 1.0, "learn_alpha": True}, "cannot be learned"),
        ({"min_temperature": 0.5}, "above method.temperature"),
        ({"image": {"image_size": 50, "patch": 16}}, "not a multiple of the patch"),
    ],
)
def test_options_that_do_not_fit(given, why):
    with pytest.raises(MethodError, match=why):
        build("mgi", **given)


@pytest.mark.parametrize(
    "given",
    [
        {"genes": {"tokens": "per_gene", "micro": 2}},
        {"genes": {"bidirectional": True}, "learn_alpha": True},
        {"image": {"cls_token": True, "positions": "learned", "drop_path": 0.2}},
        {"loss": "joint", "same_patient": "ignore", "learn_temperature": False, "genes": {"normalise": "none"}},
        {"view": {"channels": "all3"}, "order": "shuffle"},
    ],
)
def test_every_option_trains(given):
    method = build("mgi", **given)
    method.enter("pretrain")
    out = method(batch(method, records(6)))
    out.total.backward()
    missing = [n for n, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not missing
    assert out.total.isfinite()


def test_dropped_genes_are_their_mean_and_others_at_every_visit():
    method, record = build("mgi", genes={"drop": 0.5}), records(1)[0]
    method.enter("pretrain")
    a, b = (method.sample(record, np.random.default_rng(i)).arrays["rna"] for i in (0, 1))
    changed = a != record.fields["rna"]
    assert 0.25 < changed.mean() < 0.75
    np.testing.assert_array_equal(a[changed], method.gene_mean[changed].astype(np.float16))
    assert not np.array_equal(a, b)
    method.enter("")
    deployed = method.sample(record, np.random.default_rng(0)).arrays["rna"]
    np.testing.assert_array_equal(deployed, record.fields["rna"])


@pytest.mark.parametrize("how", ["absent", "mean"])
def test_genes_that_are_missing_are_nothing_or_the_mean_genome(how):
    method = build("mgi", genes={"missing": how}).eval()
    data = batch(method, records(3, missing={1: ["rna"]}))
    half = method.encode(data)["pooled_BD"][:, method.options.image.dim :]
    tokens, real = method.encode(data).tokens_of("genes")
    mean_genome = method.genes(torch.zeros(1, method.n_genes))[0]
    torch.testing.assert_close(half[1], mean_genome if how == "mean" else torch.zeros_like(mean_genome))
    torch.testing.assert_close(tokens[1], method.genes.encoder(torch.zeros(1, method.n_genes))[0])
    assert real.all(1).tolist() == [True, how == "mean", True]
    method.enter("pretrain")
    data, both = batch(method, records(3, missing={1: ["rna"]})), batch(method, [records(3)[i] for i in (0, 2)])
    torch.testing.assert_close(method(data).total, method(both).total)


def test_pictures():
    method = build("mgi")
    method.enter("pretrain")
    method.train()
    data = batch(method, records(10))
    made = method.pictures(data)
    assert method.training
    assert made["slices"].shape == (method.options.image.image_size, 8 * method.options.image.image_size, 3)
    assert made["similarity"].shape == (8 * CELL + 2, 8 * CELL + 2, 3)
    assert all(p.dtype == np.uint8 for p in made.values())
