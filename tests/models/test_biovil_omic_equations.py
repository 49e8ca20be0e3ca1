"""BioViL on slides and genes: hidden fragments, and groups of genes compared with segments."""

from __future__ import annotations

import numpy as np
import slides
import torch
from synthetic import MemoryRecord
from test_mgca_omic_equations import begun, paired

from models.losses.contrastive import compared, symmetric
from models.losses.local_contrastive import word_similarities

LAID = {"groups": 2, "fragment": 2}  # 8 genes: two groups of two fragments of two


def test_so_many_fragments_are_hidden_and_one_at_least():
    for ratio, wanted in ((0.5, 2), (0.75, 3), (0.01, 1)):
        method = begun("biovil_omic", "gene", genes=LAID, mask_ratio=ratio)
        rna = np.zeros(slides.GENES, np.float32)
        drawn = [
            method.sample(MemoryRecord("s", "p", {}, {"rna": rna}), np.random.default_rng(s)).arrays["hidden"]
            for s in range(30)
        ]
        assert {int(h.sum()) for h in drawn} == {wanted}
        assert np.stack(drawn).any(0).all()


def test_the_loss_is_the_mean_gap_of_hidden_genes_and_what_is_hidden_is_not_seen():
    method = begun("biovil_omic", "gene", genes=LAID)
    batch = paired(slides.bags((3, 4)))
    batch["hidden"] = torch.tensor([[True, False, False, False], [False, True, True, False]])
    out = method(batch)
    z = method.expression(batch)
    cls, groups = method.genes(z, batch["hidden"])
    real = torch.ones(2, 3, dtype=torch.bool)
    said = method.decoder(torch.cat([cls[:, None], groups], 1), real).reshape(2, 8)
    gap = (said - z).abs()
    torch.testing.assert_close(out.total, (gap[0, :2].mean() + gap[1, 2:6].mean()) / 2)
    torch.testing.assert_close(out.diagnostics["mean_genome"], (z[0, :2].abs().mean() + z[1, 2:6].abs().mean()) / 2)
    batch["rna"] = batch["rna"].clone()
    batch["rna"][0, :2] += 5
    other = method.genes(method.expression(batch), batch["hidden"])
    torch.testing.assert_close(other[0], cls)
    assert not torch.allclose(method.genes(method.expression(batch))[0], method.genes(z)[0])


def test_places_without_a_gene_are_not_asked_for():
    method = begun("biovil_omic", "gene", genes={"groups": 2, "fragment": 3})  # fragments of three for groups of four
    batch = paired(slides.bags((3,)))
    batch["hidden"] = torch.tensor([[False, True, False, False]])
    z, (cls, groups) = method.expression(batch), method.genes(method.expression(batch), batch["hidden"])
    said = method.decoder(torch.cat([cls[:, None], groups], 1), torch.ones(1, 3, dtype=torch.bool))[0, 1, 0, 0]
    torch.testing.assert_close(method(batch).total, (said - z[0, 3]).abs())


def test_groups_are_compared_with_the_segments_that_are_there():
    method, made = begun("biovil_omic", genes=LAID), slides.bags((10, 2))
    batch = paired(made)
    batch["hidden"] = torch.tensor([[True, False, False, False]] * 2)
    out, s = method(batch), method.sides(batch)
    cells, words = (
        torch.nn.functional.normalize(x, dim=-1)
        for x in (method.segment_proj(s.segment_BSC), method.group_proj(s.group_BNC))
    )
    fit = torch.zeros(2, 2)
    for i, n in enumerate((4, 2)):
        for j in range(2):
            share = (4.0 * cells[i, :n] @ words[j].T).softmax(0)
            found = share.T @ cells[i, :n]
            fit[i, j] = torch.cosine_similarity(found, words[j], dim=-1).mul(5.0).exp().mean().log()
    wanted = symmetric(compared(10.0 * fit, torch.ones(2), torch.arange(2), "positive"))
    torch.testing.assert_close(out.losses["local"], wanted, rtol=1e-4, atol=1e-5)
    count = torch.full((2,), 2)
    alone = word_similarities(cells[1:, :2], words, count[:1].expand(2), 4.0, 5.0, "mean", False)
    torch.testing.assert_close(alone[0], fit[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        out.total, out.losses["contrast"] + 0.5 * out.losses["local"] + 0.1 * out.losses["masked"]
    )


def test_the_first_stage_needs_no_slide_and_can_be_left_out():
    method = begun("biovil_omic", "gene", genes=LAID)
    assert [(s.name, s.fields) for s in method.stages()] == [("gene", ("rna",)), ("pretrain", ("patches", "rna"))]
    assert {n.split(".")[0] for n, p in method.named_parameters() if p.requires_grad} == {"genes", "decoder"}
    assert [s.name for s in begun("biovil_omic", genes=LAID, gene_stage=False).stages()] == ["pretrain"]
    method.enter("")
    assert not method.genes.mask_token_C.requires_grad
