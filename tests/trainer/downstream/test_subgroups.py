"""A system that fails one group is found out, groups of a few are not judged, and a report computes them anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import studentized_range

from tests.trainer.downstream.cohorts import make
from trainer.downstream.metrics.picked import reach_of_picked
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import bootstrap
from trainer.downstream.metrics.subgroups import by_group, told_of
from trainer.downstream.results import write_result
from trainer.downstream.task.read import parse_task
from trainer.errors import UserError
from trainer.reporting import cases
from trainer.reporting.collect import collect
from trainer.reporting.groups import group
from trainer.reporting.result import read_result
from trainer.reporting.subgroups import tables

PATIENTS, IMAGES, FEW = 120, 2, 6


def planted() -> tuple[list[Predictions], dict[str, str]]:
    """Site B's patients are answered by chance, site A's well; site C has six patients, two have no site."""
    rng = np.random.default_rng(5)
    truth_P = np.arange(PATIENTS) % 2
    site_P = np.where(np.arange(PATIENTS) < 70, "A", "B").astype(object)
    site_P[:FEW], site_P[FEW : FEW + 2] = "C", ""
    skill_P = np.where(site_P == "B", 0.0, 3.0)
    seeds = []
    for _ in range(2):
        said_N = np.repeat(skill_P * (truth_P - 0.5), IMAGES) + rng.normal(size=PATIENTS * IMAGES)
        seeds.append(make("binary", np.repeat(truth_P, IMAGES), expit(said_N), per_patient=IMAGES))
    return seeds, dict(zip(seeds[0].keys_N.tolist(), np.repeat(site_P, IMAGES).tolist(), strict=True))


def test_the_failing_site_is_the_worst() -> None:
    seeds, site = planted()
    found = by_group(seeds, site, "auc", 200, 0, 0.95)
    assert (found["worst"], found["best"], found["unknown"]) == ("B", "A", 2 * IMAGES)
    assert found["gap"] < -0.3
    assert found["gap_interval"][0] < found["gap"] < found["gap_interval"][1] < 0
    assert found["groups"]["C"]["value"] is None
    assert found["groups"]["C"]["too_few"].startswith(f"{FEW} test patients, 20 are needed")
    (judged, few) = told_of("site", found)
    assert "worst B" in judged
    assert "not judged: C (6 test patients" in few


def test_a_group_alone_is_its_own_result() -> None:
    """All cases in one group: the value and the interval are those of the whole set, and there is no gap."""
    seeds, site = planted()
    found = by_group(seeds, dict.fromkeys(site, "all"), "auc", 200, 0, 0.95)
    whole = bootstrap(seeds, "auc", 200, 0, 0.95)
    assert found["groups"]["all"]["value"] == pytest.approx(whole.value)
    assert found["groups"]["all"]["interval"] == pytest.approx([whole.low, whole.high])
    assert (found["worst"], found["gap"], found["gap_interval"], found["gap_by"]) == (None, None, None, None)


def test_the_worst_of_an_error_is_the_largest() -> None:
    seeds, site = planted()
    assert by_group(seeds, site, "brier", 100, 0, 0.95)["worst"] == "B"


def written(folder: Path) -> dict[str, Any]:
    seeds, site = planted()
    task = parse_task(
        {
            "name": "own",
            "kind": "binary",
            "label": "x",
            "protocol": {"seeds": [0, 1]},
            "bootstrap": {"draws": 100},
            "groups": ["site"],
        }
    )
    about = {
        "method": "gimp", "mode": "finetune", "init": {"kind": "scratch"}, "inputs": ["image"], "control": None, "first_line": None,
        "leak": {"checked": True}, "seeds": [0, 1], "hashes": {"data": "d"}, "wall_s": 1.0,
        "n": {"train": 9, "val": 9, "test": PATIENTS * IMAGES, "test_patients": PATIENTS},
    }  # fmt: skip
    return write_result(folder, task, about, seeds, ["auc"], groups={"site": site})


def test_a_report_has_the_groups_anew(tmp_path: Path) -> None:
    content = written(tmp_path)
    again = cases.recomputed(read_result(tmp_path / "result.json"))
    assert again.content.groups["site"].gap == pytest.approx(content["groups"]["site"]["gap"])
    (g,) = group(collect([tmp_path]).results)
    (table,) = tables(g, g.amounts[0])
    assert table.head == ("", "A", "B", "C", "worst", "gap")
    assert table.rows[0][3:5] == ("6 patients: too few", "B")


@pytest.mark.parametrize("what", ["number", "worst", "file"])
def test_groups_that_do_not_belong_to_the_predictions_are_refused(what: str, tmp_path: Path) -> None:
    content = written(tmp_path)
    site = content["groups"]["site"]
    if what == "number":
        site["groups"]["B"]["value"] = 0.95
    elif what == "worst":
        site["worst"] = "A"
    else:
        (tmp_path / "groups.npz").write_bytes(b"nothing")
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"groups(\.site|\.npz)"):
        cases.recomputed(read_result(tmp_path / "result.json"))


def test_resamples_are_of_patients() -> None:
    seeds, site = planted()
    whole = by_group(seeds, site, "auc", 200, 0, 0.95)["groups"]["B"]["interval"]
    alone = [replace(p, patients_N=p.keys_N) for p in seeds]
    assert by_group(alone, site, "auc", 200, 0, 0.95)["groups"]["B"]["interval"] != whole


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_the_gap_of_groups_that_may_be_alike_reaches_as_far_as_their_range(groups: int) -> None:
    """The range of so many normal numbers is Tukey's, whatever they happen to look like."""
    rng = np.random.default_rng(3)
    value_G = 0.5 * rng.normal(size=groups)
    reach = reach_of_picked(value_G, value_G[:, None] + rng.normal(size=(groups, 20_000)), np.ones(groups), 1e6, 0.95)
    assert reach == pytest.approx(studentized_range.ppf(0.95, groups, np.inf) / np.sqrt(2), abs=0.04)


