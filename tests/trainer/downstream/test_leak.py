"""Patients of the test split that pre-training learned from: refused by name, or said first; and what is not known is said too."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from shards.__main__ import main as pack
from shards.check.witness import contents_of
from shards.pack.write import npy_bytes
from shards.read.dataset import Dataset
from tests.trainer.downstream.conftest import Finetune, pretraining
from tests.trainer.downstream.drawn import numbered_masks
from tests.trainer.downstream.planted import pixels, planted, png
from tests.trainer.forking import Forks
from trainer.config.recipe import build_config
from trainer.data import open_data
from trainer.downstream.task.leak import check_leak, check_splits
from trainer.downstream.task.twins import learned, within
from trainer.errors import UserError
from trainer.reporting.result import read_result
from trainer.state.finished import digest, digests, open_run

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
    theirs = planted(tmp_path / "theirs", members=other_pictures, rename=lambda n: names.get(n, f"other-{n}"))
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
    shown = summary.splitlines()[1:]  # the words of the labels first, then warnings, then the result
    begins = next(i for i, x in enumerate(shown) if x.startswith("demo_subtype, gimp (pretrained)"))
    assert all(x.startswith(("positive: ", "warning: ")) for x in shown[:begins]), "what is shown before it"
    assert read_result(tmp_path / "out" / "result.json").content.first_line == said

    # Random weights have seen nobody.
    ended = finetune(tmp_path / "random", *TASK, *KNN, "--init", str(run), "--random")
    assert ended.codes == [0], ended.text
    assert json.loads((tmp_path / "random" / "result.json").read_bytes())["first_line"] == ""


def other_pictures(i: int, given: dict) -> dict:
    """The members of a sample with another image and another bag than the cohort's."""
    given["image", "png"] = png(pixels(given["image", "png"]) ^ 1)
    bag = np.load(BytesIO(given["patches", "npy"]))
    given["patches", "npy"] = npy_bytes(bag + np.float16(0.5))
    return given


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
    patients = "0 of 12 test patients are among the 36 of pre-training"
    assert found["leak"]["note"] == f"{patients}; 0 of 14 test samples hold an image or bag of it under another name"
    assert found["leak"]["images_checked"] is True


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
        open_data(build_config("mgi", "demo", [f"data.path={tmp_path / 'leaking'}"])[0])
    assert check_splits(["a", "b"], ["b"], ["c"], accept=True) == ((), ("b",))
    with pytest.raises(UserError, match="1 of 1 validation patients are in training too: b"):
        check_splits(["a", "b"], ["b"], ["c"], accept=False)


