"""Zero-shot classification: prompts are checked whole before anything is computed, scores follow from cosines alone, and the result stands
beside those of other modes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from models.registry import joint_names, method_names
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.downstream.planted import planted
from trainer.data import schema_of
from trainer.downstream.init import find_source
from trainer.downstream.joint import zeroshot
from trainer.downstream.joint.prompts import PROMPTS
from trainer.downstream.joint.zeroshot import class_vectors, ensembles, scores, zeroshot_scores
from trainer.downstream.samples import part
from trainer.downstream.setting import Setting, open_task_data, prepare
from trainer.downstream.task.read import TASKS, build_task
from trainer.errors import UserError
from trainer.reporting.result import read_result
from trainer.runtime import Runtime

ALONE = Runtime(0, 1, 0, torch.device("cpu"))
WORDS = {"alpha": ["shallow"], "beta": ["steep"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("planted") / "set")


def setting(data: Path, out: Path, *words: str, task_name: str = "demo_subtype", method: str = "convirt") -> Setting:
    task, _ = build_task(task_name, [f"data.path={data}", "data.workers=1", *words], "zeroshot")
    opened = open_task_data(task)
    return prepare(task, find_source(method, "scratch", "demo", task, schema_of(opened), True), opened, out, 1)


def wrote(folder: Path, **content: Any) -> str:
    (folder / "own.yaml").write_text(yaml.safe_dump(content))
    return f"prompts={folder / 'own.yaml'}"


def refused(data: Path, folder: Path, *words: str, task_name: str = "demo_subtype") -> str:
    with pytest.raises(UserError) as e:
        setting(data, folder / "run", *words, task_name=task_name)
    return "\n".join(e.value.problems)


# ---------------------------------------------------------------------------------------------------------------- prompts


def test_all_that_is_wrong_with_a_file_is_said_at_once(data: Path, tmp_path: Path) -> None:
    said = refused(
        data,
        tmp_path,
        wrote(
            tmp_path,
            template="{}",
            templates=["{} striation", "striation", "{} or {}"],
            classes={"alpha": ["shallow", "", 3, "shallow"], "gamma": ["round"], "delta": None},
        ),
    )
    for line in (
        "unknown key 'template'; did you mean 'templates'?",
        "template 'striation': put {} once",
        "template '{} or {}': put {} once",
        "class 'alpha' has an empty prompt",
        "class 'alpha': '3' is a int, not a text",
        "'gamma' is no class of task demo_subtype (it has: alpha, beta)",
        "'delta' is no class",
        "class 'beta' of task demo_subtype has no prompt",
        "prompt 'shallow striation' stands 2 times (alpha); keep one",
    ):
        assert line in said, line


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        ({"alpha": ["shallow"], "beta": ["shallow"]}, "prompt 'shallow' stands 2 times (alpha, beta); keep one"),
        ({"alpha": ["shallow"], "beta": ["Shallow!"]}, "prompts 'shallow' (alpha) and 'Shallow!' (beta) are one text to convirt"),
        ({"alpha": ["shallow"], "beta": ["steep " * 40]}, "' has 40 tokens, convirt reads 22; shorten it"),
        ({"alpha": ["shallow"], "beta": ["日本"]}, "'beta': no word of prompt '日本' is in the vocabulary of convirt"),
        ({"alpha": ["shallow"], "beta": []}, "class 'beta' has no prompt"),
        (["shallow", "steep"], "'classes' is a list; write classes: {NAME: [words, ...]}"),
    ],
)  # fmt: skip
def test_prompts_that_a_class_cannot_be_told_by(classes: object, line: str, data: Path, tmp_path: Path) -> None:
    assert line in refused(data, tmp_path, wrote(tmp_path, classes=classes))


def test_labels_need_both_sides(data: Path, tmp_path: Path) -> None:
    both = {"positive": ["severe"], "negative": ["mild"]}
    given = wrote(tmp_path, classes=WORDS, labels={"subtype": ["steep"], "event": both})
    said = refused(data, tmp_path, given, task_name="demo_findings")
    assert "'classes': task demo_findings is multilabel; write 'labels' instead" in said
    assert "label 'subtype': write {positive: [words, ...], negative: [words, ...]}" in said
    assert refused(data, tmp_path, task_name="demo_findings").startswith("mode: zeroshot needs words for the classes")


@pytest.mark.parametrize("name", sorted(p.stem for p in PROMPTS.glob("*.yaml")))
def test_the_prompts_that_come_along_fit_the_task_of_their_name(name: str, data: Path, tmp_path: Path) -> None:
    assert (TASKS / f"{name}.yaml").is_file()
    found = setting(data, tmp_path / "run", f"prompts={name}", task_name=name)
    assert found.prompts is not None
    assert not found.prompts.notes, "every word is in the cohort's vocabulary"


# ---------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("method", ["simclr", "mrm_record", "gimp"])
def test_a_system_without_a_joint_space_is_refused_with_those_that_have_one(
    method: str, data: Path, tmp_path: Path
) -> None:
    assert method in set(method_names()) - set(joint_names())
    with pytest.raises(
        UserError, match=rf"{method} has no space of both \(these have one: {', '.join(joint_names())}\)"
    ):
        setting(data, tmp_path / "run", "prompts=demo_subtype", method=method)


@pytest.mark.parametrize(
    ("task_name", "words", "line"),
    [
        ("demo_severity", (), "zeroshot has no regression form"),
        ("demo_lesions", (), "zeroshot has no segmentation form"),
        ("demo_subtype", ("protocol.fraction=0.5",), "mode zeroshot learns from no label; leave them out"),
        ("demo_subtype", ("protocol.shots=2",), "mode zeroshot learns from no label; leave them out"),
        ("demo_subtype", ("pad=true",), "pad: mode zeroshot looks at images as pre-training did"),
        ("demo_subtype", ("encoder.layer_scale=1.0",), "mode zeroshot looks at the encoder as pre-training left it"),
    ],
)
def test_what_has_no_meaning_without_labels(task_name: str, words: tuple[str, ...], line: str) -> None:
    with pytest.raises(UserError, match=line):
        build_task(task_name, list(words), "zeroshot")


def test_what_other_modes_are_told_by_does_not_move(data: Path, tmp_path: Path) -> None:
    """A task's prompts are no part of what decides a fine-tune; of a zero-shot result they are all that they say."""
    task, _ = build_task("demo_subtype", [f"data.path={data}", "prompts=demo_subtype"])
    opened = open_task_data(task)
    tuned = prepare(task, find_source("convirt", "scratch", "demo", task, schema_of(opened), True), opened, tmp_path, 1)
    assert "prompts" not in tuned.about()["task"]
    one, other = (
        setting(data, tmp_path, wrote(tmp_path, templates=t, classes=WORDS)) for t in (["{}"], ["{} texture"])
    )
    assert one.about()["task"]["prompts"] == WORDS
    assert one.about() != other.about()
    assert list(one.splits) == ["test"], "nothing else is looked at"