def test_groups_that_cannot_be_the_worst_leave_the_gap_as_it_is() -> None:
    rng = np.random.default_rng(4)
    value_G = np.array([0.0, 20.0, 21.5, 50.0])
    reach = reach_of_picked(value_G, value_G[:, None] + rng.normal(size=(4, 4000)), np.ones(4), 1e6, 0.95)
    assert reach == pytest.approx(1.96, abs=0.1)
    few = reach_of_picked(value_G, value_G[:, None] + rng.normal(size=(4, 4000)), np.ones(4), 5, 0.95)
    assert few == pytest.approx(2.57, abs=0.2), "Student's t of few patients"


def test_resamples_without_a_value_in_some_group_are_left_out() -> None:
    value_G, none = np.array([0.0, 1.0, 2.0]), np.full((3, 10), np.nan)
    assert np.isnan(reach_of_picked(value_G, none, np.ones(3), 50, 0.95))
    drawn = value_G[:, None] + np.random.default_rng(0).normal(size=(3, 300))
    assert reach_of_picked(value_G, np.c_[drawn, none], np.ones(3), 50, 0.95) == pytest.approx(
        reach_of_picked(value_G, drawn, np.ones(3), 50, 0.95)
    )


def test_a_report_replaces_the_gap_of_an_earlier_version(tmp_path: Path) -> None:
    content = written(tmp_path)
    site = content["groups"]["site"]
    now, site["gap_interval"] = site["gap_interval"], [-0.9, -0.1]
    (tmp_path / "result.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="gap_interval"):
        cases.recomputed(read_result(tmp_path / "result.json"))
    del site["gap_by"]
    (tmp_path / "result.json").write_text(json.dumps(content))
    again = cases.recomputed(read_result(tmp_path / "result.json"))
    assert again.content.groups["site"].gap_interval == pytest.approx(now)
