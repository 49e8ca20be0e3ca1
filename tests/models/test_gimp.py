"""GiMP as a whole: every option value runs, what is frozen, labels, short slides, ranks with padded bags."""

from __future__ import annotations

import json

import numpy as np
import pytest
import ranks
import torch
from synthetic import GENES, batch, build, nested, records, schema

from models.contract import Label, MethodError, Schema
from models.describe import options_of
from models.methods.slides.gimp import Gimp, GimpOptions
from models.pictures import CELL, alike, matrices
from models.transforms.labels import class_label

# Slides of 20 to 89 patches are all shorter than this window; the rest are the paper's choices on a small width.
SMALL = {"window": 96, "dim": 32, "triplet_on": "pair"}
NEEDS = {"auto": {"exact_tokens": 97}}  # that window and its class token


def choices() -> list[tuple[str, object]]:
    """Every value of every option that is a choice or a switch, but the defaults."""
    found = []
    for o in options_of(GimpOptions):
        values = (True, False) if isinstance(o.default, bool) else o.choices
        found += [(o.name, v) for v in values if v != o.default]
    return found


@pytest.mark.parametrize(("option", "value"), choices())
def test_every_choice_trains_and_encodes(option, value):
    method = build("gimp", **{**SMALL, **NEEDS.get(value, {}), **nested({option: value})})
    for stage in method.stages():
        method.enter(stage.name)
        method.train()
        out = method(batch(method, records(6)))
        out.total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)
    method.enter("")
    method.eval()
    made = records(4)
    together = method.encode(batch(method, made))
    short = min(range(4), key=lambda i: len(made[i].fields["patches"]))
    alone = method.encode(batch(method, made[short : short + 1]))
    torch.testing.assert_close(together["pooled_BD"][short], alone["pooled_BD"][0], rtol=1e-4, atol=1e-5)


def test_choices_matter():
    """The options reach the losses: each value gives another number than the default."""
    base = build("gimp", **SMALL)
    base.enter("pretrain")
    base.eval()
    default = base(batch(base, records(8))).total.item()
    for option, value in choices():
        if option in ("triplet_mean", "mining", "genes.act"):
            continue
        method = build("gimp", **{**SMALL, **NEEDS.get(value, {}), **nested({option: value})})
        method.enter("pretrain")
        assert method.eval()(batch(method, records(8))).total.item() != default, (option, value)


def test_pretraining_freezes_the_gene_encoder_and_its_dropout():
    method = build("gimp", dropout=0.5)
    method.enter("pretrain")
    method.train()
    assert not method.genes.training
    assert method.aggregator.training
    assert not any(p.requires_grad for n, p in method.named_parameters() if n.startswith("gene"))
    data = batch(method, records(4))
    assert torch.equal(method._encode_genes(data)[0], method._encode_genes(data)[0])
    method.enter("gene")
    assert method.genes.training


