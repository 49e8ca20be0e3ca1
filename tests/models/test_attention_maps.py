"""Attention maps are the weights of the forward pass: what they average is what the answer was made of; padding never has a share."""

from __future__ import annotations

import json

import pytest
import slides
import torch

from models.contract import Label, Schema, TargetSpec
from models.contract.attention import own_maps
from models.contract.batch import Batch
from models.finetuned import Downstream
from models.heads.linear import LinearHead
from models.layers.attention import merge_heads, split_heads
from models.layers.nystrom import LongAttention
from models.layers.nystrom_library import LibraryAttention
from models.layers.pooling import shared_out
from models.registry import get_method

LONG = (23, 9, 5, 1)
"""Longer and shorter than four landmarks."""
SLIDES = {"dim": 8, "heads": 2, "landmarks": 4, "conv_kernel": 5}
SYSTEMS: dict[str, list[dict]] = {
    "abmil": [{"embed": 7, "hidden": 4, "gated": True}, {"embed": None, "hidden": 4}],
    "attention_baseline": [{"embed": 7, "hidden": 4}],
    "clam": [{"embed": 7, "hidden": 4}, {"embed": 7, "hidden": 4, "branches": "multi"}],
    "dsmil": [{"query": 4}, {"query": 4, "pass_v": True}],
    "transmil": [{**SLIDES, "nystrom": n} for n in ("exact_short", "library", "library_009")],
    "gimp": [{**SLIDES, "genes": {"encoder": "none"}}, {**SLIDES, "ppeg": True, "depth": 1, "genes": {"encoder": "none"}}],
    **{n: [{**SLIDES, "genes": {"groups": 2}}] for n in ("mgca_omic", "biovil_omic", "refers_omic")},
    "porpoise": [{}],
    "tangle": [{}, {"version": "v2", "hidden": 8, "activation": "sigmoid"}],
    "pathomic_fusion": [{"embed": 7, "hidden": 4}],
    "mcat": [{"width": 8, "heads": 2, "inner": 8, "contiguous": 2}],
}  # fmt: skip
CASES = [(name, options) for name, several in SYSTEMS.items() for options in several]
every_system = pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
KINDS = slides.kinds(3)


def tuned(name: str, options: dict, asked: TargetSpec = KINDS) -> Downstream:
    return slides.tuned(build(name, options), asked)


def build(name: str, options: dict):
    if name != "gimp":
        return slides.build(name, **options)

    fields = slides.schema().fields
    schema = Schema(fields, {"label": Label("label", "class", ("a", "b", "c"))})
    torch.manual_seed(0)
    cls = get_method("gimp")
    return cls(cls.Options.parse(options), schema).eval()


def together(made: list[torch.Tensor], fill: float = 0.0) -> Batch:
    return slides.batch_of(made, fill)


@every_system
def test_shares_are_of_real_patches_alone_in_any_batch(name: str, options: dict) -> None:
    model = tuned(name, options)
    made = slides.bags(LONG)
    found = model.attention_maps(together([*made, made[0][:0]], float("nan")))
    assert found
    for label, w_BN in found.items():
        assert w_BN.dtype == torch.float32
        assert w_BN.shape == (len(LONG) + 1, max(LONG)), label
        for w_N, x in zip(w_BN, made, strict=False):
            torch.testing.assert_close(w_N.sum(), torch.tensor(1.0), rtol=1e-5, atol=1e-5)
            assert not w_N[len(x) :].any()
            alone_1N = model.attention_maps(together([x]))[label]
            torch.testing.assert_close(w_N[: len(x)], alone_1N[0], rtol=1e-4, atol=1e-5)
        assert not w_BN[-1].any(), "a slide without patches has no share to give"


