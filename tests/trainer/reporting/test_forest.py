"""Differences as a picture: who stands in it, who is filled, and what it says of the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.trainer.reporting.runs import SCRATCH, write
from trainer.reporting.collect import collect
from trainer.reporting.forest import forests, told_apart
from trainer.reporting.groups import group
from trainer.reporting.pairs import BEST, pairs


def test_a_plot_an_opponent(tmp_path: Path) -> None:
    write(tmp_path / "a", skill=2.0)
    write(tmp_path / "b", skill=0.2, **SCRATCH)
    write(tmp_path / "c", skill=0.1, method="mgi")
    write(tmp_path / "d", skill=0.05, method="mgi", control="shuffled")
    write(tmp_path / "e", skill=0.1, method="mae", cases=40)
    (g,) = group(collect([tmp_path]).results)
    tested = pairs(g, 100, 0)
    best, scratch, control = forests(g, g.amounts[0], tested)
    assert best.title == "Differences from the best, 100 %"
    assert best.caption.startswith("Row minus gimp: pretrained,")
    assert "1 without an interval, or on other test cases, are left out" in best.caption
    assert scratch.title == "Differences from scratch, 100 %"
    assert "left out" not in scratch.caption
    assert control.title == "Differences from no control, 100 %"
    against = {t.entry.label: t for t in tested if t.against == BEST}
    assert told_apart(against["mgi: pretrained"])
    assert not told_apart(replace(against["mgi: pretrained"], seeds=(3, 1))), "one seed tells nothing of others"
    assert forests(g, g.amounts[0], []) == []
