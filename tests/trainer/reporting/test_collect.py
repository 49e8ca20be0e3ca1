"""Results are read strictly, running ones are listed, and only what is comparable shares a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.reporting.runs import SCRATCH, write
from trainer.errors import UserError
from trainer.reporting import cases, pairs
from trainer.reporting.collect import collect
from trainer.reporting.groups import Amount, group
from trainer.reporting.result import read_result

GROUPS = {"groups": {}, "unknown": 0, "worst": None, "best": None, "gap": None, "gap_interval": None}


def changed(folder: Path, **changes: Any) -> Path:
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_a_result_is_read_back(tmp_path: Path) -> None:
    found = read_result(write(tmp_path / "a") / "result.json")
    assert found.content.task == "demo_binary"
    assert found.content.seeds == (0, 1, 2)
    assert found.measured.value == pytest.approx(sum(found.measured.per_seed) / 3)
    again = cases.recomputed(found)
    assert again.measured.per_seed == pytest.approx(found.measured.per_seed)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"seeds": ["0", "1", "2"]}, "seeds.0: Input should be a valid integer"),
        ({"seeds": [0, 0, 1]}, "one or more different ones"),
        ({"seeds": []}, "one or more different ones"),
        ({"kind": "binari"}, "kind: Input should be 'binary'"),
        ({"primary": "auk"}, "primary 'auk' is not among the metrics"),
        ({"fraction": 10}, "fraction 10.0 is not in (0, 1]"),
        ({"predictions": ["predictions/seed-0.npz"]}, "1 predictions for 3 seeds"),
        ({"predictions": ["../a.npz", "/b.npz", "c.npz"]}, "'../a.npz' leaves the result's folder; '/b.npz' leaves"),
        ({"hashes": {}}, "hashes.data: Field required"),
        ({"metrics": {}}, "primary 'auc' is not among the metrics"),
        ({"groups": {"sex": GROUPS}}, "groups without groups_file and groups_sha256"),
    ],
)
def test_a_wrong_result_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = changed(write(tmp_path / "a"), **changes)
    with pytest.raises(UserError) as e:
        read_result(path)
    assert said in str(e.value)
    assert str(path) in str(e.value)


def test_calibrated_metrics_have_a_fit_for_each_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "a") / "result.json"
    of = json.loads(path.read_text())["metrics"]
    read_result(changed(path.parent, calibrated=of, recalibration=[{}, {}, {}]))
    with pytest.raises(UserError, match="2 recalibrations for 3 seeds"):
        read_result(changed(path.parent, recalibration=[{}, {}]))


def test_a_metric_that_does_not_fit_its_seeds_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a") / "result.json"
    content = json.loads(path.read_text())
    content["metrics"]["accuracy"] |= {"k": [1, 2, 61], "interval": [0.9, 0.1]}
    content["metrics"]["auc"] |= {"per_seed": [0.5]}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as e:
        read_result(path)
    for said in ("metrics.accuracy.k", "upside down", "metrics.auc.per_seed has 1 values for 3 seeds"):
        assert said in str(e.value)


def test_every_damaged_file_is_named_at_once(tmp_path: Path) -> None:
    for name, text in (("cut", '{"format": 1, "ta'), ("list", "[]"), ("empty", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
    write(tmp_path / "good")
    with pytest.raises(UserError) as e:
        collect([tmp_path, tmp_path / "nowhere"])
    assert len(e.value.problems) == 4
    assert all(str(tmp_path / name) in str(e.value) for name in ("cut", "list", "empty", "nowhere"))
    assert "good" not in str(e.value)


def test_nothing_found_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no result\.json under .*out=FOLDER"):
        collect([tmp_path])


def test_results_are_found_once_at_any_depth(tmp_path: Path) -> None:
    a, b = write(tmp_path / "x" / "y" / "a"), write(tmp_path / "b", seeds=(0,))
    found = collect([tmp_path, tmp_path / "x", a, b / "result.json"])
    assert [r.folder for r in found.results] == [b, a]


def test_runs_without_result_are_listed_and_others_left_alone(tmp_path: Path) -> None:
    done = write(tmp_path / "done")
    configs: dict[Path, Any] = {
        tmp_path / "going": {"config": {"task": {"name": "dr"}, "method": {"name": "mgi"}}},
        tmp_path / "going" / "seed-0": {"config": {"task": "dr", "method": "mgi"}},  # part of `going`
        done / "seed-0": {"config": {"task": "dr"}},  # part of a finished one
        tmp_path / "pretrain": {"config": {"method": {"name": "mgi"}}},
        tmp_path / "export": {"architecture": "vit_base_patch16_224"},
        tmp_path / ".hidden": {"config": {"task": "dr"}},
    }
    for folder, content in configs.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(content))
    found = collect([tmp_path])
    assert [(r.folder, r.task, r.method) for r in found.running] == [(tmp_path / "going", "dr", "mgi")]
    assert [r.folder for r in found.results] == [done]


# ------------------------------------------------------------------------------------------------------------------ groups


def test_other_data_is_kept_apart_and_said(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", **SCRATCH)
    write(tmp_path / "c", cohort=1)
    groups = group(collect([tmp_path]).results)
    assert [(g.name, len(g.entries)) for g in groups] == [("demo_binary (1 of 2)", 2), ("demo_binary (2 of 2)", 1)]
    assert "data hash d0" in groups[0].apart
    assert "data hash d1" in groups[1].apart
    assert "convention" not in groups[0].apart


def test_a_control_or_a_leak_is_never_the_best(tmp_path: Path) -> None:
    write(tmp_path / "control", skill=5, control="missing")
    write(tmp_path / "leak", skill=5, leak={"checked": True, "shared": 1, "ids": ["p"], "note": ""}, method="mgi")
    plain = write(tmp_path / "plain", skill=0.5)
    (g,) = group(collect([tmp_path]).results)
    best = g.best(Amount())
    assert best is not None
    assert best.first.folder == plain
    assert g.at(Amount())[-1] is best


def test_lower_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    for skill in (0.5, 1.0):
        write(tmp_path / f"{skill}", "regression", skill, method=f"m{skill}")
    (g,) = group(collect([tmp_path]).results)
    values = [e.measured.value for e in g.at(Amount())]
    assert values == sorted(values)
    best = g.best(Amount())
    assert best is not None
    assert best.measured.value == values[0]


def test_draws_are_joined_and_same_settings_told_apart(tmp_path: Path) -> None:
    for draw in (0, 1):
        write(tmp_path / f"d{draw}", skill=1 + draw, shots=5, draw=draw, seeds=(0, 1))
    for name in ("one", "two"):
        write(tmp_path / name, hashes={"data": "d0", "config": name})
    (g,) = group(collect([tmp_path]).results)
    few, *full = sorted(g.entries, key=lambda e: not e.amount.shots)
    single = [r.measured for r in few.results]
    assert few.repeats == "2 draws x 2 seeds"
    assert few.measured.per_seed == single[0].per_seed + single[1].per_seed
    assert few.measured.value == pytest.approx((single[0].value + single[1].value) / 2)
    assert few.measured.interval is not None
    assert few.measured.interval[0] < few.measured.value < few.measured.interval[1]
    assert [e.setting.variant for e in full] == [str(tmp_path / "one"), str(tmp_path / "two")]
    assert {e.label for e in full} == {f"gimp: pretrained, {n}" for n in ("one", "two")}, (
        "as a sweep's points are named"
    )


def test_systems_of_one_method_go_by_their_titles(tmp_path: Path) -> None:
    """A row each, compared with the random start of the same recipe alone."""
    for title, skill in (("", 1), ("CLAM-MB", 2)):
        write(tmp_path / f"a{title}", method="clam", title=title, skill=skill)
        write(tmp_path / f"b{title}", method="clam", title=title, skill=skill / 2, **SCRATCH)
    (g,) = group(collect([tmp_path]).results)
    assert {e.label for e in g.entries} == {f"{n}: {s}" for n in ("clam", "CLAM-MB") for s in ("pretrained", "scratch")}
    assert not any(e.setting.variant for e in g.entries)
    met = {(p.entry.label, p.other.label) for p in pairs.pairs(g, 100, 0) if p.against == pairs.SCRATCH}
    assert met == {("clam: pretrained", "clam: scratch"), ("CLAM-MB: pretrained", "CLAM-MB: scratch")}


def test_scratch_as_a_mode_meets_fine_tuning(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", mode="scratch", **SCRATCH)
    (g,) = group(collect([tmp_path]).results)
    assert {e.setting.mode for e in g.entries} == {"finetune"}
    assert {e.label for e in g.entries} == {"gimp: pretrained", "gimp: scratch"}
