"""Who is tested against whom, and that the numbers are those of the paired bootstrap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.trainer.reporting.runs import SCRATCH, predictions, write
from trainer.downstream.metrics.statistics import paired
from trainer.reporting import words
from trainer.reporting.collect import collect
from trainer.reporting.groups import Group, group
from trainer.reporting.pairs import Pair, holm, pairs


def found(root: Path) -> tuple[Group, dict[tuple[str, str], Pair]]:
    (g,) = group(collect([root]).results)
    return g, {(t.entry.label, t.against): t for t in pairs(g, 200, 0)}


def test_holm_is_the_textbook_step_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_each_entry_meets_the_best_and_its_own_scratch(tmp_path: Path) -> None:
    write(tmp_path / "a", skill=2.0)
    write(tmp_path / "b", skill=0.2, **SCRATCH)
    write(tmp_path / "c", skill=0.1, method="mgi")
    write(tmp_path / "d", skill=0.05, method="mgi", control="shuffled")
    write(tmp_path / "e", skill=3.0, fraction=0.1)  # another amount: compared with nothing here
    _, tests = found(tmp_path)
    assert set(tests) == {
        ("gimp: pretrained", "scratch"),
        ("gimp: scratch", "best"),
        ("mgi: pretrained", "best"),
        ("mgi: pretrained, shuffled control", "best"),
        ("mgi: pretrained, shuffled control", "without control"),
    }
    direct = paired(
        [predictions("binary", 2.0, s) for s in range(3)],
        [predictions("binary", 0.2, s) for s in range(3)],
        "auc",
        200,
        0,
    )
    one = tests["gimp: pretrained", "scratch"]
    assert (one.difference, *one.interval, one.p) == (direct.difference, direct.low, direct.high, direct.p)
    assert one.difference > 0.1 > one.p
    other = tests["gimp: scratch", "best"]
    assert other.difference == -one.difference
    # The same pair twice is one test of four.
    distinct = {frozenset((id(t.entry), id(t.other))): t.p for t in tests.values()}
    assert len(distinct) == 4
    corrected = dict(zip(distinct, holm(list(distinct.values())), strict=True))
    assert one.p_holm == other.p_holm == corrected[frozenset((id(one.entry), id(one.other)))]


def test_a_leak_is_compared_with_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a", skill=2.0, leak={"checked": True, "shared": 2, "ids": [], "note": ""})
    write(tmp_path / "b", skill=1.0, **SCRATCH)
    write(tmp_path / "c", skill=0.5, method="mgi")
    _, tests = found(tmp_path)
    assert {(a, t.other.label) for (a, _), t in tests.items()} == {("mgi: pretrained", "gimp: scratch")}


def test_other_test_cases_are_said_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "a", skill=2.0)
    write(tmp_path / "b", skill=0.5, cases=40, **SCRATCH)
    _, tests = found(tmp_path)
    t = tests["gimp: pretrained", "scratch"]
    assert np.isnan(t.difference)
    assert "20 test cases are missing" in t.problem
    assert words.pair(t) == "other test cases"


def test_one_training_of_a_system_is_no_evidence_for_it(tmp_path: Path) -> None:
    """Far apart over patients, and not marked: of one seed on either side; but for what draws nothing."""
    write(tmp_path / "a", skill=2.5, seeds=(0,))
    write(tmp_path / "b", skill=0.2, seeds=(0,), **SCRATCH)
    write(tmp_path / "c", skill=0.1, method="mgi")
    g, tests = found(tmp_path)
    t = tests["gimp: scratch", "best"]
    assert t.seeds == (1, 1)
    assert t.p_holm < 0.05
    assert (t.drawn_once, t.marked) == (True, False)
    said = words.pair(t)
    assert " (one seed: not marked), claim false of these trainings" in said
    assert " *" not in said
    assert "needed" not in said
    assert not tests["mgi: pretrained", "best"].marked, "three seeds against one"
    (note,) = [n for n in words.warnings([g])[1] if "of one seed" in n]
    assert "2 of 3 results are of one seed" in note


def test_what_draws_nothing_needs_no_second_seed(tmp_path: Path) -> None:
    write(tmp_path / "a", skill=2.5, seeds=(0,), mode="knn")
    write(tmp_path / "b", skill=0.2, seeds=(0,), mode="knn", **SCRATCH)
    g, tests = found(tmp_path)
    assert tests["gimp: scratch", "best"].marked
    assert " *" in words.pair(tests["gimp: scratch", "best"])
    assert not [n for n in words.warnings([g])[1] if "one seed" in n]


@pytest.mark.parametrize(
    ("p", "text"), [(0.0004, "<.001"), (0.0123, ".012"), (1.0, "1"), (0.99999, "1"), (float("nan"), "–")]
)
def test_p_values_are_written_without_false_precision(p: float, text: str) -> None:
    assert words.p_value(p) == text


@pytest.mark.parametrize(
    ("v", "text"), [(0.98765, "0.988"), (-0.5, "-0.500"), (1234.5, "1234"), (float("nan"), "–"), (None, "–")]
)
def test_numbers(v: float | None, text: str) -> None:
    assert words.number(v) == text
