"""Samples into a batch: what only some of them have, and shapes that differ, are told by name."""

from __future__ import annotations

import numpy as np
import pytest

from models.contract import Field, MethodError, Sample
from models.contract.stacking import stack


def sample(n: int = 3, present: bool = True) -> Sample:
    return Sample({"patches": np.full((n, 2), n, np.float16)}, {"patches": present})


def test_arrays_are_stacked_in_order_with_their_types():
    batch = stack([sample(), sample(present=False)])
    assert batch["patches"].shape == (2, 3, 2)
    assert batch["patches"].numpy().dtype == np.float16
    assert batch.present["patches"].tolist() == [True, False]


def test_arrays_of_several_shapes_are_refused_by_name():
    with pytest.raises(
        MethodError, match=r"array 'patches' has 2 shapes in a batch of 3 samples \(\(3, 2\) and \(4, 2\)"
    ):
        stack([sample(4), sample(), sample()])


@pytest.mark.parametrize("first", [0, 1])
def test_what_only_some_samples_have_is_not_lost(first):
    """Also where the first sample is the one that lacks it."""
    with_rna = Sample({**sample().arrays, "rna": np.zeros(5)}, {"patches": True, "rna": True})
    samples = [with_rna, sample()] if first else [sample(), with_rna]
    with pytest.raises(MethodError) as raised:
        stack(samples)
    arrays, present = raised.value.problems
    assert "the array 'rna': `sample` gives all arrays of every sample" in arrays
    assert "whether 'rna' is present" in present


@pytest.mark.parametrize(("shape", "width"), [((7,), 7), ((None, 24), 24)])
def test_the_width_of_a_field(shape, width):
    assert Field("rna", "array", shape=shape).width == width


@pytest.mark.parametrize("shape", [None, (), (5, None)])
def test_a_field_without_one_width_is_refused(shape):
    with pytest.raises(MethodError, match=r"field 'rna' has no fixed width .*; pack it with one width"):
        _ = Field("rna", "array", shape=shape).width
