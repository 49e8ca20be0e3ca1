"""Features of another origin by their names: in the encoder's order, what is missing counted, and the mean only when asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.contract import Field, Schema
from trainer.downstream.external.aligned import aligned
from trainer.downstream.init import Init, check_fields
from trainer.downstream.metrics.apart import apart
from trainer.downstream.metrics.predictions import Predictions
from trainer.errors import UserError

GENES = ("TP53", "EGFR", "IDH1", "MYC")


def schema(words: tuple[str, ...], source: str, dtype: str = "float32", mean: bool = True) -> Schema:
    values = np.arange(1.0, len(words) + 1, dtype=np.float32) if mean else None
    return Schema({"rna": Field("rna", "array", dtype, (len(words),), words, values)}, {}, source=source)


def record(values: np.ndarray) -> Any:
    return SimpleNamespace(
        key="s", patient="p", index=3, labels={}, has=lambda n: n == "rna", shape=lambda n: values.shape, read=lambda n: values,
        rows=lambda n, start, stop: values[start:stop],
    )  # fmt: skip


def test_another_order_with_more_features_is_read_by_name() -> None:
    theirs = schema(("MYC", "KRAS", "IDH1", "TP53", "EGFR"), "there")
    found = aligned(schema(GENES, "here"), theirs, ("rna",), impute=False)
    assert found.view is not None
    there = found.view(record(np.array([4.0, 9.0, 3.0, 1.0, 2.0])))
    assert there.read("rna").tolist() == [1.0, 2.0, 3.0, 4.0]
    assert there.shape("rna") == (4,)
    assert there.index == 3
    (note,) = found.notes
    assert "1 that the encoder does not know are left out" in note
    source = Init("gimp", {}, schema(GENES, "here"), None, False, None)
    check_fields(source, ("rna",), found.schema)
    with pytest.raises(UserError, match="the encoder was trained on"):
        check_fields(source, ("rna",), theirs)


def test_missing_ones_are_counted_and_stand_at_the_mean_only_when_asked() -> None:
    theirs = schema(("EGFR", "TP53"), "there")
    with pytest.raises(UserError, match=r"lacks 2 of the 4 features .*IDH1, MYC.*--impute mean"):
        aligned(schema(GENES, "here"), theirs, ("rna",), impute=False)
    found = aligned(schema(GENES, "here"), theirs, ("rna",), impute=True)
    assert found.view is not None
    there = found.view(record(np.array([[7.0, 8.0], [5.0, 6.0]])))
    assert there.read("rna").tolist() == [[8.0, 7.0, 3.0, 4.0], [6.0, 5.0, 3.0, 4.0]]
    assert there.rows("rna", 1, 2).tolist() == [[6.0, 5.0, 3.0, 4.0]]
    assert there.shape("rna") == (2, 4)
    assert "IMPUTED: 2 of 4 are missing" in found.notes[0]


@pytest.mark.parametrize(
    ("mine", "theirs", "says"),
    [
        (schema(GENES, "here"), schema(("ENSG1", "ENSG2"), "there"), "all of them"),
        (schema(GENES, "here", mean=False), schema(GENES[:3], "there"), "kept no training mean"),
        (schema(GENES, "here"), schema(GENES[:3], "there", "uint8"), "a mean is none of its whole numbers"),
        (schema(("rs1_A(/G)", "rs2_C(/T)"), "here"), schema(("rs1_G(/A)", "rs2_C(/T)", "rs3_A"), "there"), "count another allele"),
    ],
    ids=["other names", "no mean", "whole numbers", "alleles"],
)  # fmt: skip
def test_what_no_mean_can_stand_for_is_refused_even_when_asked(mine: Schema, theirs: Schema, says: str) -> None:
    with pytest.raises(UserError, match=says):
        aligned(mine, theirs, ("rna",), impute=True)


def test_equal_features_are_left_alone() -> None:
    assert aligned(schema(GENES, "here"), schema(GENES, "there"), ("rna",), impute=False).view is None


# ---------------------------------------------------------------------------------------------------------- what was lost


def shares(right: float, patients: int, name: str) -> Predictions:
    """Binary answers of which a share is right."""
    target_N = np.arange(patients) % 2
    right_N = np.arange(patients) < right * patients
    score_N = np.where(right_N, target_N, 1 - target_N) * 0.8 + 0.1
    names = np.array([f"{name}-{i}" for i in range(patients)])
    return Predictions("binary", names, names, target_N, score_N, ("no", "yes"))


def test_the_interval_of_a_drop_is_that_of_two_independent_shares() -> None:
    a, b = shares(0.9, 300, "a"), shares(0.75, 200, "b")
    d = apart([a], [b], "accuracy", draws=2000)
    assert d.difference == pytest.approx(-0.15)
    half = 1.96 * np.sqrt(0.9 * 0.1 / 300 + 0.75 * 0.25 / 200)
    assert (d.high - d.low) / 2 == pytest.approx(half, rel=0.1)
    assert d.p < 0.01


def test_two_sets_are_not_drawn_alike() -> None:
    """Equal sets, as far as numbers go: the same draws for both would leave no width at all."""
    d = apart([shares(0.8, 100, "a")], [shares(0.8, 100, "b")], "accuracy")
    assert d.difference == 0
    assert d.high - d.low > 0.15
