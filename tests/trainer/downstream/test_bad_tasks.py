"""What a fine-tune refuses before it trains: each time the file, the row and the remedy are named, and nothing is written."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from launch.finetune import main
from models.registry import method_names, pretrained_names
from tests.trainer.downstream.planted import pixels, planted, png, relabelled

MASK = ("mask", "png")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The command's own handling of signals ends with the test."""
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
    yield
    for s, handler in before.items():
        signal.signal(s, handler)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing planted."""
    return planted(tmp_path_factory.mktemp("small") / "set")


class Refused:
    """refused(*words): what a command says that ends with status 2 and leaves its folder unmade."""

    def __init__(self, out: Path, capsys: pytest.CaptureFixture[str]):
        self.out, self.capsys = out, capsys

    def __call__(self, *words: str, data: Path | None = None, task: str = "demo_subtype", method: str = "mgi") -> str:
        init = [] if "--init" in words else ["--init", "scratch", "--recipe", "demo"]
        given = [f"data.path={data}"] if data else []
        assert main(["--task", task, "--method", method, *init, *given, f"out={self.out}", *words]) == 2
        assert not self.out.exists(), "nothing was written"
        return self.capsys.readouterr().err


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    return Refused(tmp_path / "run", capsys)


def own(path: Path, **content: Any) -> str:
    """A task file of the user's own."""
    path.write_text(yaml.safe_dump(content))
    return str(path)


