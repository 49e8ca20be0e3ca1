"""MCAT against PyTorch's own attention and transformer layers, and its sets of genes."""

from __future__ import annotations

import json

import pytest
import slides
import torch
from torch import nn

from models.contract import Field, MethodError, Schema
from models.registry import get_method
from models.transforms.gene_sets import joined, read_sets

SMALL = {"width": 8, "heads": 2, "inner": 12, "contiguous": 3, "conventions": "published"}


def same(ours: nn.Module, theirs: nn.Module, names: dict[str, str]) -> None:
    """Copies weights into PyTorch's layer: {name there: name here}."""
    state = ours.state_dict()
    theirs.load_state_dict(
        {a: state[b] if isinstance(b, str) else torch.cat([state[n] for n in b]) for a, b in names.items()}
    )


def own_attention(layer) -> nn.MultiheadAttention:
    D = layer.out.in_features
    theirs = nn.MultiheadAttention(D, 1, batch_first=True)
    in_proj = {f"in_proj_{w}": [f"query.{w}", f"key_value.{w}"] for w in ("weight", "bias")}
    same(layer, theirs, {**in_proj, **{f"out_proj.{w}": f"out.{w}" for w in ("weight", "bias")}})
    return theirs.eval()


def own_block(block) -> nn.TransformerEncoderLayer:
    D = block.attn.out.in_features
    theirs = nn.TransformerEncoderLayer(D, block.attn.heads, block.ffn[0].out_features, batch_first=True)
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj.": "attn.out.",
        "linear1.": "ffn.0.",
        "linear2.": "ffn.3.",
    }
    names |= {"norm1.": "norm1.", "norm2.": "norm2."}
    same(block, theirs, {f"{a}{w}": f"{b}{w}" for a, b in names.items() for w in ("weight", "bias")})
    return theirs.eval()


def side(pool, x_SD):
    """One side of the network, token by token, from its own parts."""
    for block in pool.blocks:
        x_SD = own_block(block)(x_SD[None])[0]
    score = pool.attention.weigh(pool.attention.tanh(x_SD).tanh() * pool.attention.gate(x_SD).sigmoid())[:, 0]
    return (pool.rho[0].weight @ (score.softmax(0) @ x_SD) + pool.rho[0].bias).clamp_min(0)


def test_the_pooled_vector_is_that_of_the_paper_written_out():
    method, made = slides.build("mcat", **SMALL), slides.bags()
    batch = slides.batch_of(made, float("nan"))
    encoded = method.encode(batch)
    genes = method.genes(batch)
    for b, x in enumerate(made):
        sets = []
        for net, own in zip(method.gene, genes[b].tensor_split([3, 6]), strict=True):
            for i in (0, 3):
                own = nn.functional.elu(net.layers[i].weight @ own + net.layers[i].bias)
            sets.append(own)
        E = torch.stack(sets)
        H = (x @ method.embed[0].weight.T + method.embed[0].bias).clamp_min(0)
        C, share = own_attention(method.co_attention)(E[None], H[None], H[None])
        z = torch.cat([side(method.path, C[0]), side(method.omic, E)])
        for i in (0, 2):
            z = (method.fusion[i].weight @ z + method.fusion[i].bias).clamp_min(0)
        torch.testing.assert_close(encoded["pooled_BD"][b], z, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoded["tokens_BLD"][b], torch.cat([C[0], E]), rtol=1e-4, atol=1e-5)
        mask = torch.ones(1, len(x), dtype=torch.bool)
        torch.testing.assert_close(
            method.co_attention.weights(E[None], H[None], mask)[0], share[0], rtol=1e-4, atol=1e-6
        )


def test_the_other_fusion_is_the_gated_product():
    method = slides.build("mcat", **SMALL, fusion="bilinear", reduce=4)
    assert method.fusion.encoder1[0].in_features == 3 * 3
    assert method.fusion.skip == "none"
    assert method.fusion.encoder2[2].p == 0.25
    assert method.encode(slides.batch_of(slides.bags()))["pooled_BD"].shape == (4, 8)


def test_first_weights_are_those_of_pytorchs_layers():
    torch.manual_seed(0)
    method = slides.build("mcat")
    theirs, ours = nn.MultiheadAttention(256, 1).in_proj_weight.abs(), method.co_attention
    for weight in (ours.query.weight, ours.key_value.weight, method.path.blocks[0].attn.qkv.weight):
        torch.testing.assert_close(weight.abs().max(), theirs.max(), rtol=1e-2, atol=0)
        torch.testing.assert_close(weight.abs().mean(), theirs.mean(), rtol=1e-2, atol=0)
    assert not ours.key_value.bias.any()
    assert not ours.out.bias.any()


# --------------------------------------------------------------------------------------------------------------- gene sets


