"""REFERS on slides and genes: genes written from the slide."""

from __future__ import annotations

import math

import slides
import torch
from test_mgca_omic_equations import begun, paired
from torch.nn.functional import cross_entropy

LAID = {
    "groups": 2,
    "fragment": 3,
}  # groups of four genes: a fragment of three, and one of one gene and two empty places


def written(method, batch):
    s = method.sides(batch)
    tokens = torch.cat([s.slide_BC[:, None], s.segment_BSC], 1)
    real = torch.cat([torch.ones(len(tokens), 1, dtype=torch.bool), s.real_BS], 1)
    said = method.decoder(tokens, real)
    places = [0, 1, 2, 3, 6, 7, 8, 9]  # of the genes in the layout
    return said.flatten(1, 2)[:, places], tokens, real


def test_z_scores_are_written_by_their_mean_gap():
    method = begun("refers_omic", genes=LAID)
    batch = paired(slides.bags((10, 2)))
    out, (said, _, _) = method(batch), written(method, batch)
    z = method.expression(batch)
    torch.testing.assert_close(out.losses["generation"], (said[..., 0] - z).abs().mean())
    torch.testing.assert_close(out.diagnostics["mean_genome"], z.abs().mean())
    torch.testing.assert_close(out.total, out.losses["contrast"] + out.losses["generation"])


def test_or_bins_of_equal_shares_by_cross_entropy():
    method = begun("refers_omic", genes=LAID, generation="bins", bins=4)
    batch = paired(slides.bags((10, 2)))
    out, (said, _, _) = method(batch), written(method, batch)
    z = method.expression(batch)
    edges = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor([0.25, 0.5, 0.75]))
    bins = (z[..., None] > edges).sum(-1)
    torch.testing.assert_close(out.losses["generation"], cross_entropy(said.flatten(0, 1), bins.flatten()))
    method.decoder.out.weight.data.zero_()
    method.decoder.out.bias.data.zero_()
    torch.testing.assert_close(method(batch).losses["generation"], torch.tensor(4.0).log())
    assert method.chance(4)["generation"] == math.log(4)


def test_what_stands_behind_the_segments_of_a_short_slide_is_not_read():
    method = begun("refers_omic", genes=LAID)
    said, tokens, real = written(method, paired(slides.bags((10, 2))))
    tokens = tokens.masked_fill(~real[..., None], 7.0)
    torch.testing.assert_close(method.decoder(tokens, real).flatten(1, 2)[1, :4], said[1, :4])
    assert not torch.allclose(method.decoder(tokens, torch.ones_like(real)).flatten(1, 2)[1, :4], said[1, :4])


def test_genes_of_a_patient_without_a_slide_are_not_asked_for():
    method, made = begun("refers_omic", genes=LAID), slides.bags((10, 2))
    lacking = method(paired([*made, made[0][:0]], float("nan")))
    torch.testing.assert_close(lacking.losses["generation"], method(paired(made)).losses["generation"])
