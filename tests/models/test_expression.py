"""Genes as z-scores, cut off where asked for: one function for every method."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from synthetic import batch, build, records, schema

from models.contract import MethodError, Schema
from models.registry import get_method
from models.transforms.expression import standardised

# Each with a stage in which it reads expression.
READERS = [("gimp", "gene", {}), ("mgi", "pretrain", {}), ("mrm_relation", "pretrain", {"genetics": ["rna", "burden"]})]
every_reader = pytest.mark.parametrize(("name", "stage", "options"), READERS, ids=[n for n, _, _ in READERS])


def test_values():
    x, mean, std = torch.tensor([[3.0, -9.0, 1e4]]), torch.tensor([1.0, 1.0, 0.0]), torch.tensor([2.0, 2.0, 0.5])
    assert torch.equal(standardised(x, mean, std), (x - mean) / std)
    assert standardised(x.half(), mean, std, 3.0).tolist() == [[1.0, -3.0, 3.0]]


@every_reader
def test_an_outlier_is_as_good_as_another(name, stage, options):
    """Input and target: with clipping a value far off and one ten times as far give the same losses; without, other ones."""
    losses = {}
    for clip in (None, 2.0):
        method = build(name, genes={"clip": clip}, **options)
        method.enter(stage)
        method.eval()
        for value in (300.0, 3000.0):
            data = batch(method, records(6))
            data["rna"][2, 5], data["rna"][3, 7] = value, -value
            losses[clip, value] = method(data).total.item()
    assert losses[2.0, 300.0] == losses[2.0, 3000.0]
    assert losses[None, 300.0] != losses[None, 3000.0]


@every_reader
def test_without_clipping_nothing_changes(name, stage, options):
    made = []
    for clip in (None, 1e6):
        method = build(name, genes={"clip": clip}, **options)
        method.enter(stage)
        made.append(method.eval()(batch(method, records(6))).total)
    assert torch.equal(*made)


def test_counts_are_not_cut_off():
    method = build("mrm_relation", genetics=["rna", "snp"], genes={"clip": 1e-3})
    method.enter("pretrain")
    values, _ = method._vectors(batch(method, records(6)))
    assert values["rna"].abs().max() <= 1e-3 * 1.0001
    assert values["snp"].abs().max() > 0.5


@every_reader
def test_clipping_needs_z_scores(name, stage, options):
    with pytest.raises(MethodError, match="deviations of values as stored mean nothing"):
        build(name, genes={"clip": 3.0, "normalise": "none"}, **options)
    with pytest.raises(MethodError, match=r"genes\.clip"):
        build(name, genes={"clip": 0.0}, **options)
    whole, cls = schema(), get_method(name)
    bare = {n: dataclasses.replace(f, mean=None, std=None) if n == "rna" else f for n, f in whole.fields.items()}
    given = build(name, genes={"clip": 3.0}, **options).options
    with pytest.raises(MethodError, match=r"genes\.clip needs statistics of 'rna'"):
        cls(given, Schema(bare, whole.labels, whole.source))