@pytest.mark.parametrize("name", ["abmil", "attention_baseline"])
def test_the_bag_is_the_mean_by_its_map(name: str) -> None:
    model, batch = tuned(name, SYSTEMS[name][0]), together(slides.bags())
    encoded = model.encode(batch)
    mean_BD = torch.einsum("bn,bnd->bd", model.attention_maps(batch)["attention"], encoded["tokens_BLD"])
    torch.testing.assert_close(mean_BD, encoded["pooled_BD"])


def test_tangles_heads_pool_by_their_maps() -> None:
    model, batch = tuned("tangle", SYSTEMS["tangle"][0]), together(slides.bags())
    encoded = model.encode(batch)
    mean_BD = torch.einsum("bn,bnd->bd", model.attention_maps(batch)["attention"], encoded["tokens_BLD"])
    torch.testing.assert_close(mean_BD, encoded["pooled_BD"][:, : mean_BD.shape[1]])
    two = tuned("tangle", SYSTEMS["tangle"][1]).attention_maps(batch)
    assert tuple(two) == ("head 1", "head 2")


@pytest.mark.parametrize("name", ["porpoise", "pathomic_fusion"])
def test_the_slides_vector_is_made_of_the_mean_by_its_map(name: str) -> None:
    model, batch = tuned(name, SYSTEMS[name][0]), together(slides.bags())
    encoder, encoded = model.encoder, model.encode(batch)
    mean_BD = torch.einsum("bn,bnd->bd", model.attention_maps(batch)["attention"], encoded["tokens_BLD"])
    side = encoder.path if name == "porpoise" else encoder.image
    fused_BV, _ = encoder.fusion(side(mean_BD), encoder.gene(encoder.genes(batch))[0])
    torch.testing.assert_close(fused_BV, encoded["pooled_BD"])


@pytest.mark.parametrize("asked", [slides.BINARY, KINDS], ids=["binary", "three"])
@pytest.mark.parametrize("branches", ["single", "multi"])
def test_clam_answers_from_the_means_by_its_branches(asked: TargetSpec, branches: str) -> None:
    model, batch = tuned("clam", {"embed": 7, "hidden": 4, "branches": branches}, asked), together(slides.bags())
    maps = model.attention_maps(batch)
    assert tuple(maps) == (asked.classes if branches == "multi" else ("attention",))
    bag_BAD = torch.einsum("abn,bnd->bad", torch.stack([*maps.values()]), model.encode(batch)["tokens_BLD"])
    torch.testing.assert_close(model.head._answers(bag_BAD), model.logits(batch)[0])


@pytest.mark.parametrize("options", SYSTEMS["dsmil"], ids=["features", "values"])
def test_dsmil_answers_from_the_means_by_its_outputs(options: dict) -> None:
    model, batch = tuned("dsmil", options), together(slides.bags())
    maps = model.attention_maps(batch)
    assert tuple(maps) == KINDS.classes
    x, _, v = model.encode(batch)["tokens_BLD"].split(model.head.widths, -1)
    bag_BKV = torch.einsum("kbn,bnv->bkv", torch.stack([*maps.values()]), v if options.get("pass_v") else x)
    torch.testing.assert_close(model.head.bag(bag_BKV.flatten(1)), model.logits(batch)[0])


def test_mcats_sets_find_the_means_by_their_maps(tmp_path) -> None:
    sets = tmp_path / "sets.json"
    sets.write_text(json.dumps({"growth": ["GENE0", "GENE3"], "repair": ["GENE5"]}))
    model = tuned("mcat", {**SYSTEMS["mcat"][0], "gene_sets": str(sets)})
    batch = together(slides.bags())
    maps, encoder = model.attention_maps(batch), model.encoder
    assert tuple(maps) == ("growth", "repair"), "a map is named after its set"
    h_BND = encoder.embed(encoder.bags(batch)[0])
    v_BND = encoder.co_attention.key_value(h_BND).chunk(2, -1)[1]
    found_BSD = encoder.co_attention.out(torch.einsum("sbn,bnd->bsd", torch.stack([*maps.values()]), v_BND))
    bags = encoder.rows(batch)
    torch.testing.assert_close(
        found_BSD, encoder.co_attention(encoder.sets(batch), encoder.embed(bags.rows_PD), bags.lengths)
    )