@pytest.fixture(scope="module")
def renamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort under other names: the same images and bags in the same splits."""
    return planted(tmp_path_factory.mktemp("renamed") / "set", patients=60, rename=lambda n: f"other-{n}")


def test_the_same_images_under_other_names(
    pretrained: Pretrained, renamed: Path, finetune: Finetune, tmp_path: Path
) -> None:
    """A test split of people whom pre-training learned from, all of them called otherwise."""
    run = pretrained("gimp")
    words = [*TASK, *KNN, "--init", str(run), f"data.path={renamed}", "data.train=test", "data.test=train"]
    ended = finetune(tmp_path / "out", *words)
    assert ended.codes == [2], ended.text
    with Dataset.open(renamed) as data:
        keys = sorted(data.keys_of(data.subset("train").indices))
    said = f"{len(keys)} of {len(keys)} test samples hold an image or a bag that the pre-training of {run} learned from, under"
    assert f"{said} another patient: {', '.join(keys[:10])}, ..." in ended.text
    assert "leak.accept=true" in ended.text
    assert not (tmp_path / "out").exists()

    ended = finetune(tmp_path / "out", *words, "leak.accept=true")
    assert ended.codes == [0], ended.text
    found = json.loads((tmp_path / "out" / "result.json").read_bytes())
    line = f"LEAK: {len(keys)} test samples hold an image or bag of pre-training, under another patient ({', '.join(keys[:10])}, ...)"
    assert found["first_line"] == f"{line}: no number for new patients"
    assert found["leak"]["shared"] == 0
    assert found["leak"]["images"] == len(keys)
    assert found["leak"]["image_keys"] == keys
    assert read_result(tmp_path / "out" / "result.json").content.leak.tested_on == len(keys)


def test_what_pre_training_saw_is_compared_by_bytes_where_they_are(
    pretrained: Pretrained, renamed: Path, cohort: Path, tmp_path: Path
) -> None:
    run = open_run(pretrained("gimp"))
    with Dataset.open(renamed) as data:
        contents, train, test = contents_of(data), data.subset("train").indices, data.subset("test").indices
        assert learned(run, data, contents, test, ()).keys == ()
        seen = learned(run, data, contents, np.concatenate([test, train[:2]]), ())
        assert seen.keys == tuple(sorted(data.keys_of(train[:2])))
        assert seen.confirmed
        known = data.patients_of(train[:1])
        assert learned(run, data, contents, train[:2], known).keys == tuple(data.keys_of(train[1:2]))
        elsewhere = replace(run, sources=((str(tmp_path / "gone"), run.sources[0][1]),))
        seen = learned(elsewhere, data, contents, train[:2], ())
        assert len(seen.keys or ()) == 2
        assert not seen.confirmed
        # Another data set of now at the path of then says nothing.
        seen = learned(replace(run, sources=((str(cohort), "another"),)), data, contents, train[:2], ())
        assert not seen.confirmed
        # A chance meeting of size and CRC-32 is no leak: the bytes differ.
        chance = replace(contents, code_M=contents.code_M.copy())
        mine = np.isin(contents.sample_M, test)
        chance.code_M[mine] = contents.code_M[np.isin(contents.sample_M, train)][: mine.sum()]
        assert learned(run, data, chance, test, ()).keys == ()
        assert len(learned(elsewhere, data, chance, test, ()).keys or ()) > 0


def test_a_run_without_its_record_of_images_says_so(pretrained: Pretrained, finetune: Finetune, tmp_path: Path) -> None:
    run = Path(shutil.copytree(pretrained("gimp"), tmp_path / "run"))
    (run / "contents.npz").unlink()
    ended = finetune(tmp_path / "out", *TASK, *KNN, "--init", str(run))
    assert ended.codes == [0], ended.text
    found = json.loads((tmp_path / "out" / "result.json").read_bytes())
    assert found["first_line"].startswith(f"NOT CHECKED for equal images: {run} kept no record of its images")
    assert found["leak"]["images_checked"] is False
    (run / "contents.npz").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"contents.npz: damaged"):
        open_run(run).contents()


def test_a_list_of_an_earlier_version(pretrained: Pretrained, tmp_path: Path) -> None:
    """Digests of names as they were written: spelled alike they are found, and that others may be missed is said."""
    run = Path(shutil.copytree(pretrained("gimp"), tmp_path / "run"))
    (run / "patients.txt").write_text(f"{digest('p10000032')} train\n{digest('Anna')} train\n")
    opened = open_run(run)
    assert opened.overlap(["10000032", "Anna", "anna", "ben"]) == (["10000032", "Anna"], [])
    assert "of an earlier version" in check_leak(opened, False, ["ben"], accept=False).note


def test_spellings_of_pre_training_are_found(pretrained: Pretrained, tmp_path: Path) -> None:
    run = open_run(pretrained("gimp"))
    known = next(iter(Dataset.open(run.sources[0][0]).patients))
    assert run.overlap([known.upper(), f" {known}"])[0] or run.overlap([known.upper()])[1]
    lines = {d: "train" for n in ("p10000032", "7_7") for d in digests(n)}
    other = replace(run, trained_on=frozenset(lines))
    assert other.overlap(["10000032.0", "7", "p007", "8"])[0] == ["10000032.0", "7", "p007"]


def test_a_test_image_that_is_trained_on_under_another_name(cohort: Path, tmp_path: Path) -> None:
    """Within one data set: by the bytes, of other patients, named with its twin."""
    first: dict[str, bytes] = {}

    def twin(i: int, given: dict) -> dict:
        given["image", "png"] = (
            first.setdefault("png", given["image", "png"]) if i in planted_at else given["image", "png"]
        )
        return given

    with Dataset.open(cohort) as data:
        at = {s: data.subset(s).indices for s in ("train", "val", "test")}
        planted_at = {int(at["train"][0]), int(at["val"][1]), int(at["test"][2])}
    folder = planted(tmp_path / "set", members=twin, patients=60)
    with Dataset.open(folder) as data:
        keys = {s: data.keys_of(i) for s, i in at.items()}
        found = within(data, contents_of(data), at, "train", "val", "test")
        assert dict(found.tested) == {keys["test"][2]: keys["train"][0]}
        assert dict(found.chosen) == {keys["val"][1]: keys["train"][0]}
        assert found.problems[0] == (
            "1 test samples hold the same image or bag as a sample of another patient in training or validation: "
            f"{keys['test'][2]} = {keys['train'][0]}"
        )
        # Of samples that the task does not ask for nothing is said.
        fewer = {**at, "train": at["train"][1:], "val": at["val"][2:]}
        assert not within(data, contents_of(data), fewer, "train", "val", "test").problems


def test_twins_are_refused_before_training(cohort: Path, finetune: Finetune, tmp_path: Path) -> None:
    with Dataset.open(cohort) as data:
        pair = {int(data.subset(s).indices[0]) for s in ("train", "test")}
        key = data.keys_of(data.subset("test").indices)[0]
    first: dict[str, bytes] = {}

    def twin(i: int, given: dict) -> dict:
        given["image", "png"] = first.setdefault("png", given["image", "png"]) if i in pair else given["image", "png"]
        return given

    folder = planted(tmp_path / "set", members=twin, patients=60)
    words = [*TASK, *KNN, "--init", "scratch", f"data.path={folder}"]
    ended = finetune(tmp_path / "out", *words)
    assert ended.codes == [2], ended.text
    assert (
        "1 test samples hold the same image or bag as a sample of another patient in training or validation"
        in ended.text
    )
    ended = finetune(tmp_path / "out", *words, "leak.accept=true")
    assert ended.codes == [0], ended.text
    found = json.loads((tmp_path / "out" / "result.json").read_bytes())
    said = f"LEAK: 1 test samples hold an image or bag of training or validation, under another patient ({key})"
    assert found["first_line"].startswith(said)
    assert found["leak"]["images_in_training"] == 1
