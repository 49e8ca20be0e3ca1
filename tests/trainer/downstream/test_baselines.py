"""Baselines: what they make of a sample, what they refuse, which of them a sweep adds, and that they are measured as systems are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from launch.sweep import beside_all, main, parser
from models.contract import Field, Label, MethodError, Schema
from models.registry import baseline_names, get_method, method_names
from tests.trainer.downstream.conftest import Finetune
from trainer.downstream.task.baselines import check_baseline
from trainer.downstream.task.read import build_task
from trainer.errors import UserError
from trainer.sweep.baselines import Baselines, baselines_of
from trainer.sweep.file import read_sweep
from trainer.sweep.runner import Status

SCHEMA = Schema(
    {
        "patches": Field("patches", "array", "float16", (None, 4), None, None, None, {}),
        "image": Field("image", "image", "uint8", None, None, None, None, {}),
        "blood": Field("blood", "array", "float32", (2,), None, None, None, {}),
    },
    {"age": Label("age", "number"), "sex": Label("sex", "class", ("f", "m"))},
    source="a set",
)


class Given:
    """A record that holds what it was given."""

    def __init__(self, labels: dict[str, Any] | None = None, **fields: np.ndarray):
        self.labels, self.fields = labels or {}, fields

    def has(self, name: str) -> bool:
        return name in self.fields

    def shape(self, name: str) -> tuple[int, ...]:
        return self.fields[name].shape

    def read(self, name: str) -> np.ndarray:
        return self.fields[name]


def built(name: str, **options: Any) -> Any:
    cls = get_method(name)
    return cls(cls.Options.parse(options), SCHEMA)


def vector(method: Any, record: Given) -> list[float]:
    batch = method.collate([method.sample(record, np.random.default_rng(0))])
    return method.encode(batch)["pooled_BD"][0].tolist()


def test_they_are_found_and_are_no_methods() -> None:
    assert baseline_names() == ["bag_of_words", "clinical", "mean_features"]
    assert not {*baseline_names()} & {*method_names()}


def test_a_slide_is_the_mean_of_its_patches() -> None:
    patches_NF = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float16)
    found = vector(built("mean_features"), Given(patches=patches_NF))
    assert found == pytest.approx(patches_NF.astype(np.float64).mean(0).tolist(), abs=1e-6)
    assert vector(built("mean_features"), Given()) == [0.0] * 4


def test_an_image_is_means_of_its_areas() -> None:
    image_HW1 = np.kron(np.arange(256, dtype=np.uint8).reshape(16, 16), np.ones((3, 2), np.uint8))[..., None]
    found = np.array(vector(built("mean_features", reads="image"), Given(image=image_HW1))).reshape(256, 3)
    assert found == pytest.approx(np.repeat(np.arange(256)[:, None] / 255, 3, 1))


def test_columns_are_read_by_name() -> None:
    method = built("clinical", columns=["sex", "age", "blood"])
    known = Given({"age": 40.0, "sex": "m"}, patches=np.ones((1, 4)), blood=np.array([1.0, np.nan]))
    assert vector(method, known) == [0, 1, 0, 40, 0, 1, 0, 0, 1]
    assert vector(method, Given({"age": None, "sex": None})) == [0, 0, 1, 0, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("clinical", {}, "method.columns=[age, sex]"), ("clinical", {"columns": ["agee"]}, "labels: age, sex"),
        ("clinical", {"columns": ["patches"]}, "'patches' is no label and no array of one axis"),
    ],
)  # fmt: skip
def test_what_is_no_column_is_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(MethodError) as e:
        built(name, **options)
    assert said in str(e.value)


def test_the_answer_is_no_column_and_there_is_nothing_to_train() -> None:
    task, _ = build_task("demo_subtype", [], "finetune")
    with pytest.raises(UserError) as e:
        check_baseline(task, "clinical", {"columns": ["severity", "subtype"]})
    assert "subtype: the answer of demo_subtype itself" in str(e.value)
    assert "--mode linear" in str(e.value)
    check_baseline(task, "abmil", {"columns": ["subtype"]})


def test_one_network_beside_rows_from_a_run_and_rows_from_nothing(tmp_path: Path) -> None:
    """A row that starts from a run of pre-training names no recipe; the network beside it is no other one for that."""
    file = tmp_path / "s.yaml"
    rows = {
        "nothing": {"words": {"--method": "mae", "--init": "scratch"}},
        "MAE": {"words": {"--method": "mae"}, "start": "mae"},
    }
    content = {
        "command": "finetune",
        "words": ["--task", "demo_subtype"],
        "pretrain": {"mae": ["--method", "mae"]},
        "rows": rows,
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    for recipe in (None, "demo"):
        sweep = read_sweep(file, tmp_path / "out", recipe)
        points = baselines_of(sweep, Baselines(), {"mae": "image"}).points
        assert [p.name for p in points] == ["demo-subtype-mean-features", "demo-subtype-unet"]
        assert ("--recipe" in points[1].words) is (recipe is not None)


def words_of_baselines(tmp_path: Path, **content: Any) -> list[str]:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({"command": "finetune", **content}))
    sweep = read_sweep(file, tmp_path / "out")
    assert sweep.baselines is not None
    found = baselines_of(sweep, sweep.baselines, {"clam": "patches", "mae": "image"})
    assert found.out == tmp_path / "out" / "baselines"
    assert len({p.name for p in found.points}) == len(found.points)
    return [" ".join(p.words) for p in found.points]


def test_a_task_has_each_baseline_once_for_every_amount_of_labels(tmp_path: Path) -> None:
    shared = [
        "--task",
        "demo_subtype",
        "seeds=[0]",
        "data.path=d",
        "protocol.lr=1e-3",
        "protocol.layer_decay=0.7",
        "output.head=mlp",
    ]
    grid = {"--method": ["clam", "clam", "mae"][1:], "protocol.fraction": [0.1, 1.0]}
    found = words_of_baselines(tmp_path, words=shared, grid=grid, baselines={"clinical": ["age", "sex"]})
    mean = "--method mean_features --init scratch --mode linear"
    of = "--task demo_subtype protocol.seeds=[0] data.path=d"
    for side in ("patches", "image"):
        for share in ("0.1", "1.0"):
            assert f"{mean} method.reads={side} {of} protocol.fraction={share}" in found
    assert sum("method.columns=[age, sex]" in w for w in found) == 4
    network = [w for w in found if "attention_baseline" in w]
    assert network == [
        f"--method attention_baseline --init scratch {of} protocol.lr=1e-3 protocol.fraction={s}"
        for s in ("0.1", "1.0")
    ]
    images = [w for w in found if "--method unet" in w]
    assert images == [
        f"--method unet --init scratch method.features=8 {of} protocol.lr=1e-3 protocol.fraction={s}"
        for s in ("0.1", "1.0")
    ]
    assert len(found) == 12


def test_masks_have_a_network_and_no_probe_and_none_has_itself_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*words: str) -> list[str]:
        content = {"command": "finetune", "words": [*words], "grid": {"seeds": [[0]]}}
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
        assert main([str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
        return [w for w in capsys.readouterr().out.splitlines() if "--method" in w]

    point, network = shown(
        "--task", "demo_lesions", "--method", "mgi", "--init", "scratch", "--recipe", "demo", "output.width=64"
    )
    assert "--method mgi" in point
    assert "--method unet --init scratch --recipe demo --task demo_lesions 'protocol.seeds=[0]'" in network
    assert "output.width" not in network
    assert len(shown("--task", "demo_lesions", "--method", "unet")) == 1
    assert [("mean_features" in w, "unet" in w) for w in shown("--task", "demo_subtype", "--method", "unet")[1:]] == [
        (True, False)
    ]


def test_points_that_compare_images_with_words_have_brightness_and_words_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*words: str) -> list[str]:
        content = {
            "command": "finetune",
            "words": ["--method", "convirt", "--init", "scratch", *words],
            "grid": {"seeds": [[0]]},
        }
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
        assert main([str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
        return [w for w in capsys.readouterr().out.splitlines() if "--method" in w][1:]

    brightness = "--method bag_of_words --init scratch --mode zeroshot --task"
    (found,) = shown("--task", "report_retrieval", "protocol.eval_batch=8")
    assert f"{brightness} report_retrieval 'protocol.seeds=[0]'" in found
    assert "protocol.eval_batch" not in found
    first, second = shown("--task", "demo_grade", "--mode", "zeroshot", "prompts=demo_grade")
    assert f"{brightness} demo_grade prompts=demo_grade" in first
    assert "--method mean_features --init scratch --mode linear method.reads=image --task demo_grade" in second
    assert "prompts" not in second


def test_they_can_be_switched_off_and_pretraining_has_none(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("command: finetune\ngrid: {seeds: [[0]]}\nbaselines: false\n")
    assert read_sweep(tmp_path / "s.yaml").baselines is None
    (tmp_path / "s.yaml").write_text("command: pretrain\ngrid: {seed: [0]}\n")
    assert read_sweep(tmp_path / "s.yaml").baselines is None
    (tmp_path / "s.yaml").write_text("command: finetune\ngrid: {seeds: [[0]]}\nbaselines: {clincal: [age]}\n")
    with pytest.raises(UserError, match="clincal"):
        read_sweep(tmp_path / "s.yaml")


def test_a_dry_run_shows_them_and_that_of_a_point_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {
        "command": "finetune",
        "words": ["--task", "demo_subtype", "--method", "clam"],
        "grid": {"seeds": [[0], [1]]},
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    line = [str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(line) == 0
    assert capsys.readouterr().out.count("--method mean_features") == 2
    assert main([*line, "--point", "0"]) == 0
    assert "mean_features" not in capsys.readouterr().out


def test_the_point_that_ends_last_makes_them(tmp_path: Path) -> None:
    """Each job of an array looks whether all others have ended: done or failed, not stopped, and not what a kill left running."""
    content = {
        "command": "finetune",
        "words": ["--task", "demo_subtype", "--method", "clam"],
        "grid": {"seeds": [[0], [1], [2]]},
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    args = parser().parse_args([str(tmp_path / "s.yaml"), "--point", "0"])
    sweep = read_sweep(tmp_path / "s.yaml", tmp_path / "out")

    def beside(*states: Any) -> list[str]:
        for point, state in zip(sweep.points, states, strict=True):
            Status(point.index, list(point.words), state).write(sweep.folder(point))
        return [p.name for p in beside_all(sweep, args, sweep.points[:1]).points]

    for other in ("waiting", "running", "stopped"):
        assert beside("done", "failed", other) == []
    assert len(beside("done", "failed", "done")) == 6, "two of each seed"
    args.dry_run = True
    assert beside("done", "failed", "done") == []


def test_rows_of_a_table_have_their_own_in_the_folders_of_the_whole(tmp_path: Path) -> None:
    rows = {
        "A": {"words": {"--method": "clam", "protocol.fraction": 0.5}},
        "B": {"words": {"--method": "clam", "protocol.fraction": 1.0}},
    }
    (tmp_path / "s.yaml").write_text(
        yaml.safe_dump({"command": "finetune", "words": ["--task", "demo_subtype"], "rows": rows}, sort_keys=False)
    )
    sweep = read_sweep(tmp_path / "s.yaml", tmp_path / "out")

    def names(*words: str, points: slice = slice(None)) -> list[str]:
        args = parser().parse_args([str(tmp_path / "s.yaml"), *words])
        return [p.name for p in beside_all(sweep, args, sweep.points[points]).points]

    whole = names()
    assert whole == [f"demo-subtype-{n}{i}" for i in ("", "-2") for n in ("mean-features", "attention-baseline")]
    assert names("--row", "A", points=slice(1)) == whole[:2]
    assert names("--row", "B", points=slice(1, 2)) == whole[2:]


def test_nothing_of_a_system_reaches_a_baseline(tmp_path: Path) -> None:
    sweep = tmp_path / "s.yaml"
    words = [
        "--task",
        "demo_subtype",
        "--method",
        "clam",
        "--init",
        "runs/x",
        "--random",
        "method.branches=multi",
        "encoder.last_norm=false",
    ]
    sweep.write_text(yaml.safe_dump({"command": "finetune", "words": words, "grid": {"seeds": [[0]]}}))
    found = baselines_of(read_sweep(sweep), Baselines(), {"clam": "patches"})
    for point in found.points:
        assert not {"runs/x", "--random", "method.branches=multi", "encoder.last_norm=false"} & {*point.words}


@pytest.mark.slow
def test_a_baseline_is_measured_as_a_system_is(cohort: Path, finetune: Finetune, tmp_path: Path) -> None:
    """Severity is all that the column says of the grade, and patches say less: both in one table's form, with leak check and interval."""
    words = ("--task", "demo_grade", "--init", "scratch", "--mode", "linear")
    for name, more in (("mean_features", ()), ("clinical", ("method.columns=[severity]",))):
        ended = finetune(tmp_path / name, *words, "--method", name, *more)
        assert ended.codes == [0], ended.text
        result = json.loads((tmp_path / name / "result.json").read_bytes())
        assert result["title"].endswith("(baseline)")
        assert result["leak"]["checked"]
        primary = result["metrics"][result["primary"]]
        assert primary["interval"] is not None
        if name == "clinical":
            assert primary["value"] > 0.9
    assert (tmp_path / ".features").is_dir(), "one cache for all of them"