@pytest.mark.parametrize("lengths", [(3, 3), (21, 9, 4, 1)], ids=["short", "ragged"])
@pytest.mark.parametrize(
    "layer",
    [
        LongAttention(8, 2, 4, conv_kernel=None),
        LongAttention(8, 2, None, conv_kernel=None),
        LibraryAttention(8, 2, 4, conv_kernel=None),
        LibraryAttention(8, 2, 4, conv_kernel=None, first_rows=True),
    ],
    ids=["landmarks", "exact", "library", "first-rows"],
)
def test_a_class_tokens_row_gives_the_output_of_its_layer(layer, lengths: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    x_BLC = 3 * torch.randn(len(lengths), max(lengths), 8, generator=rng)
    n_B = torch.tensor(lengths)
    with torch.no_grad():
        row_BHL = layer.first_row(x_BLC, n_B)
        v_BHLD = split_heads(layer.qkv(x_BLC).chunk(3, -1)[2], 2)
        said_BC = layer.out(merge_heads(torch.einsum("bhl,bhld->bhd", row_BHL, v_BHLD)[:, :, None])[:, 0])
        torch.testing.assert_close(said_BC, layer(x_BLC, n_B)[:, 0], rtol=1e-4, atol=1e-5)


def test_repeated_patches_are_the_same_patch() -> None:
    """Of 5 patches in a square of 9 the first four stand twice: their shares are those of both places."""
    model = slides.build("transmil", **SLIDES, nystrom="exact_short")
    network, [x] = model.network, slides.bags((5,))
    seen = {}
    network.layers[1].attn.register_forward_hook(lambda layer, given, out: seen.update(row=layer.first_row(*given[:2])))
    with torch.no_grad():
        network(x[None])
        whole_L = seen["row"].mean(1)[0, 1:]
        torch.testing.assert_close(
            network.class_row(x[None])[0], whole_L[:5] + torch.cat([whole_L[5:], torch.zeros(1)])
        )


SCORED = [
    (n, o)
    for n, o in CASES
    if n in ("abmil", "attention_baseline", "clam", "porpoise", "tangle", "pathomic_fusion", "mcat")
]
SCORED = [(n, o) for n, o in SCORED if o.get("activation") != "sigmoid"]


EXACT = {"dim": 8, "heads": 2, "landmarks": 16, "conv_kernel": None}
CLASS_TOKENS = [
    ("transmil", {**EXACT, "ppeg": False, "square": "fill"}),
    ("gimp", {**EXACT, "conv_kernel": 5, "conv_residual": False, "genes": {"encoder": "none"}}),
    *((n, {**EXACT, "genes": {"groups": 2}}) for n in ("mgca_omic", "biovil_omic", "refers_omic")),
]


@pytest.mark.parametrize(("name", "options"), [*SCORED, ("dsmil", {"query": 4}), *CLASS_TOKENS])
def test_a_score_far_below_the_others_is_a_patch_that_is_not_there(name: str, options: dict) -> None:
    model, genes = tuned(name, options), slides.genome(slides.bags((6,))[0])
    [x] = slides.bags((6,))
    out = 2
    if name == "dsmil":
        out = int(model.head.instance(x).sum(1).argmin())  # a critical patch leads the others besides
        assert out not in model.head.instance(x).argmax(0)
    kept = torch.arange(6) != out
    layers = model.patch_scores()
    assert layers

    def away(layer, given, score):
        score = score.clone()
        score.view(6, -1)[out] = -1e9
        return score

    hooks = [layer.register_forward_hook(away) for layer in layers]
    with torch.enable_grad():  # as where an answer is explained
        without = model.logits(slides.batch_of([x], genes=[genes]))[0].detach()
    with torch.no_grad():
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(
            without, model.logits(slides.batch_of([x[kept]], genes=[genes]))[0], rtol=1e-5, atol=1e-7
        )
        assert (without - model.logits(slides.batch_of([x], genes=[genes]))[0]).abs().max() > 1e-7


def test_weights_that_are_no_softmax_say_no_scores() -> None:
    assert tuned("tangle", SYSTEMS["tangle"][1]).patch_scores() == ()


def test_a_head_of_another_kind_leaves_no_map() -> None:
    """CLAM's attention stands in its own head: with a linear one nothing weighs patches, and an encoder that does still says so."""
    clam, abmil = build("clam", SYSTEMS["clam"][0]), build("abmil", SYSTEMS["abmil"][0])
    assert not own_maps(clam)
    assert not own_maps(LinearHead(7, 3))
    assert own_maps(clam.task_head(KINDS, 7, 7))
    assert own_maps(abmil)


def test_weights_that_sum_to_nothing_are_no_shares() -> None:
    w_BN, mask_BN = torch.tensor([[2.0, 2.0, 9.0], [0.0, 0.0, 0.0]]), torch.tensor([[True, True, False]] * 2)
    assert shared_out(w_BN, mask_BN).tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (TargetSpec("binary", 1, ("no", "yes")), ("yes",)),
        (TargetSpec("ordinal", 2, ("low", "mid", "high")), ("above low", "above mid")),
        (TargetSpec("survival", 1, ()), ("risk",)),
        (TargetSpec("survival", 2, (), edges=(3.0,)), ("interval 1", "interval 2")),
        (TargetSpec("regression", 2, ("a", "b")), ("a", "b")),
        (TargetSpec("multilabel", 3, ("a",)), ("a: no", "a: yes", "a: uncertain")),
    ],
)
def test_outputs_have_names(asked: TargetSpec, names: tuple[str, ...]) -> None:
    assert asked.names == names


