"""`medpair runs`: states as they are, damage listed and not the end, the best first, what two runs differ in."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from launch.runs import main
from tests.trainer.runs.folders import point, pretrained, tuned
from trainer.errors import Stopped, TrainingError, UserError
from trainer.runs.locks import Locks, locks
from trainer.runs.read import Listed, read_all
from trainer.runs.words import age, table
from trainer.state.ended import NAME, forget, note


def by_name(root: Path) -> dict[str, Listed]:
    return {r.path.name: r for r in read_all([root])}


def asked(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_states(tmp_path: Path) -> None:
    pretrained(tmp_path / "finished")
    note(pretrained(tmp_path / "stopped", False), Stopped("stopped at step 20"))
    note(pretrained(tmp_path / "failed", False), TrainingError("five steps without a finite loss"))
    pretrained(tmp_path / "killed", False)
    (pretrained(tmp_path / "saved", False) / "checkpoints" / "step-00000020").mkdir(parents=True)
    held = pretrained(tmp_path / "running", False)
    with open(held / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = by_name(tmp_path)
    states = {n: found[n].state for n in found}
    assert states == {
        "finished": "finished", "stopped": "stopped", "failed": "failed", "killed": "failed", "saved": "stopped", "running": "running",
    }  # fmt: skip
    assert "finite" in found["failed"].why
    assert "killed" in found["killed"].why
    run = found["finished"]
    assert (run.kind, run.method, run.data, run.step, run.loss) == ("pretrain", "gimp", "sets/a", 20, 0.05)
    assert [(r.name, r.value, r.split) for r in run.reached] == [("loss/rec", 0.5, "validation")]


def test_a_lock_is_of_a_device_and_an_inode(tmp_path: Path) -> None:
    """Two file systems count the same numbers: a file of another one that is locked says nothing of this one."""
    (tmp_path / "free").touch()
    with open(tmp_path / "held", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        now = locks()
        assert now.on(tmp_path / "held")
        assert not now.on(tmp_path / "free")
        assert not now.on(tmp_path / "absent")
        inode = os.fstat(lock.fileno()).st_ino
        assert not Locks(frozenset({f"fff:fff:{inode}"}), now.devices).on(tmp_path / "held")


def test_a_run_on_another_machine_is_told_by_what_it_wrote(tmp_path: Path) -> None:
    for name in ("fresh", "old"):
        life = {"job": "7", "count": 0, "host": "far-away", "pid": 1}
        (pretrained(tmp_path / name, False) / ".fence").write_text(json.dumps({"token": "t", "life": life}))
    for file in (tmp_path / "old").iterdir():
        os.utime(file, (1e9, 1e9))
    found = by_name(tmp_path)
    assert (found["fresh"].state, found["old"].state) == ("running", "failed")
    assert "far-away" in found["fresh"].why


def test_a_refusal_leaves_no_note_and_a_start_takes_it_away(tmp_path: Path) -> None:
    note(tmp_path, UserError("mend it"))
    assert not (tmp_path / NAME).exists()
    note(tmp_path, RuntimeError("x" * 9999))
    assert len(json.loads((tmp_path / NAME).read_bytes())["why"]) == 500
    forget(tmp_path)
    assert not (tmp_path / NAME).exists()


def test_points_of_a_sweep(tmp_path: Path) -> None:
    point(tuned(tmp_path / "s/done", 0.8), "done", 0)
    point(tmp_path / "s/next", "waiting")
    point(tmp_path / "s/refused", "failed", 2)
    found = by_name(tmp_path)
    assert {n: r.state for n, r in found.items()} == {"done": "finished", "next": "waiting", "refused": "failed"}
    assert "sweep s: 3 runs: 1 failed, 1 finished, 1 waiting" in table(
        [*found.values(), *read_all([pretrained(tmp_path / "x")])]
    )


def test_parts_of_a_run_are_no_runs(tmp_path: Path) -> None:
    tuned(tmp_path / "a", 0.8)
    for part in ("seed-0/lr-0.1", "control-shuffled", "external/there", "checkpoints/step-1"):
        (tmp_path / "a" / part).mkdir(parents=True)
        (tmp_path / "a" / part / "config.json").write_text('{"config": {}}')
    tuned(tmp_path / "a/more", 0.7)
    assert sorted(by_name(tmp_path)) == ["a", "more"]


DAMAGE = {
    "cut": '{"config": {"method_na', "list": "[1, 2]", "null": "null", "odd": '{"config": {"data": 7, "method_name": "gimp"}}',
    "binary": "\x00\x01", "nested": '{"config": {"about": []}}',
}  # fmt: skip


def test_damage_is_listed_and_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrained(tmp_path / "whole")
    for name, content in DAMAGE.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    (pretrained(tmp_path / "line") / "metrics.jsonl").write_text('{"step": 1}\nno json\n')
    (tuned(tmp_path / "result", 0.5) / "result.json").write_text('{"metrics": {}}')
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "metrics.jsonl").write_text("")
    (pretrained(tmp_path / "a\x1b[2Jb") / "method.json").write_text("{}")
    found = {r["path"].rpartition("/")[2]: r for r in asked(capsys, "ls", tmp_path)}
    assert {n for n, r in found.items() if r["state"] == "unreadable"} == {*DAMAGE, "line", "result", "lost"}
    assert all(r["why"] for r in found.values() if r["state"] == "unreadable")
    assert main(["ls", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert main(["best", str(tmp_path)]) == 2


def test_the_last_line_may_be_cut_short(tmp_path: Path) -> None:
    file = pretrained(tmp_path / "a") / "metrics.jsonl"
    file.write_text(file.read_text() + '{"step": 21, "lo')
    assert by_name(tmp_path)["a"].step == 20
    file.write_text("".join(json.dumps({"step": i, "keys": "k" * 90_000, "loss": 1.0}) + "\n" for i in (1, 2)))
    assert by_name(tmp_path)["a"].step == 2


def test_a_thousand_runs_in_under_a_second(tmp_path: Path) -> None:
    for i in range(500):
        pretrained(tmp_path / f"p{i}")
        tuned(tmp_path / f"t{i}", 0.5 + i / 2000)
    began = time.process_time()  # other processes of the machine do not count
    runs = read_all([tmp_path])
    shown = table(runs)
    assert time.process_time() - began < 1
    assert len(runs) == 1000
    assert shown.endswith("1,000 runs: 1,000 finished")


def test_best_puts_what_is_in_doubt_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned(tmp_path / "good", 0.8)
    tuned(tmp_path / "better", 0.9)
    tuned(tmp_path / "leak", 0.99, leak={"checked": True, "shared": 3})
    tuned(tmp_path / "control", 0.95, control="shuffled")
    tuned(tmp_path / "other", 0.97, task="demo_grade")
    assert main(["best", str(tmp_path)]) == 2
    assert "--task NAME: demo_grade, demo_subtype" in capsys.readouterr().err
    found = asked(capsys, "best", tmp_path, "--task", "demo_subtype", "--metric", "auc")
    assert [r["path"].rpartition("/")[2] for r in found] == ["better", "good", "leak"]
    assert [r["doubt"] for r in found] == ["", "", "3 test cases were learned from"]
    assert found[0]["validation"] == 0.9
    smaller = asked(capsys, "best", tmp_path, "--task", "demo_subtype", "--metric", "brier", "--top", 1)
    assert [r["value"] for r in smaller] == [pytest.approx(0.1)]


def test_best_says_which_were_tested_on_other_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data sets and sites held out have test cases of their own; a smaller share of labels has not."""
    tuned(tmp_path / "a", 0.8)
    tuned(tmp_path / "b", 0.7, n={"train": 10, "test": 60})
    assert main(["best", str(tmp_path)]) == 0
    assert "other cases" not in capsys.readouterr().out
    tuned(tmp_path / "c", 0.75, hashes={"data": "d1", "code": "c0"})
    tuned(tmp_path / "d", 0.6, hold_out="north")
    assert main(["best", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"warning: 2 results ({tmp_path / 'c'}, {tmp_path / 'd'}) were tested on other cases than the first" in said
    found = asked(capsys, "best", tmp_path)
    assert [(r["data_set"], r["hold_out"]) for r in found] == [
        ("d0", None),
        ("d1", None),
        ("d0", None),
        ("d0", "north"),
    ]


@pytest.mark.parametrize("words", [("--task", "none"), ("--task", "demo_subtype", "--metric", "none")])
def test_best_says_what_there_is(tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    tuned(tmp_path / "a", 0.8)
    assert main(["best", str(tmp_path), *words]) == 2
    assert ("demo_subtype" if len(words) == 2 else "auc, brier") in capsys.readouterr().err


def test_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pretrained(tmp_path / "a"), pretrained(tmp_path / "b", lr=0.01, steps=30)
    found = asked(capsys, "diff", a, b)
    assert found["options"] == {"optim.lr": [0.001, 0.01]}
    assert found["data"] == {"fingerprint": ["f0.001", "f0.01"]}
    assert found["code"] == {}
    assert found["results"]["step"] == [20, 30]
    assert main(["diff", str(a), str(b)]) == 0
    text = capsys.readouterr().out
    assert "optim.lr" in text
    assert "+10" in text
    x, y = tuned(tmp_path / "x", 0.8), tuned(tmp_path / "y", 0.9, hashes={"data": "d0", "code": "c1"})
    found = asked(capsys, "diff", x, y)
    assert (found["options"], found["code"]) == ({}, {"code": ["c0", "c1"]})
    assert [v["value"] for v in found["results"]["auc"]] == [0.8, 0.9]


def test_what_is_no_run_is_refused_with_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for words in (("ls", "empty"), ("ls", "gone"), ("best", "empty"), ("diff", "empty", "gone")):
        assert main([words[0], *(str(tmp_path / w) for w in words[1:])]) == 2
        said = capsys.readouterr().err
        assert said.count("out=FOLDER") == len(words) - 1
        assert "Traceback" not in said


@pytest.mark.parametrize(("seconds", "told"), [(3, "3 s"), (90, "2 min"), (7300, "2 h"), (200_000, "2 d"), (-1, "0 s")])
def test_age(seconds: float, told: str) -> None:
    assert age(seconds) == told
