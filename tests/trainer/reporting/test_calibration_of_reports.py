"""In a report the best slope is the one nearest to 1, and the reliability picture is there."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.reporting.runs import write
from trainer.reporting.collect import collect
from trainer.reporting.groups import group
from trainer.reporting.report import build


def test_the_best_slope_is_the_nearest_to_one(tmp_path: Path) -> None:
    for name, skill in (("a", 0.1), ("b", 0.4), ("c", 3.0)):
        write(tmp_path / name, skill=skill, method=name)
    (g,) = group(collect([tmp_path]).results)
    slopes = {e.setting.method: e.metrics["calibration_slope"].value for e in g.entries}
    best = g.best(g.amounts[0], "calibration_slope")
    assert best is not None
    assert abs(best.metrics["calibration_slope"].value - 1) == min(abs(v - 1) for v in slopes.values())
    assert max(slopes, key=slopes.__getitem__) != best.setting.method != min(slopes, key=slopes.__getitem__)
    titles = [p.title for p in build([tmp_path], 100, 0).plots["demo_binary"]]
    assert "Reliability, 100 %" in titles