# ------------------------------------------------------------------------------------------------------------------ scores


def test_scores_of_each_kind() -> None:
    logits = np.array([[0.0, np.log(3.0), np.log(4.0), 0.0]])
    assert scores("binary", logits[:, :2]) == pytest.approx([0.75])
    assert scores("multiclass", logits)[0] == pytest.approx(np.array([1, 3, 4, 1]) / 9)
    assert scores("multilabel", logits)[0] == pytest.approx([0.75, 0.2]), "(negative, positive) of each label"
    assert scores("ordinal", logits)[0] == pytest.approx(np.array([9, 8, 5, 1]) / 9)


def test_an_ensemble_is_the_mean_of_directions() -> None:
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    made = ensembles([np.stack([a]), np.stack([a, b, b])])
    assert made[0] == pytest.approx(a)
    assert made[1] == pytest.approx(np.array([1, 2]) / np.sqrt(5))


@pytest.mark.parametrize("task_name", ["demo_subtype", "demo_findings"])
def test_an_image_at_its_own_words_gets_its_own_class(
    task_name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are put where the prompts of their true answers lie: every score is right."""
    found = setting(data, tmp_path / "run", f"prompts={task_name}", task_name=task_name)
    assert found.prompts is not None
    method, subset = found.source.build(0), part(found.data, found.splits["test"], "test")
    truth_NT = found.targets.value_NT[subset.indices]
    negative_KC, positive_KC = class_vectors(method, found.prompts, ALONE, 4).reshape(-1, 2, 32).transpose(1, 0, 2)
    # By so much nearer to one side of each question than to the other as the answer is.
    image_NC = (2 * truth_NT - 1) @ np.linalg.pinv(positive_KC - negative_KC).T
    found_by = found.prompts.prompts.sides
    assert list(found_by)[:2] == (
        ["alpha", "beta"] if task_name == "demo_subtype" else ["subtype: negative", "subtype: positive"]
    )

    monkeypatch.setattr(zeroshot, "image_vectors", lambda *_: image_NC)
    score, _ = zeroshot_scores(found.task, method, found.data, subset, found.prompts, ALONE)
    assert ((score > 0.5) == (truth_NT.reshape(score.shape) == 1)).all()


# ----------------------------------------------------------------------------------------------------------- the whole way


@pytest.mark.slow
def test_a_run_stands_beside_a_probe(pretrained: Callable[[str], Path], finetune: Finetune, tmp_path: Path) -> None:
    """The same form of result, the leak check of every mode, once for all seeds; other prompts are another result."""
    words = [
        "--task",
        "demo_subtype",
        "--method",
        "convirt",
        "--init",
        str(pretrained("convirt")),
        "--mode",
        "zeroshot",
    ]
    out = tmp_path / "run"
    ended = finetune(out, *words, "prompts=demo_subtype", "seeds=[3,4]")
    assert ended.codes == [0], ended.text
    assert "nothing trained or chosen, tested once on" in ended.text
    content = read_result(out / "result.json").content
    assert (content.mode, content.n.train, content.n.val, content.seeds) == ("zeroshot", 0, 0, (3,))
    stored = json.loads((out / "result.json").read_bytes())
    assert stored["prompts"]["beta"][0] == "steep striation"
    assert stored["leak"]["texts_compared"] > 0
    assert (
        f"{stored['leak']['texts']} of {stored['leak']['texts_compared']} test reports have the words of another"
        in ended.text
    )
    again = finetune(out, *words, "prompts=demo_findings", "seeds=[3,4]")
    assert again.codes == [2], "labels are no classes"
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"classes": WORDS}))
    other = finetune(out, *words, f"prompts={tmp_path / 'own.yaml'}", "seeds=[3,4]")
    assert other.codes == [2], other.text
    leaking = finetune(tmp_path / "leak", *words, "prompts=demo_subtype", "data.test=train")
    assert leaking.codes == [2], leaking.text
    assert "test patients were in the pre-training of" in leaking.text
    assert "in training or validation too" not in leaking.text, "this mode learns from neither"