def test_a_planted_region_gets_more_attention_after_training() -> None:
    """Slides of one class hold four patches of a kind that no other has: in slides that were not trained on they come to lead the map."""

    def slide(i: int) -> tuple[torch.Tensor, torch.Tensor]:
        x_NF = torch.randn(24, slides.F, generator=torch.Generator().manual_seed(i))
        planted_N = torch.zeros(24, dtype=torch.bool)
        if i % 2:
            planted_N[(at := i % 20) : at + 4] = True
            x_NF[planted_N] += torch.tensor([2.5, -2.5] * (slides.F // 2))
        return x_NF, planted_N

    model = tuned("abmil", {"embed": 8, "hidden": 8}, slides.BINARY)
    held_back = [slide(i) for i in range(101, 121, 2)]

    def share() -> float:
        maps = model.attention_maps(together([x for x, _ in held_back]))["attention"]
        return float(torch.stack([w[p].sum() for w, (_, p) in zip(maps, held_back, strict=True)]).mean())

    before = share()
    adam = torch.optim.Adam(model.train().parameters(), 1e-2)
    batch = slides.batch_of([slide(i)[0] for i in range(32)], target=[i % 2 for i in range(32)])
    for _ in range(80):
        adam.zero_grad()
        model(batch).total.backward()
        adam.step()
    assert before < 0.3, "four of 24 patches"
    assert share() > 0.6
    top = [w.topk(4).indices for w in model.attention_maps(together([x for x, _ in held_back]))["attention"]]
    found = [float(p[i].float().mean()) for i, (_, p) in zip(top, held_back, strict=True)]
    assert sum(found) / len(found) > 0.8
    assert model.training, "asked in the midst of training, it goes on training"


def test_a_map_is_of_the_model_without_its_dropout() -> None:
    model, batch = tuned("attention_baseline", SYSTEMS["attention_baseline"][0]), together(slides.bags())
    wanted = model.attention_maps(batch)["attention"]
    torch.testing.assert_close(model.train().attention_maps(batch)["attention"], wanted, rtol=0, atol=0)
