"""Patients of the test split that pre-training learned from: refused by name, or said first; and what is not known is said too."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.__main__ import main as pack
from shards.reader import Dataset
from tests.trainer.downstream.conftest import Finetune, pretraining
from tests.trainer.downstream.drawn import numbered_masks
from tests.trainer.downstream.planted import planted
from tests.trainer.forking import Forks
from trainer.card import open_run
from trainer.data import open_data
from trainer.downstream.leak import check_leak, check_splits
from trainer.errors import UserError
from trainer.recipe import build_config
from trainer.reporting.result import read_result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
Pretrained = Callable[[str], Path]
TASK = ("--task", "demo_subtype", "--method", "gimp")
KNN = ("--mode", "knn")


def test_a_planted_overlap_is_refused_with_its_ids(
    cohort: Path, forks: Forks, finetune: Finetune, tmp_path: Path
) -> None:
    """A data set of other people, but for two, who are test patients of the task."""
    data = Dataset.open(cohort)
    both = sorted(set(data.patients_of(data.subset("test").indices)))[:2]
    known = ["demo-0000", "demo-0001"]
    names = dict(zip(known, both, strict=True))
    theirs = planted(tmp_path / "theirs", rename=lambda n: names.get(n, f"other-{n}"))
    split = dict(zip(theirs_patients(theirs), theirs_splits(theirs), strict=True))
    learned = sorted(p for p in both if split[p] == "train")
    assert learned, "at least one of the two stands in the training split of pre-training"
    run = tmp_path / "run"
    ended = forks.launch(1, pretraining("gimp", theirs, run))
    assert ended.codes == [0], ended.text

    ended = finetune(tmp_path / "out", *TASK, *KNN, "--init", str(run))
    assert ended.codes == [2], ended.text
    assert f"{len(learned)} of 12 test patients were in the pre-training of {run}: {', '.join(learned)}" in ended.text
    assert "or accept it with leak.accept=true" in ended.text
    assert not (tmp_path / "out").exists()

    ended = finetune(tmp_path / "out", *TASK, *KNN, "--init", str(run), "leak.accept=true")
    assert ended.codes == [0], ended.text
    found = json.loads((tmp_path / "out" / "result.json").read_bytes())
    said = f"LEAK: {len(learned)} test patients were in pre-training ({', '.join(learned)}): no number for new patients"
    assert found["first_line"] == said
    assert found["leak"]["ids"] == learned
    assert ended.text.count(said) >= 1
    summary = ended.text[ended.text.rindex("LEAK:") :]
    assert summary.splitlines()[1].startswith("demo_subtype, gimp (pretrained)"), "the first line of what is shown"
    assert read_result(tmp_path / "out" / "result.json").content.first_line == said

    # Random weights have seen nobody.
    ended = finetune(tmp_path / "random", *TASK, *KNN, "--init", str(run), "--random")
    assert ended.codes == [0], ended.text
    assert json.loads((tmp_path / "random" / "result.json").read_bytes())["first_line"] == ""


def theirs_patients(folder: Path) -> list[str]:
    return [line.split(",")[1] for line in (folder / "splits.csv").read_text().splitlines()[1:]]


def theirs_splits(folder: Path) -> list[str]:
    return [line.split(",")[2] for line in (folder / "splits.csv").read_text().splitlines()[1:]]


def test_a_run_without_its_list_of_patients_says_so(pretrained: Pretrained, finetune: Finetune, tmp_path: Path) -> None:
    run = Path(shutil.copytree(pretrained("gimp"), tmp_path / "run"))
    (run / "patients.txt").unlink()
    ended = finetune(tmp_path / "out", *TASK, *KNN, "--init", str(run))
    assert ended.codes == [0], ended.text
    found = json.loads((tmp_path / "out" / "result.json").read_bytes())
    assert found["first_line"] == f"NOT CHECKED for leaks: {run} has no list of its patients (patients.txt)"
    assert found["leak"]["checked"] is False
    clean = finetune(tmp_path / "clean", *TASK, *KNN, "--init", str(pretrained("gimp")))
    assert clean.codes == [0], clean.text
    found = json.loads((tmp_path / "clean" / "result.json").read_bytes())
    assert found["first_line"] == ""
    assert found["leak"]["checked"] is True
    assert found["leak"]["note"] == "0 of 12 test patients are among the 36 of pre-training"


def test_every_id_is_named_or_counted(pretrained: Pretrained, cohort: Path) -> None:
    run, data = open_run(pretrained("gimp")), Dataset.open(cohort)
    seen = sorted(set(data.patients_of(data.subset("train").indices)))
    with pytest.raises(UserError) as e:
        check_leak(run, False, [*seen, "somebody"], accept=False)
    assert f"36 of 37 test patients were in the pre-training of {run.path}: {', '.join(seen[:10])}, ..." in str(e.value)
    assert check_leak(run, False, [*seen, "somebody"], accept=True).ids == tuple(seen)
    assert not check_leak(run, False, ["somebody"], accept=False).ids
    assert check_leak(None, True, seen, accept=False).first_line.startswith(
        "NOT CHECKED for leaks: the patients behind"
    )
    assert check_leak(None, False, seen, accept=False).first_line == ""


def test_splits_that_leak_by_themselves(pretrained: Pretrained, finetune: Finetune, tmp_path: Path) -> None:
    """Published lists, packed although they leak: refused with counts, or measured with a first line."""
    table = numbered_masks(tmp_path / "set").with_suffix(".csv")
    with open(table, newline="") as f:
        rows = list(csv.DictReader(f))
    with open(table, "w", newline="") as f:
        writer = csv.DictWriter(f, [c for c in rows[0] if c != "split"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    words = []
    for split in ("train", "val", "test"):
        listed = [r["sample"] for r in rows if r["split"] == split] + (["s00", "s01"] if split == "test" else [])
        (tmp_path / split).write_text("\n".join(listed))
        words += ["--split-list", f"{split}={tmp_path / split}"]
    assert pack([*("pack", str(table), "--out", str(tmp_path / "leaking")), *words, "--accept-leaking-lists"]) == 0
    task = ["--task", "demo_lesions", "--method", "mgi", "--init", str(pretrained("mgi")), "mask_values=[1, 2]"]
    task += ["output.decoder=linear", f"data.path={tmp_path / 'leaking'}"]
    ended = finetune(tmp_path / "out", *task)
    assert ended.codes == [2], ended.text
    assert "2 of 7 test patients are in training or validation too: p00, p01" in ended.text
    assert "leak.accept=true" in ended.text
    assert not (tmp_path / "out").exists()
    ended = finetune(tmp_path / "out", *task, "leak.accept=true")
    assert ended.codes == [0], ended.text
    found = json.loads((tmp_path / "out" / "result.json").read_bytes())
    assert found["first_line"].startswith("LEAK: 2 test patients are also in training or validation (p00, p01)")
    assert found["leak"]["in_training"] == 2
    with pytest.raises(
        UserError, match=r"patients stand in two splits .* pre-train on a data set that is split by patient"
    ):
        open_data(build_config("mgi", "mgi-demo", [f"data.path={tmp_path / 'leaking'}"])[0])
    assert check_splits(["a", "b"], ["b"], ["c"], accept=True) == ((), ("b",))
    with pytest.raises(UserError, match="1 of 1 validation patients are in training too: b"):
        check_splits(["a", "b"], ["b"], ["c"], accept=False)
