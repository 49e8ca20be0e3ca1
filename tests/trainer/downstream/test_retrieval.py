"""Retrieval: ranks are those of a plain search, equal reports are one, and what cannot be asked is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shards.read.dataset import Dataset
from tests.trainer.downstream.planted import planted
from tests.trainer.downstream.test_zeroshot import ALONE, setting
from trainer.downstream.joint import retrieval
from trainer.downstream.joint.embed import text_vectors
from trainer.downstream.joint.retrieval import about_candidates, ranks, retrieval_predictions
from trainer.downstream.samples import part
from trainer.downstream.setting import Setting
from trainer.downstream.task.read import build_task
from trainer.downstream.task.texts import shared_texts
from trainer.errors import UserError

REPORT = ("report", "txt")
TASK = "report_retrieval"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("reports") / "set", members=told, patients=30)


def told(i: int, given: dict[Any, bytes]) -> dict[Any, bytes]:
    """By turns two reports that differ in capitals and spaces alone, none, signs alone, and the sample's own."""
    if i % 5 == 4:
        return {k: v for k, v in given.items() if k != REPORT}
    texts = ("Two small lesions on the left.", "two  small lesions on the LEFT.\n", "?!")
    return {**given, REPORT: texts[i % 5].encode() if i % 5 < 3 else given[REPORT]}


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = rng.normal(size=shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def searched(image_NC: np.ndarray, report_MC: np.ndarray, of_N: np.ndarray) -> np.ndarray:
    """By sorting lists of candidates; no ties."""
    out = []
    for n, own in enumerate(of_N):
        reports = sorted(range(len(report_MC)), key=lambda m: -float(image_NC[n] @ report_MC[m]))
        images = sorted(range(len(image_NC)), key=lambda i, own=own: -float(report_MC[own] @ image_NC[i]))
        first = next(k for k, i in enumerate(images) if of_N[i] == own)
        out.append((reports.index(own) + 1, first + 1))
    return np.array(out, float)


@pytest.mark.parametrize("block", [3, 512])
def test_ranks_are_those_of_a_search(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", block)
    rng = np.random.default_rng(3)
    image_NC, report_MC, of_N = unit(rng, 40, 6), unit(rng, 12, 6), rng.integers(0, 12, 40)
    of_N[:12] = np.arange(12)
    np.testing.assert_array_equal(ranks(image_NC, report_MC, of_N), searched(image_NC, report_MC, of_N))
    # At their own words everything is found at once, however many share them.
    assert (ranks(report_MC[of_N], report_MC, of_N) == 1).all()


def test_a_space_that_collapsed_stands_in_the_middle() -> None:
    """One vector for all is no hit: ties have their mean rank."""
    found = ranks(np.ones((9, 1)), np.ones((9, 1)), np.arange(9))
    assert (found == 5).all()


def test_chance() -> None:
    texts = retrieval.Reports((None,) * 4, dict(enumerate([0, 0, 1, 2, 3])))  # type: ignore[arg-type]
    found = about_candidates(texts, np.arange(5))
    assert (found["images"], found["reports"]) == (5, 4)
    assert found["chance"]["image_to_report_r1"] == 0.25
    assert found["chance"]["report_to_image_r1"] == pytest.approx((2 * 0.4 + 3 * 0.2) / 5)
    assert found["chance"]["report_to_image_r5"] == found["chance"]["image_to_report_r10"] == 1


def test_equal_reports_are_one_and_silent_ones_take_no_part(data: Path, tmp_path: Path) -> None:
    found: Setting = setting(data, tmp_path / "run", task_name=TASK)
    reports, at = found.reports, found.splits["test"]
    assert reports is not None
    words = [" ".join(found.data[int(i)].read("report").lower().split()) for i in at]
    assert "?!" not in words
    assert len(reports.texts) == len(set(words)) < len(words)
    same = {(words[a], int(reports.of[int(at[a])])) for a in range(len(at))}
    assert len(same) == len(set(words)), "one number for each wording"
    whole = len(found.data.subset("test"))
    assert found.targets.left_out == {"no word that convirt reads in report": whole - len(at)}
    assert whole > len(at)


def test_images_at_their_reports_are_all_found(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = setting(data, tmp_path / "run", task_name=TASK)
    assert found.reports is not None
    method, subset = found.source.build(0), part(found.data, found.splits["test"], "test")
    report_MC = text_vectors(method, found.reports.texts, ALONE, 4)
    of_N = found.reports.at(subset.indices)
    monkeypatch.setattr(retrieval, "image_vectors", lambda *_: report_MC[of_N])
    told_N, _ = retrieval_predictions(found.task, method, found.data, subset, found.reports, ALONE)
    assert (told_N.score == 1).all()
    assert told_N.target.tolist() == [int((of_N == o).sum()) for o in of_N]


def run_on(data: Path, fingerprint: str, *fields: str) -> Any:
    """What the check asks of a run of pre-training that learned from a data set's training split."""
    schema, config = SimpleNamespace(fields=dict.fromkeys(fields)), SimpleNamespace(data=SimpleNamespace(split="train"))
    return SimpleNamespace(path=Path("run"), schema=schema, config=config, sources=((str(data), fingerprint),))


def test_words_of_another_patients_report_in_pre_training_are_counted(data: Path, tmp_path: Path) -> None:
    with Dataset.open(data) as opened:
        train, test = (opened.subset(s).indices for s in ("train", "test"))
        words = {
            int(i): opened[int(i)].read("report").lower().split()
            for i in (*train, *test)
            if opened[int(i)].has("report")
        }
        seen = [w for i, w in words.items() if i in train]
        expected = sorted(opened.keys_of(np.array([i for i in test.tolist() if words.get(i) in seen])))
        found = shared_texts(run_on(data, opened.fingerprint, "report"), opened, test)
        assert 0 < len(expected) < len(test)
        assert (list(found.keys), found.compared, found.unseen) == (expected, sum(int(i) in words for i in test), "")
        assert (
            f"{len(expected)} of {found.compared} test reports have the words of another patient's report" in found.note
        )
        gone = shared_texts(run_on(data, "another", "report"), opened, test)
        assert (gone.keys, gone.note[:38]) == ((), f"equal reports NOT CHECKED: {data}"[:38])
        away = shared_texts(run_on(tmp_path / "away", opened.fingerprint, "report"), opened, test)
        assert "cannot be read as pre-training read it" in away.note
        assert shared_texts(run_on(data, opened.fingerprint, "image"), opened, test).note == "", (
            "it learned from no report"
        )


def test_a_patients_own_report_is_no_other_patients(tmp_path: Path) -> None:
    """Of whom is in pre-training by name the check of names has its say."""
    own = planted(tmp_path / "own", members=lambda i, given: {**given, REPORT: f"Lesion {i}.".encode()}, patients=20)
    with Dataset.open(own) as opened:
        found = shared_texts(run_on(own, opened.fingerprint, "report"), opened, opened.subset("train").indices)
        assert found.compared == len(opened.subset("train"))
        assert found.keys == ()


@pytest.mark.parametrize(
    ("words", "mode", "line"),
    [
        ([], "finetune", "mode: finetune has no retrieval form, it is measured without training; use --mode zeroshot"),
        ([], "linear", "mode: linear has no retrieval form"),
        (["prompts=demo_subtype"], None, "prompts: a retrieval task has no classes"),
        (["protocol.fraction=0.1"], None, "mode zeroshot learns from no label"),
    ],
)
def test_what_has_no_meaning(words: list[str], mode: str | None, line: str) -> None:
    with pytest.raises(UserError, match=line):
        build_task(TASK, words, mode)


def test_nothing_to_choose_among(tmp_path: Path) -> None:
    one = planted(tmp_path / "one", members=lambda i, given: {**given, REPORT: b"A single lesion.\n"}, patients=10)
    with pytest.raises(UserError, match=r"has 1 different reports that convirt can read .* nothing to choose among"):
        setting(one, tmp_path / "run", task_name=TASK)
