"""MultiMAE against a few literal lines: what a sample shows, what is asked of whom, what nothing hidden does; and the published numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import batch, build, records, schema
from views_packs import Pack

from models.contract import MethodError
from models.decoders.cross import CrossDecoder
from models.decoders.fragments import asked_mean
from models.decoders.mae import norm_patches, patchify, unpatchify
from models.encoders.vit import PatchEmbed, ViT
from models.layers.budget import kept_in_budget
from models.registry import get_method
from models.transforms.image import normalised


def entered(**options):
    method = build("multimae", still=True, **options)
    method.enter("pretrain")
    return method


# ------------------------------------------------------------------------------------------------------- what is kept


def draws(B: int, sizes: list[int], share: list[float], seed: int = 0) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(seed)
    return torch.tensor(share).expand(B, -1), torch.rand(B, sum(sizes)), torch.rand(B, sum(sizes))


@pytest.mark.parametrize(
    ("sizes", "share", "there", "kept"),
    [
        ([16, 16], [0.25, 0.75], [1, 1], [2, 6]),
        ([16, 8, 8], [0.44, 0.44, 0.12], [1, 1, 1], [4, 4, 1]),  # rounds to 9 of 8: one falls out
        ([16, 2], [0.1, 0.9], [1, 1], [6, 2]),  # shorter than its share: the others give more
        ([16, 4], [1.0, 0.0], [1, 0], [8, 0]),  # absent: never shown
    ],
)  # fmt: skip
def test_a_fixed_number_of_tokens_is_shared_out(sizes, share, there, kept):
    present = torch.tensor(there, dtype=torch.bool).expand(50, -1)
    keep, hidden = kept_in_budget(*draws(50, sizes, share), present, sizes, 8)
    assert keep.shape == (50, 8)
    assert torch.equal((~hidden).sum(1), torch.full((50,), 8))
    assert not hidden.gather(1, keep).any()
    counts = torch.stack([(~h).sum(1) for h in hidden.split(sizes, 1)], 1)
    if sum(kept) == 8:
        assert counts.unique(dim=0).tolist() == [kept]
    else:
        assert ((torch.tensor(kept) - counts).sum(1) == 1).all()
        assert (counts <= torch.tensor(kept)).all()
    assert len({tuple(k) for k in keep.sort(1).values.tolist()}) > 40  # no places are preferred


def test_shares_are_dirichlet_over_what_a_sample_has():
    method = entered(alpha=1.0)
    there = records(200, missing={i: ["pgs"] for i in range(100)})
    share = batch(method, there)["share"]
    torch.testing.assert_close(share.sum(1), torch.ones(200))
    assert not share[:100, 2].any()
    assert share[100:].mean(0).tolist() == pytest.approx([0.25] * 4, abs=0.06)
    # Of Dirichlet(1, 1, 1, 1) a share has the variance 3 / 80.
    assert share[100:].var(0).tolist() == pytest.approx([3 / 80] * 4, rel=0.4)
    assert not batch(method, records(1, missing={0: ["image", "snp", "pgs", "rna"]}))["share"].any()


# ------------------------------------------------------------------------------------------------------- what is asked


def literal(method, data) -> dict[str, float]:
    """Each loss sample by sample, from what the decoders make."""
    x, (values, known) = normalised(data["views"][:, 0]), method._vectors(data)
    tokens, keep, hidden = method._seen(x, values, data)
    found: dict[str, list[float]] = {}
    for name, made in method._restored(tokens, keep).items():
        for b in range(len(x)):
            own = "image" if name == "norm_image" else name
            if not data.weight_B[b] * data.present["image"][b] * data.present[own][b]:
                continue
            at = sum(n for m, n in list(method.sizes.items())[: list(method.sizes).index(own)])
            terms = []
            for i in range(method.sizes[own]):
                if not hidden[b, at + i]:
                    continue
                if own == "image":
                    want = patchify(x[b : b + 1], 6)[0, i]
                    want = (want - want.mean()) / (want.var() + 1e-6).sqrt() if name == "norm_image" else want
                    terms += ((made[b, i] - want) ** 2).tolist()
                else:
                    F = method.options.genes.fragment
                    part = slice(i * F, (i + 1) * F)
                    gap = (made[b, i, : len(values[own][b, part])] - values[own][b, part]) ** 2
                    terms += gap[known[own][b, part]].tolist()
            if terms:
                found.setdefault(name, []).append(float(np.mean(terms)))
    return {n: float(np.mean(t)) for n, t in found.items()}


def test_losses_are_means_over_hidden_and_known_values_of_counted_samples():
    method = entered()
    made = records(6, missing={1: ["image"], 2: ["snp"], 4: ["snp", "pgs", "rna"]})
    made[0].fields["snp"][::3] = -1
    data = batch(method, made)
    data["rna"][3, 5] = float("nan")
    data.weight_B[5] = 0
    out = method(data)
    assert out.losses.keys() == {"image", "norm_image", "snp", "pgs", "rna"}
    want = literal(method, data)
    for name, loss in out.losses.items():
        assert loss.item() == pytest.approx(want.get(name, 0.0), rel=1e-4), name
    assert out.total.item() == pytest.approx(sum(want.values()), rel=1e-4)


def test_nothing_hidden_is_no_loss_and_no_nan():
    """A modality of one token is often seen whole: the published mean over nothing has a gradient of NaN."""
    method = entered()
    data = batch(method, records(4))
    data["share"] = torch.tensor([[0.0, 0.0, 1.0, 0.0]]).expand(4, -1)  # the scores' one token is shown everywhere
    out = method(data)
    assert out.losses["pgs"] == 0
    out.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    assert method.genes.snn["pgs"].layers[0].weight.grad.any(), "it still tells the others"


def test_a_hidden_token_is_not_seen():
    method = entered().eval()
    data = batch(method, records(2))
    x, (values, _) = normalised(data["views"][:, 0]), method._vectors(data)
    tokens, _, hidden = method._seen(x, values, data)
    place = int(hidden[0, :64].nonzero()[0])
    row, column = divmod(place, 8)
    x[0, :, row * 6 : row * 6 + 6, column * 6 : column * 6 + 6] += 3
    values = {n: torch.where(self_hidden(method, hidden, n), v + 3, v) for n, v in values.items()}
    again = method._seen(x, values, data)[0]
    torch.testing.assert_close(again, tokens)
    x += 1
    assert not torch.allclose(method._seen(x, values, data)[0], tokens)


def self_hidden(method, hidden, name) -> torch.Tensor:
    """Features of hidden fragments, [B, F]."""
    parts = dict(zip(method.sizes, hidden.split(list(method.sizes.values()), 1), strict=True))
    return parts[name].repeat_interleave(method.options.genes.fragment, 1)[:, : method.widths[name]]


def test_images_alone():
    method = entered(genetics=[], norm_pix="norm")
    assert method.genes is None
    out = method(batch(method, records(3)))
    assert out.losses.keys() == {"norm_image"}
    assert out.diagnostics["kept_image"] == 1
    assert method.chance(3) == {"norm_image": 1 - 1 / 108}
    assert entered(norm_pix="plain").chance(3) == {}


def test_the_deployed_encoder_has_no_last_norm_and_pools_patches():
    method = build("multimae")
    assert isinstance(method.image.norm, torch.nn.Identity)
    data = batch(method, records(2))
    tokens = method.encode(data)["tokens_BLD"]
    torch.testing.assert_close(method.encode(data)["pooled_BD"], tokens[:, 1:].mean(1))


def test_embeddings_of_modalities_are_spared_decay_and_not_as_published():
    for conventions, decayed in (("recommended", False), ("published", True)):
        method = entered(conventions=conventions)
        flat = {id(p) for g in method.param_groups() if g.decay_scale == 0 for p in g.params}
        kinds = [p for n, p in method.named_parameters() if n.endswith("kind_MW")]
        assert len(kinds) == 5
        assert all((id(p) not in flat) == decayed for p in kinds)
        assert not {n for n, p in method.named_parameters() if n.endswith("mask_token") and id(p) not in flat}


def test_a_picture_of_what_was_restored():
    method = entered()
    data = batch(method, records(2))
    made = method.pictures(data)["reconstruction"]
    assert made.shape == (2 * 48, 3 * 48, 3)
    assert np.abs(made[:48, :48].astype(int) - data["views"][0, 0].numpy().astype(int)).max() <= 1
    assert entered(norm_pix="norm").pictures(data) == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tokens": 196}, "method.tokens: 196 of 196 patches hides nothing of a sample without genetics; give at most 195"),
        ({"image": {"cls_token": False}}, "method.image.cls_token: it is the global token of multimae"),
        ({"decoder_dim": 30}, "method.decoder_dim: 30 is not a multiple of 8"),
        ({"alpha": 0}, "method.alpha"),
        ({"genes": {"clip": 3, "normalise": "none"}, "genetics": ["rna"]}, "method.genes.clip"),
        ({"genetics": ["snp", "snp"]}, "names a field twice"),
        ({"genetics": ["patches"]}, "is no vector of one width"),
    ],
)  # fmt: skip
def test_what_makes_no_system_is_told(given, said):
    cls = get_method("multimae")
    with pytest.raises(MethodError) as raised:
        cls(cls.Options.parse(given), schema())
    assert said in str(raised.value)


# ---------------------------------------------------------------------------------------------------- the published code


@pytest.mark.real
def test_published_code_on_the_same_weights(real_data: Path):
    """Its modalities are colours and depth, both on a grid."""
    pack = Pack(real_data, "multimae")
    weights, sizes = pack.weights(), {"rgb": 16, "depth": 16}
    vit, depth = ViT(64, 16, dim=64, depth=2, heads=4), PatchEmbed(16, 1, 64)
    vit.add_parts(last_norm=False)
    place = grid_places(pack.numbers["pos_emb_encoder"])
    own = {n.removeprefix("encoder."): w for n, w in weights.items() if n.startswith("encoder.")}
    own = {f"blocks.{n}": w for n, w in own.items()} | {"cls_token": weights["global_tokens"]}
    own |= {f"patch_embed.proj.{p}": weights[f"input_adapters.rgb.proj.{p}"] for p in ("weight", "bias")}
    own["pos_embed"] = torch.cat([torch.zeros(1, 64), place])[None]
    vit.load_state_dict(own)
    depth.load_state_dict({f"proj.{p}": weights[f"input_adapters.depth.proj.{p}"] for p in ("weight", "bias")})
    decoders = {name: decoder(pack, weights, name, sizes) for name in ("rgb", "depth", "norm_rgb")}

    x = {"rgb": pack.image("input.rgb", (2, 3, 64, 64)), "depth": pack.image("input.depth", (2, 1, 64, 64))}
    noise = torch.cat([torch.from_numpy(pack.rule.uniform(f"input.noise_{n}", (2, 16))) for n in sizes], 1)
    order = torch.from_numpy(pack.rule.uniform("input.noise_all", (2, 32)))
    share = torch.from_numpy(pack.numbers["share"])
    keep, hidden = kept_in_budget(share, noise, order, torch.ones(2, 2, dtype=torch.bool), [16, 16], 8)
    assert keep.tolist() == pack.numbers["ids_keep"].tolist()
    for name, part in zip(sizes, hidden.split([16, 16], 1), strict=True):
        assert torch.equal(part, torch.from_numpy(pack.numbers[f"mask_{name}"]).bool())

    embedded = vit.embed(x["rgb"])
    every = torch.cat([embedded[:, 1:], depth(x["depth"]) + place], 1)
    seen = every.gather(1, keep[..., None].expand(-1, -1, 64))
    tokens = vit(torch.cat([embedded[:, :1], seen], 1))
    pack.equal(torch.cat([tokens[:, 1:], tokens[:, :1]], 1), "encoder_tokens")  # its global token is the last

    total = torch.zeros(())
    for name, module in decoders.items():
        field = name.removeprefix("norm_")
        made, colours = module(tokens, keep), x[field].shape[1]
        made = made.unflatten(-1, (colours, -1)).mT.flatten(2)
        pack.equal(unpatchify(made, 16, (4, 4)), f"pred_{name}")
        target = patchify(x[field], 16)
        target = norm_patches(target) if name == "norm_rgb" else target
        gap = (made - target).abs() if name == "depth" else (made - target).square()
        asked = dict(zip(sizes, hidden.split([16, 16], 1), strict=True))[field][..., None].expand_as(gap)
        loss = asked_mean(gap, asked, torch.ones(2))
        pack.equal(loss, f"loss_{name}")
        total = total + loss
    pack.equal(total, "total")
    total.backward()
    checked = 0
    for ours, published in gradients(vit, depth, decoders):
        if f"grad:{published}" in pack.numbers:
            pack.equal(ours.norm(), f"grad:{published}")
            checked += 1
    assert checked >= 8


def gradients(vit, depth, decoders):
    """Pairs of our gradient and the published name."""
    for n, p in vit.named_parameters():
        if n == "cls_token":
            yield p.grad, "global_tokens"
        elif n.startswith("blocks."):
            yield p.grad, "encoder." + n.removeprefix("blocks.")
        elif n.startswith("patch_embed."):
            yield p.grad, "input_adapters.rgb." + n.removeprefix("patch_embed.")
    for n, p in depth.named_parameters():
        yield p.grad, f"input_adapters.depth.{n}"
    for name, module in decoders.items():
        for n, p in module.named_parameters():
            if n == "kind_MW":
                for i, kind in enumerate(("rgb", "depth")):
                    yield p.grad[i], f"output_adapters.{name}.task_embeddings.{kind}"
            else:
                yield p.grad, f"output_adapters.{name}.{published_name(n)}"


def published_name(ours: str) -> str:
    for here, there in (
        ("embed.", "proj_context."), ("query.", "decoder.q."), ("key_value.", "decoder.kv."), ("proj.", "decoder.proj."),
        ("blocks.", "decoder_transformer."), ("pred.", "out_proj."),
    ):  # fmt: skip
        if ours.startswith(here):
            return there + ours.removeprefix(here)
    return ours


def grid_places(table: np.ndarray) -> torch.Tensor:
    """[1, D, rows, columns] -> [N, D]."""
    return torch.from_numpy(table)[0].flatten(1).T.clone()


def decoder(pack: Pack, weights: dict[str, torch.Tensor], name: str, sizes: dict[str, int]) -> CrossDecoder:
    colours, own = (1, "depth") if name == "depth" else (3, "rgb")
    place = grid_places(pack.numbers["pos_emb_decoder"])
    made = CrossDecoder(64, 32, 2, 4, colours * 256, sizes, own, {"rgb": place, "depth": place})
    at = f"output_adapters.{name}."
    state = {n: weights[at + published_name(n)] for n, _ in made.named_parameters() if n != "kind_MW"}
    kinds = [weights[f"{at}task_embeddings.{n}"].reshape(1, -1) for n in sizes]
    told = {*state, *(f"task_embeddings.{n}" for n in sizes)}
    assert len(told) == len([n for n in weights if n.startswith(at)]), "every published weight has its place"
    made.load_state_dict(state | {"kind_MW": torch.cat(kinds)})
    return made
