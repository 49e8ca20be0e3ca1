"""Where a report shows ranks over tasks, and why it does not."""

from __future__ import annotations

from pathlib import Path

from tests.trainer.reporting.runs import SCRATCH, write
from trainer.reporting.collect import collect
from trainer.reporting.groups import group
from trainer.reporting.ranks import OverTasks, over_tasks
from trainer.reporting.report import Report, html, markdown

SKILLS = {"abmil": 2.0, "clam": 0.8, "gimp": 0.1}
KINDS = ("binary", "regression", "binary", "binary", "binary")


def cohort(root: Path, tasks: int, **changes: object) -> Path:
    for t in range(tasks):
        for method, skill in SKILLS.items():
            write(root / f"{t}-{method}", KINDS[t], skill, seeds=(0,), cohort=t, task=f"t{t}", method=method, **changes)
    return root


def found(root: Path) -> OverTasks:
    return over_tasks(group(collect([root]).results))


def test_five_tasks_give_ranks_where_lower_may_be_better(tmp_path: Path) -> None:
    cohort(tmp_path, 5)
    write(tmp_path / "more", task="t0", method="mgi", seeds=(0,))
    over = found(tmp_path)
    assert over.table is not None
    assert over.plot is not None
    assert over.table.head == ("", "mean rank", "t0", "t1", "t2", "t3", "t4")
    assert [row[:2] for row in over.table.rows] == [(f"{m}: pretrained", f"{i}.00") for i, m in enumerate(SKILLS, 1)]
    assert "p <.001. Mean ranks that differ by 1.48 or more" in over.table.note
    assert "1 settings lack one of these tasks" in over.table.note
    report = Report([], (), 100, 0, ranks=over)
    for said in (markdown(report), html(report)):
        assert "Ranks over tasks" in said
    assert 'alt="Critical difference over tasks"' in html(report)


def test_four_tasks_say_what_is_missing(tmp_path: Path) -> None:
    over = found(cohort(tmp_path, 4))
    assert (over.table, over.plot) == (None, None)
    assert "take 5 tasks or more" in over.why_not
    assert "here 3 settings are ranked on 4 tasks together" in over.why_not
    report = Report([], (), 100, 0, ranks=over)
    assert over.why_not in markdown(report)
    assert "here 3 settings are ranked" in html(report)


def test_one_task_says_nothing(tmp_path: Path) -> None:
    assert found(cohort(tmp_path, 1)) == OverTasks()


def test_what_may_not_lead_or_saw_other_cases_is_not_ranked(tmp_path: Path) -> None:
    cohort(tmp_path, 5)
    for t in range(5):
        words = {"cohort": t, "task": f"t{t}", "seeds": (0,)}
        write(tmp_path / f"{t}-control", KINDS[t], 4.0, method="mgi", control="shuffled", **words)
        write(tmp_path / f"{t}-other", KINDS[t], 4.0, method="mgi", cases=58, **(words | SCRATCH))
    over = found(tmp_path)
    named = {row[0] for row in over.table.rows} if over.table else {over.why_not}
    assert named == {f"{m}: pretrained" for m in SKILLS}
