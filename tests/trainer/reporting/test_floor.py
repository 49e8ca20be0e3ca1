"""Too few test patients: numbers are shown, nothing is ranked or tested, and the report says how many would be needed."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.reporting.runs import SCRATCH, write
from trainer.reporting.report import build, markdown


def test_too_few_patients_rank_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a", skill=3.0, cases=30)
    write(tmp_path / "b", skill=0.1, cases=30, **SCRATCH)
    report = build([tmp_path], 100, 0)
    (g,) = report.groups
    assert g.best(g.amounts[0]) is None
    said = markdown(report)
    assert "15 test patients, 20 are needed to rank" in said
    assert "not tested: too few" in said
    assert "**0." not in said
    assert not [t for t in report.pairs if t.p == t.p]


def test_what_is_not_found_says_how_many_would(tmp_path: Path) -> None:
    write(tmp_path / "a", skill=1.0)
    write(tmp_path / "b", skill=0.9, **SCRATCH)
    report = build([tmp_path], 100, 0)
    (t,) = {frozenset((id(t.entry), id(t.other))): t for t in report.pairs}.values()
    assert t.p_holm > 0.05
    assert t.needed is not None
    assert t.needed > 30
    assert f"{t.needed} patients would be needed" in markdown(report)