def test_genes_outside_every_set_are_not_read_and_sets_may_overlap(tmp_path):
    sets = tmp_path / "sets.gmt"
    sets.write_text("growth\tfrom nowhere\tGENE5\tGENE1\nsleep\t\tGENE1\tGENE0\n")
    method = slides.build("mcat", **SMALL, gene_sets=str(sets))
    assert method.sizes == [2, 2]
    assert method.members_M.tolist() == [1, 5, 0, 1]
    made = slides.bags((3,))
    before = method.encode(slides.batch_of(made))["pooled_BD"]
    for gene, read in ((5, True), (0, True), (3, False)):
        other = slides.genome(made[0]).clone()
        other[gene] += 1
        assert torch.equal(method.encode(slides.batch_of(made, genes=[other]))["pooled_BD"], before) is not read


def refused(tmp_path, text: str, name: str = "sets.gmt", **options) -> list[str]:
    (tmp_path / name).write_text(text)
    cls = get_method("mcat")
    with pytest.raises(MethodError) as told:
        cls(cls.Options.parse({**SMALL, "gene_sets": str(tmp_path / name), **options}), slides.schema())
    return told.value.problems


def test_unknown_genes_and_empty_sets_are_refused_by_name_together(tmp_path):
    text = "half\t\tGENE1\tMYSTERY\nnothing\t\tBRCA1\tTP53\n"
    empty, lacking = refused(tmp_path, text)
    assert "set 'nothing' has no gene in common with 'rna'" in empty
    assert "names BRCA1, TP53" in empty
    assert "3 genes of 2 sets are not in 'rna'" in lacking
    assert "MYSTERY of half" in lacking
    assert "method.unknown_genes=leave_out" in lacking
    [still] = refused(tmp_path, text, unknown_genes="leave_out")
    assert "set 'nothing'" in still
    (tmp_path / "sets.gmt").write_text("half\t\tGENE1\tMYSTERY\n")
    method = slides.build("mcat", **SMALL, gene_sets=str(tmp_path / "sets.gmt"), unknown_genes="leave_out")
    assert method.members_M.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("a\t\tGENE1\na\t\tGENE2\n", "sets.gmt", "a: named twice"),
        ('{"a": ["GENE1"], "a": ["GENE2"]}', "sets.json", "a: named twice"),
        ("GENE1,GENE2\n", "sets.gmt", "line 1 has no tab-separated name"),
        ("\n", "sets.gmt", "names no set"),
        ('["GENE1"]', "sets.json", "no mapping"),
        ('{"a": "GENE1"}', "sets.json", "a: no list"),
        ("{", "sets.json", "no file of gene sets"),
    ],
)
def test_files_that_are_no_sets_are_refused(text, name, why, tmp_path):
    [told] = refused(tmp_path, text, name)
    assert why in told
    assert name in told


def test_a_file_that_is_not_there_is_refused_by_the_options():
    with pytest.raises(MethodError, match=r"method\.gene_sets: .*no such file.*nowhere\.gmt"):
        get_method("mcat").Options.parse({"gene_sets": "nowhere.gmt"})


def test_both_forms_are_read_and_versions_of_ensembl_ids_do_not_count(tmp_path):
    genes = {"a": ["ENSG00000000003", "TP53"], "b": ["ENSG00000000005.2"]}
    (tmp_path / "s.json").write_text(json.dumps(genes))
    (tmp_path / "s.gmt").write_text("".join(f"{n}\tx\t" + "\t".join(g) + "\r\n" for n, g in genes.items()))
    words = ("TP53", "ENSG00000000003.15", "ENSG00000000005.6", "TP53.1")
    for name in ("s.json", "s.gmt"):
        found = joined(read_sets(tmp_path / name), words, "refuse", name, "here")
        assert [s.tolist() for s in found] == [[0, 1], [2]]
    with pytest.raises(MethodError, match="ENSG00000000003 mean several genes"):
        joined(genes, (*words, "ENSG00000000003.2"), "leave_out", "s", "here")


def test_names_are_needed_for_sets_and_runs_are_not_longer_than_genes(tmp_path):
    (tmp_path / "s.gmt").write_text("a\t\tGENE1\n")
    cls, fields = get_method("mcat"), dict(slides.schema().fields)
    fields["rna"] = Field("rna", "array", "float32", (8,), None, fields["rna"].mean, fields["rna"].std)
    with pytest.raises(MethodError, match="have no names"):
        cls(cls.Options.parse({"gene_sets": str(tmp_path / "s.gmt")}), Schema(fields))
    with pytest.raises(MethodError, match=r"method\.contiguous: 9 sets of 8 genes"):
        cls(cls.Options.parse({"contiguous": 9}), slides.schema())
    assert slides.build("mcat", **{**SMALL, "contiguous": 3}).sizes == [3, 3, 2]
