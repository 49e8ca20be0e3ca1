"""What simulation found of intervals is said of results like those that were simulated, cell by cell, and stands in the docs as it is."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.trainer.downstream.cohorts import make
from trainer.downstream.metrics import simulated
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.recalibrated import recalibrated
from trainer.downstream.metrics.simulated import (
    WITHIN,
    cells,
    cells_of_differences,
    cells_of_parts,
    cohort_of,
    outside,
    size_of,
)
from trainer.downstream.metrics.table import METRICS
from trainer.downstream.results import write_result
from trainer.downstream.sites.analysis import Asked, site_report
from trainer.downstream.task.read import parse_task
from trainer.reporting import coverage

PAGE = Path(__file__).parents[3] / "docs" / "results" / "coverage.md"
COLUMNS = [(cohort, metric, size) for cohort, found in cells().items() for metric, of in found.items() for size in of]


def drawn(cohort: str, patients: int, images: int) -> Predictions:
    """Test cases of a simulated cohort, the first drawn that do not stand, by chance, on the other side of what is rare or strong."""
    from tests.benchmarks import coverage

    draws = (coverage.cohort(cohort, np.random.default_rng(seed), patients, images) for seed in range(5, 25))
    return next(p for p in draws if cohort_of(p) == cohort)


@pytest.mark.parametrize("cohort", list(cells()))
def test_every_cell_outside_carries_a_warning_and_no_other(cohort: str) -> None:
    for size in {s for c, _, s in COLUMNS if c == cohort}:
        patients, _, images = size.partition("x")
        p = drawn(cohort, int(patients), 0 if images == "1-10" else 1)
        assert size_of(p) == (int(patients), images)
        metrics = [m for m, of in cells()[cohort].items() if size in of]
        said = " ".join(outside(p, metrics))
        for m in metrics:
            share = cells()[cohort][m][size]
            assert (f"{m} in {share:.1f} %" in said) == (not WITHIN[0] <= share <= WITHIN[1]), (m, size)


def test_they_are_found_for_what_they_are() -> None:
    assert [cohort_of(drawn(c, 200, 1)) for c in ("binary", "strong", "rare", "survival")] == [
        "binary",
        "strong",
        "rare",
        "survival",
    ]


def test_other_sizes_go_by_the_nearest_and_far_ones_by_none() -> None:
    rng = np.random.default_rng(0)

    def of(n: int, per_patient: int = 1) -> list[str]:
        truth_N = np.arange(n // per_patient).repeat(per_patient) % 2
        return outside(make("binary", truth_N, rng.random(n), per_patient=per_patient), ["average_precision", "auc"])

    (line,) = of(120)
    assert line.startswith("95 % intervals of such test cases (simulated: binary, 100 patients with one image each)")
    assert line.endswith("too seldom: take them for too narrow (average_precision in 92.2 %)")
    assert of(2 * 120, 2) == [], "with several images it is within"
    assert of(5000) == [], "far more patients than were simulated"
    assert of(10) == [], "under the floor, of which `narrow` speaks"


def test_what_was_not_simulated_is_said_to_be_so() -> None:
    p = drawn("ordinal", 100, 1)
    assert outside(p, ["kappa_contig"]) == [
        "95 % intervals of such test cases (ordinal, 100 patients, 1 images each) were not simulated for kappa_contig: how often they hold "
        "the true value is not known"
    ]
    assert outside(drawn("segmentation", 100, 1), ["dice_patient/disc"]) == [], "a structure is as the only one"


def test_the_page_has_these_cells() -> None:
    text = PAGE.read_text().split("## Intervals today")[1].split("\n## ")[0]
    head, *rows = re.findall(r"^\| cohort: metric .*|^\| \w+: \w+ \| [\d.-]+ \|.*$", text, re.MULTILINE)
    sizes = [h.replace(" ", "") for h in head.strip("|").split("|")][2:]
    found = {}
    for row in (r.strip("|").split("|") for r in rows):
        cohort, metric = row[0].strip().split(": ")
        for size, cell in zip(sizes, row[2:], strict=True):
            if cell.strip():
                share = float(cell.split()[0])
                assert cell.strip().endswith("!") == (not WITHIN[0] <= share <= WITHIN[1])
                found[cohort, metric, size] = share
    assert found == {(c, m, s): cells()[c][m][s] for c, m, s in COLUMNS}


@pytest.mark.parametrize("how", [*cells_of_differences(), *cells_of_parts()])
def test_cells_of_differences_and_parts_outside_carry_a_warning_and_no_other(how: Any) -> None:
    for cohort, found in {**cells_of_differences(), **cells_of_parts()}[how].items():
        for size in {s for of in found.values() for s in of}:
            patients, _, images = size.partition("x")
            these = [m for m, of in found.items() if size in of]
            said = " ".join(outside(drawn(cohort, int(patients), 0 if images == "1-10" else 1), these, how))
            assert "were not simulated" not in said
            for m, of in found.items():
                if size in of:
                    assert (f"{m} in {of[size]:.1f} %" in said) == (not WITHIN[0] <= of[size] <= WITHIN[1]), (m, size)
            assert not said or ("of differences" in said) == (how in cells_of_differences())


@pytest.mark.parametrize(("how", "head"), [("systems", "two systems"), ("hospitals", "two hospitals")])
def test_the_page_has_the_cells_of_differences(how: Any, head: str) -> None:
    text = PAGE.read_text().split("## Differences")[1].split("\n## ")[0]
    table = text.split(f"| {head}: metric |")[1].split("\n\n")[0].splitlines()
    sizes = [h.replace(" ", "") for h in table[0].strip().strip("|").split("|")]
    found = {}
    for row in (r.strip("|").split("|") for r in table[2:]):
        cohort, metric = row[0].strip().split(": ")
        for size, cell in zip(sizes, row[1:], strict=True):
            if cell.strip():
                share = float(cell.split()[0])
                assert cell.strip().endswith("!") == (not WITHIN[0] <= share <= WITHIN[1])
                found[cohort, metric, size] = share
    table_of = cells_of_differences()[how]
    assert found == {(c, m, s): x for c, of in table_of.items() for m, by in of.items() for s, x in by.items()}


def test_the_page_has_the_cells_of_parts() -> None:
    text = PAGE.read_text().split("## Parts of a result")[1].split("\n## ")[0]
    found = {}
    for table in re.findall(r"^\| part: cohort: metric .*(?:\n\|.*)+", text, re.MULTILINE):
        head, _, *rows = table.splitlines()
        sizes = [h.replace(" ", "") for h in head.strip("|").split("|")][1:]
        for row in (r.strip("|").split("|") for r in rows):
            how, cohort, metric = row[0].strip().split(": ")
            for size, cell in zip(sizes, row[1:], strict=True):
                if cell.strip():
                    share = found[how, cohort, metric, size] = float(cell.split()[0])
                    assert cell.strip().endswith("!") == (not WITHIN[0] <= share <= WITHIN[1])
    cells_of = ((h, c, m, by) for h, of in cells_of_parts().items() for c, ms in of.items() for m, by in ms.items())
    assert found == {(h, c, m, s): share for h, c, m, by in cells_of for s, share in by.items()}


def test_a_report_says_it_of_its_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    p = drawn("binary", 50, 1)
    monkeypatch.setattr(coverage.cases, "predictions", lambda results: [p])

    def group(entries: int, external: str | None, primary: str = "average_precision", seeds: int = 1) -> Any:
        measured = SimpleNamespace(level=0.95, per_seed=(0.5,) * seeds)
        entry = SimpleNamespace(leaking=False, measured=measured, results=[])
        about = {"name": "t", "kind": "binary", "primary": primary, "external": external, "held_out": None}
        return SimpleNamespace(**about, entries=[entry] * entries)

    assert coverage.notes([group(2, None)]) == [], "of two systems it is within"
    (line,) = coverage.notes([group(1, "north")])
    assert line.startswith(
        "t: 95 % intervals of differences from other patients' cases of such test cases (simulated: binary, 50"
    )
    share = cells_of_differences()["hospitals"]["binary"]["average_precision"]["50x1"]
    assert f"average_precision in {share:.1f} %" in line
    assert coverage.notes([group(2, None, "auc", seeds=3)]) == []
    assert coverage.notes([group(2, None, seeds=3)]) == [f"t: {coverage.SEVERAL}"]


def test_metrics_that_are_simulated_exist() -> None:
    assert {m for _, m, _ in COLUMNS} <= METRICS.keys()


def test_a_result_says_it_of_its_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = {"100x1": 80.0}
    parts = {
        "calibrated": {"binary": {"brier": few}},
        "gap of 2 groups": {"binary": {"auc": few}},
        "sites": {"binary": {"auc": few}},
    }
    monkeypatch.setattr(simulated, "cells_of_parts", lambda: parts)
    p = drawn("binary", 100, 1)
    task = parse_task(
        {"name": "own", "kind": "binary", "label": "x", "calibration": "temperature", "groups": ["sex"]}
        | {"protocol": {"seeds": [0]}, "bootstrap": {"draws": 100}}
    )
    about: dict[str, Any] = {
        "method": "gimp", "mode": "finetune", "init": {"kind": "scratch"}, "control": None, "first_line": "", "seeds": [0], "chosen": [],
        "n": {"train": 9, "val": 9, "test": 100, "test_patients": 100},
    }  # fmt: skip
    sex = {k: "fm"[i % 2] for i, k in enumerate(p.keys_N.tolist())}
    found = write_result(tmp_path, task, about, [p], ["auc", "brier"], groups={"sex": sex}, fits=[recalibrated(p)])
    x_ND = np.random.default_rng(0).normal(size=(100, 3))
    site = Asked(x_ND, p, np.array(["north", "south"] * 50, dtype=object), "auc", 100, 0, 0.95)
    said = [*found["warnings"], *site_report("site", site, {})["warnings"]]
    like = "of such test cases (simulated: binary, 100 patients with one image each) held the true value too seldom"
    like += ": take them for too narrow"
    assert [w for w in said if "80.0 %" in w] == [
        f"95 % intervals of calibrated numbers {like} (brier in 80.0 %)",
        f"sex: 95 % intervals of the gap between two groups {like} (auc in 80.0 %)",
        f"site: 95 % intervals of how well a site is read from features {like} (auc in 80.0 %)",
    ]