def test_genes_are_z_scored_with_the_data_sets_statistics():
    method = build("gimp", genes={"encoder": "snn"})
    seen = []
    method.genes.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    method.enter("gene")
    data = batch(method, records(4))
    method(data)
    field = schema().fields["rna"]
    torch.testing.assert_close(seen[0].numpy(), (data["rna"].numpy() - field.mean) / field.std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("act", ["elu", "selu"])
def test_the_ablations_network_bends_as_its_option_says(act):
    layers = build("gimp", genes={"encoder": "snn", "act": act}).genes.layers
    assert [type(layers[i]).__name__ for i in (1, 4)] == [act.upper()] * 2


def test_a_gene_that_never_varies_does_no_harm():
    fields = dict(schema().fields)
    old = fields["rna"]
    fields["rna"] = type(old)(**{**vars(old), "std": np.where(np.arange(GENES) == 3, 0, old.std)})
    method = Gimp(GimpOptions(dim=16, heads=4, genes={"groups": 6}), Schema(fields, schema().labels))
    method.enter("gene")
    assert method(batch(method, records(4))).total.isfinite()


def test_a_sample_is_a_window_of_its_slide_half_masked():
    method = build("gimp", window=16)
    method.enter("pretrain")
    [record] = records(1)
    whole = record.fields["patches"]
    arrays = method.sample(record, np.random.default_rng(0)).arrays
    starts = [s for s in range(len(whole) - 15) if np.array_equal(whole[s : s + 16], arrays["patches"])]
    assert len(starts) == 1
    assert arrays["masked"].sum() == 8
    assert arrays["patches"].dtype == np.float16


@pytest.mark.parametrize(("short_bags", "length"), [("tile", 256), ("pad", None)])
def test_short_slides(short_bags, length):
    method = build("gimp", window=256, short_bags=short_bags)
    method.enter("pretrain")
    data = batch(method, records(4))
    N = [len(r.fields["patches"]) for r in records(4)]
    assert data["patches"].shape[1] == (length or max(N))
    hidden = [128] * 4 if short_bags == "tile" else [round(n / 2) for n in N]
    assert data["masked"].sum(1).tolist() == hidden
    if short_bags == "pad":
        assert data["length"].tolist() == N


def test_masked_patches_are_hidden_from_the_encoder():
    for mask_with in ("token", "zeros"):
        method = build("gimp", mask_with=mask_with)
        method.enter("pretrain")
        method.eval()
        data = batch(method, records(3))
        cls, tokens = method.aggregator(data["patches"].float(), data["masked"])
        changed = torch.where(data["masked"][..., None], 100.0, data["patches"].float())
        other = method.aggregator(changed, data["masked"])
        assert torch.equal(cls, other[0])
        assert torch.equal(tokens, other[1])


def test_encode_of_slides_alone():
    method = build("gimp").eval()
    both = method.encode(batch(method, records(3)))
    method.inputs = ("patches",)
    images = method.encode(batch(method, records(3)))
    C = method.options.dim
    assert images["pooled_BD"].shape == (3, C)
    assert both["pooled_BD"].shape == (3, 2 * C)
    assert torch.equal(images["pooled_BD"], both["pooled_BD"][:, :C])


def test_samples_without_a_label_are_in_no_triplet_and_no_cross_entropy():
    made = records(6)
    made[4].labels = {"subtype": None}
    made[5].labels = {}
    for stage, term in (("gene", "ce"), ("pretrain", "triplet")):
        method = build("gimp")
        method.enter(stage)
        method.eval()
        with_them, without = method(batch(method, made)), method(batch(method, made[:4]))
        torch.testing.assert_close(with_them.losses[term], without.losses[term])


def test_the_label_is_found_or_asked_for():
    two = tuple("AB")
    labels = {n: Label(n, "class", two) for n in ("site", "grade")} | {"age": Label("age", "number")}
    assert class_label(Schema({}, {"site": labels["site"], "age": labels["age"]}), None).name == "site"
    assert class_label(Schema({}, labels | {"subtype": Label("subtype", "class", two)}), None).name == "subtype"
    assert class_label(Schema({}, labels), "grade").name == "grade"
    for order in (("subtype", "label"), ("label", "subtype")):  # which comes first in a data set says nothing
        with pytest.raises(MethodError, match=r"no one class label .*; set method.label"):
            class_label(Schema({}, labels | {n: Label(n, "class", two) for n in order}), None)
    with pytest.raises(MethodError, match=r"no one class label .*grade.*; set method.label, such as method.label=\w+"):
        class_label(Schema({}, labels), None)
    with pytest.raises(MethodError, match="no two classes"):
        class_label(Schema({}, labels), "age")
    with pytest.raises(MethodError, match="no label 'subtyp'"):
        class_label(Schema({}, labels), "subtyp")


def test_a_class_nobody_declared_is_named():
    method = build("gimp")
    [record] = records(1)
    record.labels = {"subtype": "SCLC"}
    with pytest.raises(MethodError, match="sample s0000: label 'subtype' is 'SCLC', which is none of LUAD, LUSC"):
        method.sample(record, np.random.default_rng(0))


def test_all_problems_are_listed_at_once():
    options = GimpOptions(dim=30, heads=4, conv_kernel=4, rec_weight=0, triplet_weight=0)
    with pytest.raises(MethodError) as e:
        Gimp(options, Schema({}, schema().labels))
    assert len(e.value.problems) == 5


def test_auto_attention_is_exact_up_to_a_number_that_is_stated_and_stored():
    """Never measured: without a number there is no such network, and the number comes back with the options."""
    for wrong in ({"attention": "auto"}, {"attention": "auto", "exact_tokens": 16}, {"exact_tokens": 40}):
        with pytest.raises(MethodError, match=r"method\.exact_tokens"):
            Gimp(GimpOptions(landmarks=16, **wrong), schema())
    options = GimpOptions(landmarks=16, attention="auto", exact_tokens=40, dim=32, heads=4)
    again = GimpOptions.parse(json.loads(options.model_dump_json()))
    assert again == options
    layers = Gimp(again, schema()).aggregator.layers
    assert [(layer.attn.landmarks, layer.attn.exact_tokens) for layer in layers] == [(16, 40)] * 2


@pytest.mark.ranks
@pytest.mark.timeout(180)
def test_ranks_with_bags_of_different_length(tmp_path):
    """Each rank pads to its own longest bag, and every miner takes the same triplets."""
    options = [
        {"triplet_on": "pair", "short_bags": "pad", "mining": m, "triplet_mean": "active"}
        for m in ("hard", "random_one")
    ]
    jobs = [("gimp", "pretrain", o) for o in options]
    two = ranks.run(tmp_path, jobs)
    for job, option in enumerate(options):
        one = ranks.result("gimp", "pretrain", 0, 1, **option)
        for key, grad in one["grads"].items():
            scale = grad.abs().max().item()
            torch.testing.assert_close(two[1][job]["grads"][key], grad, rtol=1e-4, atol=1e-5 * scale + 1e-9, msg=key)
        for term, value in one["losses"].items():
            torch.testing.assert_close(two[0][job]["losses"][term], value, rtol=1e-5, atol=1e-6)


def test_a_sample_without_genes_is_in_no_pair_triplet_and_encoded_as_the_mean_genome():
    method = build("gimp", **SMALL)
    method.enter("pretrain")
    method.eval()
    made = records(8, missing={6: ["rna"], 7: ["rna"]})
    data = batch(method, made)
    torch.testing.assert_close(method(data).losses["triplet"], method(batch(method, made[:6])).losses["triplet"])
    mean = batch(method, records(8))
    mean["rna"] = method.gene_mean_G.expand(8, -1).clone()
    torch.testing.assert_close(method._encode_genes(data)[0][6:], method._encode_genes(mean)[0][6:])


@pytest.mark.parametrize("stage", ["gene", "pretrain"])
def test_pictures_are_cosines_sorted_by_class(stage):
    method = build("gimp")
    method.enter(stage)
    method.train()
    data = batch(method, records(10))
    made = method.pictures(data)["similarity"]
    tiles = 1 if stage == "gene" else 2
    assert made.shape == (8 * CELL + 2, tiles * (8 * CELL + 2), 3)
    assert method.training
    order = data["label"][:8].argsort(stable=True)
    vectors = method.eval()._encode_genes(data)[0][:8][order]
    np.testing.assert_array_equal(made[:, -(8 * CELL + 2) :], matrices([[alike(vectors)]]))
