"""TANGLE against its equations written out bag by bag, and against the published code's numbers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slides
import torch
from synthetic import MemoryRecord

from models.contract import MethodError
from models.losses.spread import smooth_rank
from models.registry import get_method

SMALL = {"hidden": 4, "tau": 0.1, "gene_hidden": 5}
LAYER = ("weight", "bias")


def begun(**options):
    method = slides.build("tangle", **{**SMALL, **options})
    method.enter("pretrain")
    return method


def trained_on(made, **given):
    """A batch of the stage `pretrain`, each bag a patient of its own."""
    batch = slides.batch_of(made, **given)
    batch["patient"] = torch.arange(len(made))
    return batch


def literal(method, x, heads=1, activation="softmax"):
    """The vector of one bag in double precision, patch by patch."""
    W = {n: p.detach().double() for n, p in method.slide.named_parameters()}
    rows = []
    for v in x.double():
        for i in range(0, len(method.slide.embed), 4):
            v = W[f"embed.{i}.weight"] @ v + W[f"embed.{i}.bias"]
            v = (v - v.mean()) / (v.var(unbiased=False) + 1e-5).sqrt() * W[f"embed.{i + 1}.weight"]
            v = v + W[f"embed.{i + 1}.bias"]
            v = v * (1 + torch.erf(v / math.sqrt(2))) / 2
        rows.append(v)
    pooled = []
    for k in range(heads):
        A = {n: W[f"attention.{k}.{n}"] for p in ("tanh", "gate", "weigh") for n in (f"{p}.weight", f"{p}.bias")}
        parts = [v[k::heads] for v in rows]  # every K-th number is a head's
        score = []
        for v in parts:
            a = (A["tanh.weight"] @ v + A["tanh.bias"]).tanh() / (1 + (-(A["gate.weight"] @ v + A["gate.bias"])).exp())
            score.append(A["weigh.weight"][0] @ a + A["weigh.bias"][0])
        s = torch.stack(score)
        weight = {
            "softmax": lambda s: s.softmax(0),
            "sigmoid": lambda s: s.sigmoid() / len(s),
            "relu": lambda s: s.clamp_min(0),
        }
        pooled.append(sum(w * v for w, v in zip(weight[activation](s), parts, strict=True)))
    if heads == 1:
        return pooled[0]
    joined = torch.stack([pooled[i % heads][i // heads] for i in range(heads * len(pooled[0]))])
    return W["join.weight"] @ joined + W["join.bias"]


@pytest.mark.parametrize(
    ("options", "heads"),
    [({}, 1), ({"activation": "sigmoid"}, 1), ({"activation": "relu"}, 1), ({"version": "v2", "heads": 3}, 3)],
)
def test_a_slide_is_the_weighted_sum_of_its_embedded_patches(options, heads):
    method, made = begun(**options), slides.bags()
    x, mask = method.bags(slides.batch_of(made, float("nan")))
    h_BND, slide_BE = method.slide(x, mask)
    for bag, z in zip(made, slide_BE, strict=True):
        wanted = literal(method, bag, heads, options.get("activation", "softmax"))
        torch.testing.assert_close(z.double(), wanted, rtol=1e-5, atol=1e-6)
    assert method.slide.scores(h_BND).shape == (*mask.shape, heads)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_loss_is_the_cross_entropy_of_cosines_over_the_temperature(symmetric):
    method, made = begun(symmetric=symmetric), slides.bags()
    batch = trained_on(made)
    out = method(batch)
    a = torch.stack([literal(method, x) for x in made])
    b = method.genes(method.expression(batch)).detach().double()
    score = (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T / 0.1
    there = -sum(score[i, i] - score[i].exp().sum().log() for i in range(4)) / 4
    back = -sum(score[i, i] - score[:, i].exp().sum().log() for i in range(4)) / 4
    torch.testing.assert_close(out.total.double(), (there + back) / 2 if symmetric else there, rtol=1e-4, atol=1e-5)


def test_slides_of_one_patient_are_no_negatives_unless_published():
    batch = trained_on(slides.bags((5, 3, 4)))
    batch["patient"][1] = 0
    said = {s: begun(same_patient=s)(batch).total.item() for s in ("positive", "ignore", "negative")}
    assert len(set(said.values())) == 3
    assert begun()(batch).total.item() == said["positive"]
    assert begun(conventions="published")(batch).total.item() == said["negative"]


def test_a_pair_without_slide_or_genes_is_in_no_comparison():
    method, made = begun(), slides.bags((5, 3, 4, 2))
    whole = trained_on(made[:2])
    lacking = trained_on([*made[:2], made[2][:0], made[3]], fill=float("nan"))
    lacking.present["rna"][3], lacking["rna"][3] = False, torch.nan
    a, b = method(whole), method(lacking)
    for key in ("slide_to_genes", "cosine_positive", "contrast_chance"):
        torch.testing.assert_close(b.diagnostics[key], a.diagnostics[key])
    torch.testing.assert_close(b.total, a.total)
    b.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_genes_are_predicted_by_their_mean_square():
    method = begun(objective="reconstruct")
    batch = trained_on(slides.bags())
    out = method(batch)
    guess = method.decoder(method.slide(*method.bags(batch))[1])
    z = method.expression(batch)
    torch.testing.assert_close(out.total, sum(((g - x) ** 2).mean() for g, x in zip(guess, z, strict=True)) / 4)
    torch.testing.assert_close(out.diagnostics["mean_genome"], (z**2).mean())
    assert method.inputs == ("patches",)
    assert method.encode(slides.batch_of(slides.bags()))["pooled_BD"].shape == (4, slides.F)


@pytest.mark.parametrize("masks", ["intended", "official"])
def test_the_second_view_hides_half_of_the_places_or_as_published_none(masks):
    method, made = begun(objective="intra", masks=masks), slides.bags((9, 4))
    batch = trained_on(made, fill=float("nan"))
    batch["keep"] = torch.zeros(2, 9, dtype=torch.bool)
    batch["keep"][0, :5], batch["keep"][1, 1:3] = True, True
    out = method(batch)
    gap = []
    for x, keep in zip(made, batch["keep"], strict=True):
        keep = keep[: len(x)]
        other = x * keep[:, None] if masks == "intended" else x * (~keep).sum()
        gap.append((literal(method, other) - literal(method, x)).square().mean())
    torch.testing.assert_close(out.total.double(), (gap[0] + gap[1]) / 2, rtol=1e-4, atol=1e-7)


def visit(method, N, seed=0):
    record = MemoryRecord("s", "p", {}, {"patches": np.arange(N, dtype=np.float16)[:, None].repeat(slides.F, 1)})
    made = method.sample(record, np.random.default_rng(seed))
    return made.arrays["patches"][:, 0].astype(int), made


def test_patches_are_drawn_once_each_or_as_published_with_replacement():
    once, again = (begun(tokens=6, conventions=c) for c in ("recommended", "published"))
    drawn = [visit(once, 50, s)[0] for s in range(200)]
    assert all(len(set(d)) == 6 and (np.diff(d) > 0).all() for d in drawn)
    assert set(np.concatenate(drawn)) == set(range(50))
    assert visit(once, 4)[0].tolist() == [0, 1, 2, 3]
    assert visit(begun(tokens=None), 50)[0].tolist() == list(range(50))
    assert all(len(visit(again, n)[0]) == 6 for n in (50, 6, 1))
    assert len({len(set(visit(again, 6, s)[0])) for s in range(20)}) > 1
    method = begun(objective="intra", tokens=7)
    kept = [visit(method, 50, s)[1].arrays["keep"] for s in range(50)]
    assert {int((~k).sum()) for k in kept} == {4}
    assert np.stack(kept).any(0).all()
    once.enter("")
    assert len(visit(once, 50)[0]) == 50


def test_bags_of_several_lengths_and_their_hidden_places_are_padded():
    method = begun(objective="intra")
    batch = method.collate([visit(method, n)[1] for n in (5, 2)])
    assert batch["keep"].shape == (2, 5)
    assert batch["length"].tolist() == [5, 2]
    assert int((~batch["keep"][0]).sum()) == 2
    assert method(batch).total.isfinite()


def test_most_varying_genes_but_no_more_than_there_are():
    assert begun(genes={"top": 3}).genes.layers[0].in_features == 3
    assert begun(genes={"top": 3}).gene_index_G.tolist() == [5, 6, 7]
    assert begun().genes.layers[0].in_features == slides.GENES
    wide = {
        c: begun(gene_hidden=None, conventions=c).genes.layers[0].out_features for c in ("recommended", "published")
    }
    assert set(wide.values()) == {slides.GENES}
    torch.manual_seed(0)
    cls = get_method("tangle")
    large: Any = cls(cls.Options(), slides.schema(slides.F, 6000))
    assert large.genes.layers[0].weight.shape == (2048, 5000)


def test_what_chooses_the_weights_fits_the_objective():
    def chosen(**options):
        return begun(**options).stages()[0].select

    assert chosen() == ("slide_to_genes", "max")
    assert chosen(conventions="published") == ("smooth_rank", "max")
    assert chosen(objective="reconstruct", conventions="published") is None
    assert chosen(objective="intra", conventions="published") == ("smooth_rank", "max")
    assert chosen(select="last") is None
    with pytest.raises(
        MethodError, match=r"val_recall, but method\.objective=intra finds nothing; set method\.select=last"
    ):
        get_method("tangle").Options.parse({"objective": "intra", "select": "val_recall"})


def test_smooth_rank_counts_directions():
    x = torch.eye(4)[torch.arange(12) % 3]
    torch.testing.assert_close(smooth_rank(x), torch.tensor(3.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(smooth_rank(x[:1].expand(5, 4)), torch.tensor(1.0), rtol=1e-4, atol=0)
    assert smooth_rank(x[:0]) == 0
    assert smooth_rank(x * torch.nan).isnan()


# ------------------------------------------------------------------------------------------------------ the published code

N, B, WIDTH, GENES = 24, 5, 48, 30


def slide_names(variant: str) -> dict[str, str]:
    """{part here: part there} of the slide encoder."""
    heads = 2 if variant == "v2" else 1
    names: dict[str, str] = {}
    for i in range(3 if variant == "v2" else 2):
        names |= {f"slide.embed.{4 * i + j}": f"pre_attn.{4 * i + j}" for j in (0, 1)}
    for k in range(heads):
        own = f"attn.{k}." if heads > 1 else "attn."
        names |= {
            f"slide.attention.{k}.{ours}": own + theirs
            for ours, theirs in (("tanh", "attention_a.0"), ("gate", "attention_b.0"), ("weigh", "attention_c"))
        }
    if heads > 1:
        names["slide.join"] = "proj_multihead"
    return {a: f"wsi_embedder.{b}" for a, b in names.items()}


def mlp_names(here: str, there: str) -> dict[str, str]:
    places = ((0, "0.0"), (1, "0.1"), (4, "1.0"), (5, "1.1"), (8, "2"))
    return {f"{here}.layers.{i}": f"{there}.blocks.{name}" for i, name in places}


def published(real_data: Path, variant: str, **options) -> SimpleNamespace:
    gold = slides.golden(real_data, "tangle")
    torch.manual_seed(0)
    given = {"conventions": "published", "genes": {"normalise": "none"}, **options}
    method = slides.build("tangle", WIDTH, GENES, **given)
    names = slide_names(variant)
    if method.genes is not None:
        names |= mlp_names("genes", "rna_embedder")
    if method.decoder is not None:
        names |= mlp_names("decoder", "rna_reconstruction")
    names = {f"{a}.{w}": f"{b}.{w}" for a, b in names.items() for w in LAYER}
    slides.load(method, gold.weights(variant), names)
    method.enter("pretrain")
    x = torch.from_numpy(gold.rule.normal("input.patches", (B, N, WIDTH)))
    genes = torch.from_numpy(gold.rule.normal("input.genes", (B, GENES)))
    batch = trained_on(list(x), genes=list(genes))
    return SimpleNamespace(gold=gold, method=method, names=names, batch=batch, x=x, genes=genes)


def same_gradients(p: SimpleNamespace, total: torch.Tensor, key: str) -> None:
    p.method.zero_grad(set_to_none=True)
    total.backward()
    found = {theirs: q.grad for ours, theirs in p.names.items() if (q := p.method.get_parameter(ours)).grad is not None}
    stored = [k for k in p.gold.numbers.files if k.startswith(f"{key}/grad/")]
    assert stored
    for k in stored:
        p.gold.equal(found[k.removeprefix(f"{key}/grad/")].norm(), k, 1e-4)


@pytest.mark.real
@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("v1", {}),
        ("v1.hidden32", {"hidden": 32}),
        ("v1.sigmoid", {"activation": "sigmoid"}),
        ("v2", {"version": "v2", "hidden": 32}),
    ],
)
def test_published_comparison_on_the_same_weights(variant, options, real_data: Path):
    for tau in ("0.01", "0.1"):
        for way, symmetric in (("symmetric", True), ("slide_to_rna", False)):
            p = published(real_data, variant, tau=float(tau), symmetric=symmetric, **options)
            pooled = p.method.encode(p.batch)["pooled_BD"]
            p.gold.equal(pooled[:, : p.method.width], f"{variant}/slide")
            p.gold.equal(pooled[:, p.method.width :], f"{variant}/rna")
            first = slides.batch_of([x[:1] for x in p.x], genes=list(p.genes))
            p.gold.equal(p.method.encode(first)["pooled_BD"][:, : p.method.width], f"{variant}/n1/slide")
            if variant != "v2":
                p.gold.equal(p.method.slide.scores(p.method.slide.embed(p.x)), f"{variant}/attention_raw")
            loss = p.method(p.batch).total
            p.gold.equal(loss, f"{variant}/t{tau}/{way}/loss")
            if symmetric:
                same_gradients(p, loss, f"{variant}/t{tau}")


@pytest.mark.real
def test_published_reconstruction_on_the_same_weights(real_data: Path):
    p = published(real_data, "rec", objective="reconstruct")
    z = p.method.encode(p.batch)["pooled_BD"]
    p.gold.equal(z, "rec/slide")
    p.gold.equal(p.method.decoder(z), "rec/reconstruction")
    loss = p.method(p.batch).total
    p.gold.equal(loss, "rec/loss")
    same_gradients(p, loss, "rec")


@pytest.mark.real
@pytest.mark.parametrize("masks", ["official", "intended"])
def test_published_views_on_the_same_weights(masks, real_data: Path):
    """The same places are hidden in all bags of the pack."""
    p = published(real_data, "intra", objective="intra", masks=masks)
    keep = torch.from_numpy(p.gold.numbers["intra/intended/keep"]).bool()
    p.batch["keep"] = keep.expand(B, N)
    other = p.x * keep[:, None] if masks == "intended" else p.x * 12
    real = torch.ones(B, N, dtype=torch.bool)
    vectors = torch.cat([p.method.slide(x, real)[1] for x in (p.x, other)])
    p.gold.equal(vectors, f"intra/{masks}/slide")
    loss = p.method(p.batch).total
    p.gold.equal(loss, f"intra/{masks}/loss", 1e-4 if masks == "official" else 1e-5)
    same_gradients(p, loss, f"intra/{masks}")


@pytest.mark.real
def test_published_smooth_rank(real_data: Path):
    gold = slides.golden(real_data, "tangle")
    found = smooth_rank(torch.from_numpy(gold.rule.normal("input.embeddings", (40, 16))))
    assert round(float(found), 2) == pytest.approx(float(gold.numbers["smooth_rank"]), abs=1e-5)
