"""Other data in a report: the same weights here and there, side by side, with what was lost."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.trainer.reporting.runs import predictions, write
from trainer.downstream.metrics.apart import apart
from trainer.reporting.report import build, markdown


def shas(folder: Path) -> list[str]:
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((folder / "predictions").glob("*.npz"))]


@pytest.fixture
def hospitals(tmp_path: Path) -> Path:
    """Two systems on their own test cases and at another hospital, where one of them falls; one without a look there."""
    for name, here, there in (("a", 2.0, 0.2), ("b", 1.5, 1.4)):
        run = write(tmp_path / name, skill=here, method=name)
        write(run, skill=here, method=name, predictions_sha256=shas(run))
        external = {"name": "north", "predictions_sha256": shas(run)}
        write(run / "external/north", skill=there, method=name, cohort=1, cases=80, external=external)
    write(tmp_path / "c", skill=1.0, method="c")
    return tmp_path


def test_internal_and_external_stand_side_by_side(hospitals: Path) -> None:
    report = build([hospitals], 200, 0)
    assert [g.name for g in report.groups] == ["demo_binary", "demo_binary on north"]
    (table,) = report.beside["demo_binary"]
    assert not report.beside["demo_binary on north"]
    assert table.head == ("", "auc, own test cases", "on north", "difference")
    assert len(table.rows) == 2, "what was not looked at elsewhere has no row"
    for name, (here, there) in {"a": (2.0, 0.2), "b": (1.5, 1.4)}.items():
        (row,) = [r for r in table.rows if r[0].startswith(f"{name}:")]
        seeds = [[predictions("binary", k, s, n, c) for s in range(3)] for k, n, c in ((here, 60, 0), (there, 80, 1))]
        d = apart(*seeds, "auc", draws=100)
        assert row[1].startswith(f"{d.a:.3f} (")
        assert row[2].startswith(f"{d.b:.3f} (")
        assert row[3] == f"{d.difference:+.3f} ({d.low:+.3f} to {d.high:+.3f})"
    assert table.note.endswith("so that the run's own test cases say too much of it: a: pretrained on north.")
    text = markdown(report)
    assert "## demo\\_binary on north" in text
    assert "On other data, 100 % of the labels" in text


def test_a_look_with_other_weights_is_not_put_beside(hospitals: Path) -> None:
    external = {"name": "north", "predictions_sha256": ["0" * 64] * 3}
    write(hospitals / "a/external/north", skill=0.2, method="a", cohort=1, cases=80, external=external)
    (table,) = build([hospitals], 200, 0).beside["demo_binary"]
    assert [r[0][0] for r in table.rows] == ["b"]