# ------------------------------------------------------------------------------------------------------ names and keys


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--task", "demo_subtyp"], "no task 'demo_subtyp'; did you mean 'demo_subtype'?"),
        (["--task", "none.yaml"], "--task none.yaml: no such file"),
        (["protocol.epoch=3"], "protocol.epoch: unknown key; did you mean 'epochs'?"),
        (["protocl.epochs=3"], "protocl: unknown key; did you mean 'protocol'?"),
        (["metric=aucc"], "auc"),
        (["metric=dice_patient"], "dice_patient"),
        (["--mode", "knn", "--task", "demo_survival"], "mode: knn has no survival form; use linear"),
        (["--mode", "linear", "--task", "demo_lesions"], "not on pixels; use finetune with protocol.freeze=encoder"),
        (["--mode", "knn", "encoder.layer_scale=1.0"], "encoder: mode knn looks at the encoder as pre-training left it"),
        (["protocol.freeze=encoder", "encoder.relative_positions=true"], "protocol.freeze=encoder would never train them"),
        (["--method", "gimp", "--init", "scratch", "encoder.layer_scale=1.0"], "gimp has no vision transformer"),
        (["--task", "demo_lesions", "output.decoder=setr_pup"], "patches of 6 are no power of two; use upernet"),
        (["output.auxiliary=0.4"], "output.auxiliary: only the upernet and setr_pup decoders"),
        (["protocol.shots=5", "protocol.fraction=0.1"], "give one of them, not both"),
        (["protocol.shots=5", "--task", "demo_severity"], "a regression task has no classes, use protocol.fraction"),
        (["protocol.lr=[1e-3, 1e-3]"], "protocol.lr: [0.001, 0.001]: give at least one, each once"),
        (["controls=shuffled"], "there are no genes to shuffle or to miss; set inputs: multimodal"),
        (["--method", "mgj"], "did you mean"),
        (["label=colour"], "has no label 'colour' (it has: event, grade, months, severity, site, subtype); mend `label`"),
        (["label=colour"], "in task demo_subtype, or say it here: label=NAME"),
        (["--task", "demo_survival", "time=os_months"], "has no label 'os_months'"),
        (["--task", "demo_survival", "time=os_months"], "mend `time` in task demo_survival, or say it here: time=NAME"),
        (["label=severity", "positive=null"], "which task demo_subtype does not know (0, 1)"),
        (["positive=gamma"], "let `positive` be one of the two"),
        (["protocol.shots=500"], "training patients, protocol.shots asks for 500"),
        (["protocol.micro_batch=3", "protocol.batch=8"], "does not divide"),
        (["--task", "demo_survival", "protocol.micro_batch=4", "protocol.batch=8"], "use protocol.micro_batch=8"),
        (["--method", "unet", "--init", "scratch", "--task", "demo_lesions", "protocol.batch=8", "protocol.micro_batch=4"],
         "by batch norms of the network"),
        (["--method", "unet", "--init", "scratch", "--task", "demo_lesions", "protocol.batch=1"], "use protocol.batch=2 or more"),
        (["data.test=val"], "three different splits are needed"),
        (["data.path=nowhere"], "nowhere: no dataset.json"),
        (["--init", "nowhere"], "nowhere is no run of pre-training"),
        (["protocol.freeze=genes", "--method", "mrm_record", "--recipe", "demo"], "has no gene side; use none or encoder"),
        (["inputs=multimodal", "--method", "mrm_record", "--recipe", "demo"], "mrm_record encodes image alone"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_meant(words: list[str], says: str, refused: Refused, small: Path) -> None:
    data = None if any(w.startswith("data.path") for w in words) else small
    assert says in refused(*words, data=data)


# --------------------------------------------------------------------------------------------------------------- labels


def test_a_value_that_the_task_does_not_know(refused: Refused, tmp_path: Path) -> None:
    """A typing error such as the '11' of a published list of viral pneumonias."""
    data = planted(tmp_path / "set", lambda i, split, given: {**given, "subtype": "11" if i == 6 else given["subtype"]})
    task = own(tmp_path / "own.yaml", kind="binary", label="subtype", classes=["alpha", "beta"], positive="beta")
    said = refused(data=data, task=task)
    row = (data / "labels.csv").read_text().splitlines()[7].split(",")
    assert "11" in row
    assert f"{data / 'labels.csv'}: label 'subtype' is '11' in 1 samples (row 8: {row[0]})" in said
    assert "leave_out: ['11']" in said
    words = ["leave_out=['11']", "--dry-run", "--init", "scratch", "--recipe", "demo", f"data.path={data}"]
    assert main(["--task", task, "--method", "mgi", *words, f"out={tmp_path / 'run'}"]) == 0
    assert "1 samples take no part: no answer in subtype" in refused.capsys.readouterr().out


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_of_one_class(split: str, refused: Refused, tmp_path: Path) -> None:
    data = planted(
        tmp_path / "set", lambda i, s, given: {**given, "subtype": "alpha" if s == split else given["subtype"]}
    )
    said = refused(data=data)
    assert f"split '{split}' has one class only (alpha, " in said
    assert "split again (python -m shards split DIR --stratify subtype), or take more labels" in said


def test_two_values_of_a_multilabel_and_events_are_needed(refused: Refused, tmp_path: Path) -> None:
    data = planted(tmp_path / "set", lambda i, s, given: {**given, "event": 0.0})
    assert "split 'train' has one value only for event" in refused(data=data, task="demo_findings")
    assert "split 'test' has no event among" in refused(data=data, task="demo_survival")


@pytest.mark.parametrize(("value", "what"), [("nan", "NaN"), ("-inf", "infinite")])
def test_numbers_that_are_none(value: str, what: str, refused: Refused, tmp_path: Path) -> None:
    def broken(row: int, line: str) -> str:
        cells = line.split(",")
        return ",".join([*cells[:4], value, *cells[5:]]) if row in (5, 11) else line

    data = relabelled(planted(tmp_path / "set"), broken)
    said = refused(data=data, task="demo_severity")
    keys = [line.split(",")[0] for line in (data / "labels.csv").read_text().splitlines()]
    assert (
        f"{data / 'labels.csv'}: label 'severity' is {what} in 2 samples (row 5: {keys[4]}, {keys[10]}); mend it"
        in said
    )


def test_times_before_the_start(refused: Refused, tmp_path: Path) -> None:
    data = planted(tmp_path / "set", lambda i, s, given: {**given, "months": -1.0 if i == 2 else given["months"]})
    assert "label 'months' is negative in 1 samples (row 4: " in refused(data=data, task="demo_survival")


def test_a_target_that_does_not_vary(refused: Refused, tmp_path: Path) -> None:
    data = planted(tmp_path / "set", lambda i, s, given: {**given, "severity": 0.5})
    assert "severity does not vary over the" in refused(data=data, task="demo_severity")


def test_grades_outside_their_range(refused: Refused, small: Path) -> None:
    said = refused("grades=2", data=small, task="demo_grade")
    assert "label 'grade' is '2' in" in said


# ---------------------------------------------------------------------------------------------------- modalities and masks


@pytest.fixture(scope="module")
def genes_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gone = {("image", "png"), ("patches", "npy"), ("coords", "npy"), MASK}
    folder = tmp_path_factory.mktemp("genes") / "set"
    return planted(folder, members=lambda i, given: {k: v for k, v in given.items() if k not in gone})


@pytest.mark.parametrize("method", method_names())
def test_data_without_the_image_side(method: str, refused: Refused, genes_alone: Path) -> None:
    said = refused(data=genes_alone, method=method)
    assert "has no field 'image'" in said or "has no field 'patches'" in said
    assert str(genes_alone) in said


def test_masks_of_another_size(refused: Refused, tmp_path: Path) -> None:
    def smaller(i: int, given: dict[Any, bytes]) -> dict[Any, bytes]:
        return {**given, MASK: png(pixels(given[MASK])[:-3])} if i in (1, 4) else given

    data = planted(tmp_path / "set", members=smaller)
    said = refused(data=data, task="demo_lesions")
    assert "mask is 93 x 96 pixels, its image 96 x 96" in said
    assert f"{data / 'splits.csv'} row 3 (" in said
    assert f"{data / 'splits.csv'} row 6 (" in said
    assert "mend these masks, or leave their samples out" in said


def test_masks_with_other_values(refused: Refused, tmp_path: Path) -> None:
    def several(i: int, given: dict[Any, bytes]) -> dict[Any, bytes]:
        drawn = np.where(pixels(given[MASK]) > 0, 255, 0)
        if i == 5:
            drawn[0, :2] = (7, 128)
        return {**given, MASK: png(drawn)}

    data = planted(tmp_path / "set", members=several)
    said = refused(data=data, task="demo_lesions")
    assert f"{data / 'splits.csv'} row 7 (" in said
    assert "mask holds the value 7, as do 1 masks" in said
    assert "a mask has one value above 0, these have 3" in said
    assert "for example mask_values=[255]" in said
    words = ["mask_values=[255]", "--dry-run", "--init", "scratch", "--recipe", "demo", f"data.path={data}"]
    assert main(["--task", "demo_lesions", "--method", "mgi", *words, f"out={tmp_path / 'run'}"]) == 0


def test_splits_without_anything_drawn(refused: Refused, small: Path) -> None:
    said = refused("mask_values=99", data=small, task="demo_lesions")
    assert said.count("holds any object (values [99])") == 3


# -------------------------------------------------------------------------------------------------------------- encoders


def run_folder(path: Path, **card: Any) -> Path:
    path.mkdir()
    for name, content in card.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def test_runs_that_are_not_finished(refused: Refused, small: Path, tmp_path: Path) -> None:
    run = run_folder(tmp_path / "half", config={"config": {}})
    said = refused("--init", str(run), data=small)
    assert f"{run} is no finished run (weights.safetensors, method.json, schema.npz missing)" in said
    assert "give its own command again to finish it" in said


def test_files_that_hold_no_weights_of_the_encoder(refused: Refused, small: Path, tmp_path: Path) -> None:
    save_file({"blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, tmp_path / "few.safetensors")
    said = refused("--init", str(tmp_path / "few.safetensors"), "--recipe", "demo", data=small)
    assert (
        f"{tmp_path / 'few.safetensors'} is of another network; give a file of this one, or name in the options" in said
    )
    assert "of another shape: blocks.0.attn.qkv.weight is (3, 3)" in said
    assert "has no image encoder" in refused("--init", str(tmp_path / "few.safetensors"), data=small, method="gimp")
    (tmp_path / "few.txt").write_text("x")
    assert "not a file of weights" in refused("--init", str(tmp_path / "few.txt"), data=small)
    words = ["--init", str(tmp_path / "few.safetensors"), "--recipe", "demo"]
    assert "give one of them, not both" in refused(*words, "--mode", "scratch", data=small)


def test_sizes_for_a_head_that_is_the_methods_own(refused: Refused, demo_cohort: Path) -> None:
    said = refused("output.hidden=16", "output.dropout=0.1", data=demo_cohort, method="gimp")
    assert (
        "output.dropout, output.hidden: gimp has a head of its own, which takes none of them; give output.head=linear, mlp or bag"
        in said
    )


# ------------------------------------------------------------------------------------ methods that learn from labels alone

LABELS_ALONE = sorted(set(method_names()) - set(pretrained_names()))


@pytest.mark.parametrize("words", [("--mode", "linear"), ("--mode", "knn"), ("protocol.freeze=encoder",)])
@pytest.mark.parametrize("method", LABELS_ALONE)
def test_a_random_encoder_is_not_probed(method: str, words: tuple[str, ...], refused: Refused, small: Path) -> None:
    said = refused(*words, data=small, method=method)
    assert (
        f"{method} learns from a task's labels alone, its frozen encoder would be a random one; use mode=finetune"
        in said
    )


@pytest.mark.parametrize("method", LABELS_ALONE)
def test_there_is_nothing_to_pretrain(
    method: str, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from launch.pretrain import main as pretrain

    out = tmp_path / "run"
    assert pretrain(["--method", method, "--recipe", "demo", f"data.path={small}", f"out={out}", "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert f"launch/finetune.py --task TASK --method {method} --init scratch" in said
    assert not out.exists()
    from launch.learn import main as learn

    assert learn(["--methods", method]) == 2
    assert f"--methods {method}: it learns from a task's labels alone" in capsys.readouterr().err


def test_a_method_that_is_pretrained_says_what_it_starts_from(small: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["--task", "demo_subtype", f"data.path={small}", f"out={tmp_path / 'run'}", "--dry-run"]
    assert main([*words, "--method", "mgi", "--recipe", "demo"]) == 2
    assert "--init: mgi is pre-trained; give the folder of a finished run" in capsys.readouterr().err
    for method in LABELS_ALONE:
        assert main([*words, "--method", method, "--recipe", "demo"]) == 0
