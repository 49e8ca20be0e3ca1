"""A trained run on data of another origin: the runner's own numbers again, new cases without labels, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.downstream.conftest import Finetune
from tests.trainer.downstream.planted import other_scanner, planted
from tests.trainer.forking import Forks
from trainer.downstream.external.reading import name_of
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.simulated import outside, size_of
from trainer.downstream.task.read import parse_task
from trainer.errors import UserError

pytestmark = pytest.mark.slow
Predict = Callable[..., tuple[int, str]]


def elsewhere(folder: Path, **more: Any) -> Path:
    """Another hospital: other people, other films, the same labels."""
    return planted(folder, members=other_scanner, rename=lambda name: f"elsewhere-{name}", **more)


@pytest.fixture(scope="module")
def run(cohort: Path, finetune: Finetune, pretrained: Callable[[str], Path], tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "run"
    words = (
        "--task",
        "demo_subtype",
        "--method",
        "mgi",
        "--init",
        str(pretrained("mgi")),
        "seeds=0,1",
        "leak.accept=true",
    )
    ended = finetune(out, *words)
    assert ended.codes == [0], ended.text
    return out


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: Any) -> Path:
    return elsewhere(tmp_path_factory.mktemp("hospital") / "b")


@pytest.fixture
def predict(forks: Forks, run: Path) -> Predict:
    def command(data: Path, *words: str) -> tuple[int, str]:
        return forks.command("predict", [str(run), f"data.path={data}", *words])

    return command


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def test_the_runs_own_test_cases_give_its_own_numbers(
    run: Path, cohort: Path, predict: Predict, tmp_path: Path
) -> None:
    """To the last bit, by way of what it keeps of itself: there is one runner."""
    out = tmp_path / "own"
    # The cohort's patients were in pre-training, which the run was told to accept.
    code, text = predict(cohort, "data.split=test", "--evaluate", "--out", str(out), "leak.accept=true")
    assert code == 0, text
    mine, theirs = (json.loads((folder / "result.json").read_bytes()) for folder in (run, out))
    assert theirs["metrics"] == mine["metrics"]
    for name in mine["predictions"]:
        a, b = (Predictions.load(folder / name) for folder in (run, out))
        np.testing.assert_array_equal(a.keys_N, b.keys_N)
        np.testing.assert_array_equal(a.score, b.score)
        np.testing.assert_array_equal(a.target, b.target)
    assert theirs["external"]["own"]
    assert not theirs["external"]["drop"], "what would be compared with itself"


@pytest.mark.parametrize("task", ["demo_survival", "demo_severity"])
def test_so_do_times_and_numbers(task: str, cohort: Path, finetune: Finetune, forks: Forks, tmp_path: Path) -> None:
    """What their metrics need of the training split (horizons, scale) is kept with the weights."""
    run, out = tmp_path / "run", tmp_path / "own"
    ended = finetune(run, "--task", task, "--method", "abmil")
    assert ended.codes == [0], ended.text
    words = [str(run), f"data.path={cohort}", "data.split=test", "--evaluate", "--out", str(out)]
    code, text = forks.command("predict", words)
    assert code == 0, text
    mine, theirs = (json.loads((folder / "result.json").read_bytes())["metrics"] for folder in (run, out))
    assert theirs == mine


def test_another_hospital_is_measured_once(run: Path, hospital: Path, predict: Predict) -> None:
    code, text = predict(hospital, "--evaluate", "--name", "b")
    assert code == 0, text
    result = json.loads((run / "external/b/result.json").read_bytes())
    drop = result["external"]["drop"]["auc"]
    own = json.loads((run / "result.json").read_bytes())["metrics"]["auc"]["value"]
    assert drop["internal"] == own
    assert drop["external"] == result["metrics"]["auc"]["value"]
    assert drop["difference"] == pytest.approx(drop["external"] - own)
    assert drop["interval"][0] <= drop["difference"] <= drop["interval"][1]
    assert f"auc: {own:.4f} on the run's own test cases, {drop['external']:.4f} here" in text
    both = [Predictions.load(run / at / "predictions/seed-0.npz") for at in ("", "external/b")]
    drops = [m for m, d in result["external"]["drop"].items() if d["interval"][0] is not None]
    said = outside(min(both, key=lambda p: size_of(p)[0]), drops, "hospitals")
    assert result["external"]["warnings"] == said
    assert [w for w in result["warnings"] if "differences from other patients' cases" in w] == said
    assert result["leak"]["checked"]
    assert not result["first_line"]
    known = [r for r in table(hospital / "splits.csv") if r["split"] in ("train", "val")]
    count = result["near"]["count"]
    assert 0.9 * len(known) <= count <= len(known), "the same films, brighter: said, not refused"
    assert f"NEAR-EQUAL: {count} test cases have a film that looks like one in training or validation" in text
    shift = json.loads((run / "external/b/shift.json").read_bytes())
    mean = shift["contents"]["image"]["mean"]
    assert mean["here"][2] - mean["run"][2] > 10, "the brighter films are seen"
    assert 0 <= shift["features"]["auc"] <= 1
    assert 0 <= shift["features"]["robustness_index"] <= 1
    assert Image.open(run / "external/b/shift.png").size[0] > 300
    before = {p: p.stat().st_mtime_ns for p in (run / "external/b").rglob("*")}
    code, text = predict(hospital, "--evaluate", "--name", "b")
    assert code == 0
    assert "looked at already" in text
    assert {p: p.stat().st_mtime_ns for p in (run / "external/b").rglob("*")} == before
    code, text = predict(hospital, "data.split=test", "--evaluate", "--name", "b")
    assert code == 2
    assert "holds another look (another split): give another --out, or remove it" in text


def test_cases_without_labels_get_a_line_each(run: Path, predict: Predict, tmp_path: Path) -> None:
    def bare(i: int, split: str, given: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in given.items() if k != "subtype"}

    data = elsewhere(tmp_path / "new", labels=bare)
    code, text = predict(data, "--out", str(tmp_path / "said"))
    assert code == 0, text
    lines = table(tmp_path / "said" / "predictions.csv")
    seeds = [Predictions.load(tmp_path / f"said/predictions/seed-{s}.npz") for s in (0, 1)]
    assert [line["sample"] for line in lines] == seeds[0].keys_N.tolist()
    assert len(lines) == len(table(data / "splits.csv"))
    mean_N = (seeds[0].score + seeds[1].score) / 2
    np.testing.assert_allclose([float(line["P(beta)"]) for line in lines], mean_N, rtol=1e-8)
    assert [line["answer"] for line in lines] == np.where(mean_N > 0.5, "beta", "alpha").tolist()
    assert np.isnan(seeds[0].target).all()
    assert not (tmp_path / "said" / "result.json").exists()
    code, text = predict(data, "--evaluate", "--out", str(tmp_path / "no"))
    assert code == 2
    assert "no answer in subtype; say which label holds the answers (label=NAME), or leave --evaluate out" in text
    code, text = predict(data, "--evaluate", "--out", str(tmp_path / "no"), "label=nothing")
    assert code == 2
    assert "has no label 'nothing' to be evaluated by" in text
    assert not (tmp_path / "no").exists()
    assert not list(tmp_path.glob(".*"))


def test_patients_and_films_of_training_are_refused_with_counts(
    run: Path, cohort: Path, predict: Predict, tmp_path: Path
) -> None:
    code, text = predict(cohort, "--evaluate", "--out", str(tmp_path / "no"))
    assert code == 2
    assert f"were in the training or validation of {run}" in text
    assert "were in the pre-training of" in text
    renamed = planted(tmp_path / "renamed", rename=lambda name: f"new-{name}")
    code, text = predict(renamed, "--evaluate", "--out", str(tmp_path / "no"))
    assert code == 2
    known = {r["sample"] for r in table(cohort / "splits.csv") if r["split"] in ("train", "val")}
    twins = sum(r["sample"] in known for r in table(renamed / "splits.csv"))
    n = len(table(renamed / "splits.csv"))
    assert twins > 5
    assert f"{twins} of {n} samples of {renamed} hold an image or a bag of the training or validation of {run}" in text
    assert not (tmp_path / "no").exists()
    code, text = predict(renamed, "--evaluate", "--out", str(tmp_path / "yes"), "leak.accept=true")
    assert code == 0, text
    assert f"LEAK: {twins} test samples" in json.loads((tmp_path / "yes/result.json").read_bytes())["first_line"]
    code, text = predict(renamed, "--out", str(tmp_path / "said"))
    assert code == 0, text
    assert "SEEN: what is said of these is no prediction for new patients" in text


def test_other_words_are_given_a_meaning_or_refused(predict: Predict, tmp_path: Path) -> None:
    def renamed(i: int, split: str, given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "subtype": {"alpha": "A", "beta": "B"}.get(given["subtype"], given["subtype"])}

    data = elsewhere(tmp_path / "words", labels=renamed)
    code, text = predict(data, "--evaluate", "--out", str(tmp_path / "no"))
    assert code == 2
    assert "label 'subtype' is 'A'" in text
    code, text = predict(data, "--evaluate", "--out", str(tmp_path / "no"), "classes=[B, A]")
    assert code == 2
    assert "the head gives alpha, beta" in text
    code, text = predict(data, "--evaluate", "--out", str(tmp_path / "yes"), "classes={beta: [B], alpha: [A]}")
    assert code == 0, text
    plain = elsewhere(tmp_path / "plain")
    code, text = predict(plain, "--evaluate", "--out", str(tmp_path / "same"))
    assert code == 0, text
    one, other = (json.loads((tmp_path / n / "result.json").read_bytes())["metrics"] for n in ("yes", "same"))
    assert one == other


def test_one_class_alone_cannot_be_measured(predict: Predict, tmp_path: Path) -> None:
    data = elsewhere(tmp_path / "one", labels=lambda i, split, given: {**given, "subtype": "beta"})
    code, text = predict(data, "--evaluate", "--out", str(tmp_path / "no"))
    assert code == 2
    assert "has one class only (beta" in text
    assert "or leave --evaluate out" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["protocol.lr=0.1"], "protocol: a trained run is only looked at"),
        (["data.train=test"], "data.train: a trained run is only looked at"),
        (["--name", "a/b"], "is no name of a folder"),
        (["data.split=nowhere"], "nowhere"),
    ],
)
def test_what_a_look_cannot_change_is_refused(words: list[str], says: str, hospital: Path, predict: Predict) -> None:
    code, text = predict(hospital, *words)
    assert code == 2
    assert says in text


def test_two_sets_are_two_looks() -> None:
    with pytest.raises(UserError) as e:
        name_of(None, {"data": {"path": ["a", "b"]}})
    assert (
        "one data set is looked at at a time, these are 2; give the command with data.path=a, then data.path=b"
        in str(e.value)
    )
    assert name_of(None, {"data": {"path": "sets/a/"}}) == "a"


def test_a_folder_that_holds_no_weights_is_refused(
    forks: Forks, run: Path, hospital: Path, pretrained: Callable[[str], Path], tmp_path: Path
) -> None:
    def refused(folder: Path) -> str:
        code, text = forks.command("predict", [str(folder), f"data.path={hospital}", "--out", str(tmp_path / "no")])
        assert code == 2, text
        return text

    assert "is a run of pre-training, which answers no question" in refused(pretrained("mgi"))
    assert "holds no result.json" in refused(tmp_path)
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    weights = next(copy.rglob("finetune.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert "holds other weights" in refused(copy)
    (copy / "trained.json").unlink()
    assert "trained.json is missing" in refused(copy)


def test_what_is_kept_comes_back_with_the_runs_own_command(
    run: Path, finetune: Finetune, pretrained: Callable[[str], Path], tmp_path: Path
) -> None:
    """As messages say; and a result whose weights were removed still stands."""
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    words = (
        "--task",
        "demo_subtype",
        "--method",
        "mgi",
        "--init",
        str(pretrained("mgi")),
        "seeds=0,1",
        "leak.accept=true",
    )
    (copy / "trained.json").write_text("{")
    ended = finetune(copy, *words)
    assert ended.codes == [0], ended.text
    assert (copy / "trained.json").read_bytes() == (run / "trained.json").read_bytes()
    (copy / "trained.json").unlink()
    next(copy.rglob("finetune.safetensors")).unlink()
    ended = finetune(copy, *words)
    assert ended.codes == [0], ended.text
    assert not (copy / "trained.json").exists()


def test_masks_of_new_films_are_pictures(cohort: Path, finetune: Finetune, forks: Forks, tmp_path: Path) -> None:
    """A data set without masks, drawn by a network that was trained on some; the table counts what the pictures show."""
    out = tmp_path / "run"
    ended = finetune(out, "--task", "demo_lesions", "--method", "unet", "--recipe", "demo")
    assert ended.codes == [0], ended.text
    data = planted(
        tmp_path / "new",
        members=lambda i, given: {k: v for k, v in other_scanner(i, given).items() if not k[0].startswith("mask")},
        rename=lambda name: f"elsewhere-{name}",
        patients=6,
    )
    code, text = forks.command("predict", [str(out), f"data.path={data}", "--out", str(tmp_path / "said")])
    assert code == 0, text
    lines = table(tmp_path / "said" / "predictions.csv")
    assert len(lines) == len(table(data / "splits.csv"))
    for line in lines:
        drawn = np.asarray(Image.open(tmp_path / "said" / line["mask"]))
        assert drawn.shape == (96, 96)
        assert set(np.unique(drawn)) <= {0, 255}
        assert int((drawn > 0).sum()) == int(float(line["pixels of mask"]))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"mode": "linear", "tests": {"b": "there"}}, "mode linear keeps no weights to look at other data with"),
        ({"tests": {"../b": "there"}}, "a name has letters, digits, dots and dashes alone"),
    ],
)
def test_other_data_of_a_task_are_checked_by_word(words: dict[str, Any], says: str) -> None:
    base = {"name": "t", "kind": "binary", "label": "x"}
    assert parse_task({**base, "tests": {"b": "there"}}).tests["b"].path == "there"
    with pytest.raises(UserError, match=says):
        parse_task({**base, **words})


def test_a_task_names_other_data_that_are_looked_at_once(
    cohort: Path, hospital: Path, finetune: Finetune, tmp_path: Path
) -> None:
    """Refused before anything is trained where they cannot be measured; afterwards beside the result, which they do not change."""
    out = tmp_path / "run"
    words = ("--task", "demo_subtype", "--method", "abmil")
    ended = finetune(
        out, *words, f"tests.known={cohort}", f"tests.bare={{path: {hospital}, reads: {{label: nothing}}}}"
    )
    assert ended.codes == [2], ended.text
    assert "tests.known: " in ended.text
    assert "tests.bare: " in ended.text
    assert not (out / "seed-0").exists()
    ended = finetune(out, *words, f"tests.north={hospital}")
    assert ended.codes == [0], ended.text
    result = (out / "result.json").read_bytes()
    there = json.loads((out / "external/north/result.json").read_bytes())
    assert there["external"]["name"] == "north"
    assert there["external"]["predictions_sha256"] == json.loads(result)["predictions_sha256"]
    assert "auc" in there["external"]["drop"]
    again = finetune(out, *words, f"tests.north={hospital}", f"tests.half={{path: {hospital}, split: train}}")
    assert again.codes == [0], again.text
    assert "looked at already" in again.outputs[0]
    assert (out / "result.json").read_bytes() == result
    assert json.loads((out / "external/half/result.json").read_bytes())["external"]["split"] == "train"
