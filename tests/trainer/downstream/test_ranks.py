"""Fine-tuning on several ranks, killed, stopped and gone on with: the same numbers; every test case once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from models.registry import get_method, method_names, pretrained_names
from tests.diagonal import cells
from tests.ports import free_port
from tests.trainer.downstream.conftest import Finetune, tuning
from tests.trainer.launching import ROOT, rows, series
from trainer.downstream.metrics.predictions import Predictions

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(600)]
Pretrained = Callable[[str], Path]
# Several tasks' kinds and encoders; bags of other lengths, masks, an ordinal head, a risk set.
TASKS = [
    ("gimp", "demo_grade", ["inputs=multimodal"]),
    ("mgi", "demo_lesions", ["inputs=multimodal", "output.decoder=two_way", "output.width=16", "controls=shuffled"]),
    ("mrm_relation", "demo_survival", []),
]
# Weights of the encoder that the run it starts from has not.
PARTS = ["encoder.relative_positions=true", "encoder.layer_scale=1.0"]


def final(out: Path) -> dict[str, Any]:
    """A result without what tells the time."""
    found = json.loads((out / "result.json").read_bytes())
    return {k: v for k, v in found.items() if k != "wall_s"}


@pytest.mark.parametrize(("method", "task", "more"), TASKS, ids=[t for _, t, _ in TASKS])
def test_one_two_and_four_ranks_measure_the_same(
    method: str, task: str, more: list[str], pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    """The same weights, tested anew: all metrics equal bit for bit, since a case meets the same neighbours in its batch."""
    words = ["--task", task, "--method", method, "--init", str(pretrained(method)), *more, "protocol.eval_batch=5"]
    ended = finetune(tmp_path / "1", *words)
    assert ended.codes == [0], ended.text
    one = final(tmp_path / "1")
    cases = Predictions.load(tmp_path / "1" / one["predictions"][0])
    assert len(cases) == len(set(cases.keys_N)) == one["n"]["test"]
    assert len(cases) % 5, "the last round is not full, so that padding is put to the test"
    for world in (2, 4):
        out = Path(shutil.copytree(tmp_path / "1", tmp_path / str(world)))
        (out / "result.json").unlink()
        for path in out.rglob("predictions"):
            shutil.rmtree(path)
        again = finetune(out, *words, world=world)
        assert again.codes == [0] * world, again.text
        assert "steps of" not in again.text, "nothing is trained again"
        assert final(out) == one
        for path in sorted(p.relative_to(out) for p in out.rglob("seed-*.npz")):
            mine, theirs = Predictions.load(tmp_path / "1" / path), Predictions.load(out / path)
            np.testing.assert_array_equal(theirs.keys_N, mine.keys_N)
            np.testing.assert_array_equal(theirs.score, mine.score)
        kept = [n for n in (*one["examples"], "features.npz") if (tmp_path / "1" / n).exists()]
        assert kept or task == "demo_survival", "neither masks nor classes: nothing to look at"
        for name in kept:
            with np.load(tmp_path / "1" / name) as a, np.load(out / name) as b:
                assert all((a[n] == b[n]).all() for n in a.files), name


@pytest.mark.parametrize(("task", "method"), [("demo_lesions", "unet"), ("demo_grade", "abmil")])
def test_two_ranks_predict_as_one_does(
    task: str, method: str, finetune: Finetune, forks: Any, cohort: Path, tmp_path: Path
) -> None:
    """New cases, bit for bit: table, masks, features' shift; and a result on them."""
    ended = finetune(tmp_path / "run", "--task", task, "--method", method, "--recipe", "demo", "protocol.eval_batch=5")
    assert ended.codes == [0], ended.text
    words = [str(tmp_path / "run"), f"data.path={cohort}", "data.split=test"]
    for world in (1, 2):
        more = [*words, "--evaluate", "--out", str(tmp_path / f"{world}-measured")]
        said = forks.launch(world, [*words, "--out", str(tmp_path / f"{world}-said")], program="predict", more=[more])
        assert said.codes == [0] * world, said.text
    for name in ("said", "measured"):
        mine, theirs = (tmp_path / f"{world}-{name}" for world in (1, 2))
        files = sorted(p.relative_to(mine) for p in mine.rglob("*") if p.is_file())
        assert files == sorted(p.relative_to(theirs) for p in theirs.rglob("*") if p.is_file())
        assert sum(p.suffix == ".png" for p in files) > (10 if task == "demo_lesions" else 0)
        for path in files:
            if path.name == "result.json":
                assert final(mine) == final(theirs)
            elif path.suffix == ".npz":
                with np.load(mine / path) as a, np.load(theirs / path) as b:
                    assert all((a[n] == b[n]).all() or np.isnan(a[n]).all() for n in a.files), path
            else:
                assert (mine / path).read_bytes() == (theirs / path).read_bytes(), path


def test_two_ranks_train_as_one_does(pretrained: Pretrained, finetune: Finetune, tmp_path: Path) -> None:
    """Losses and looks agree to rounding, the Cox loss with its risk set over ranks among them."""
    words = [
        "--task",
        "demo_survival",
        "--method",
        "mrm_record",
        "--init",
        str(pretrained("mrm_record")),
        "protocol.steps=4",
    ]
    for world in (1, 2):
        ended = finetune(tmp_path / str(world), *words, "protocol.batch=12", "protocol.evaluations=4", world=world)
        assert ended.codes == [0] * world, ended.text
    made = [series(tmp_path / w / "seed-0" / "lr-0.001", "loss", "val/c_index", "keys") for w in ("1", "2")]
    for a, b in zip(*made, strict=True):
        assert a[:2] == pytest.approx(b[:2], rel=1e-4)
        assert a[2] == b[2]


WAYS = {"sharded": (["zero.stage=3"], 1e-4), "half": (["zero.stage=2", "precision=bf16"], 0.05)}
BY_LABELS_ALONE = sorted(set(method_names()) - set(pretrained_names()))


@pytest.mark.parametrize(("method", "way"), cells(list(WAYS), BY_LABELS_ALONE, of_each=1))
def test_a_system_without_pretraining_trains_alike_on_any_ranks(
    method: str, way: str, finetune: Finetune, tmp_path: Path
) -> None:
    """One rank, two under ZeRO-3 or in bf16: the task's loss and every term that the system's own head brings, step by step."""
    options, masks = get_method(method).Options.model_fields, get_method(method).draws_masks
    still = [f"method.{o}=0" for o in options if o.endswith("dropout")]
    words = [
        "--task",
        "demo_lesions" if masks else "demo_subtype",
        "--method",
        method,
        "--recipe",
        "demo",
        *still,
        "protocol.steps=4",
        "protocol.batch=12",
        "precision=fp32",
    ]
    more, rel = WAYS[way]
    for name, world, words_ in (("one", 1, words), (way, 2, [*words, *more])):
        ended = finetune(tmp_path / name, *words_, world=world)
        assert ended.codes == [0] * world, ended.text
    one, other = (rows(tmp_path / name / "seed-0" / "lr-0.001") for name in ("one", way))
    terms = [k for k in one[0] if k == "loss" or k.startswith("loss/")]
    assert len(terms) >= 2, terms
    assert one[0]["loss"] != one[-1]["loss"], "nothing is learned: the comparison would prove nothing"
    assert [r["keys"] for r in other] == [r["keys"] for r in one]
    for a, b in zip(one, other, strict=True):
        assert {t: b[t] for t in terms} == pytest.approx({t: a[t] for t in terms}, rel=rel), a["step"]


@pytest.mark.parametrize(
    ("more", "rel"), [(["zero.stage=3"], 1e-4), (["zero.stage=2", "precision=bf16"], 0.05)], ids=["zero-3", "bf16"]
)
def test_sharded_and_half_precision_trainings_stay_near(
    more: list[str], rel: float, pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    words = [
        "--task",
        "demo_lesions",
        "--method",
        "mrm_relation",
        "--init",
        str(pretrained("mrm_relation")),
        "output.width=16",
    ]
    words += ["protocol.layer_decay=0.75", "protocol.steps=3", *PARTS]
    for name, extra in (("plain", []), ("other", more)):
        ended = finetune(tmp_path / name, *words, *extra, world=2)
        assert ended.codes == [0, 0], ended.text
    made = [series(tmp_path / n / "seed-0" / "lr-0.001", "loss", "keys") for n in ("plain", "other")]
    for a, b in zip(*made, strict=True):
        assert b[0] == pytest.approx(a[0], rel=rel)
        assert a[1] == b[1]
    kept = [load_file(next((tmp_path / n).rglob("finetune.safetensors"))) for n in ("plain", "other")]
    assert {n: w.shape for n, w in kept[0].items()} == {n: w.shape for n, w in kept[1].items()}
    assert len(final(tmp_path / "other")["examples"]) > 1


def test_kills_and_stops_change_no_number(pretrained: Pretrained, finetune: Finetune, tmp_path: Path) -> None:
    """SIGKILL of both ranks within the second of four trainings, SIGUSR2 in the third, a kill in the fourth after its last step."""
    words = [
        "--task",
        "demo_severity",
        "--method",
        "mgi",
        "--init",
        str(pretrained("mgi")),
        "seeds=[0, 1]",
        "data.workers=2",
    ]
    words += [
        "protocol.lr=[1e-3, 3e-3]",
        "protocol.steps=6",
        "protocol.evaluations=3",
        "checkpoint.every=2",
        "method.image.drop_path=0.2",
        *PARTS,
    ]
    whole = finetune(tmp_path / "whole", *words, world=2)
    assert whole.codes == [0, 0], whole.text
    out = tmp_path / "cut"
    died = finetune(out, *words, world=2, faults={"die": {"step": 5, "of": "seed-0/lr-0.003"}})
    assert died.codes == [-9, -9], died.text
    assert not (out / "result.json").exists()
    stopped = finetune(
        out, *words, world=2, faults={"signal": {"step": 3, "of": "seed-1/lr-0.001", "name": "SIGUSR2", "rank": 1}}
    )
    assert stopped.codes == [75, 75], stopped.text
    assert "The same command goes on" in stopped.text
    assert "going on from" in stopped.text
    assert "step-00000004 (step 4)" in stopped.text, "the killed training went on from its last checkpoint"
    died = finetune(out, *words, world=2, faults={"die": {"step": 6, "of": "seed-1/lr-0.003"}})
    assert died.codes == [-9, -9], died.text
    done = finetune(out, *words, world=2)
    assert done.codes == [0, 0], done.text
    assert final(out) == final(tmp_path / "whole")
    for file in sorted(p.relative_to(out) for p in out.rglob("metrics.jsonl")):
        folder = (tmp_path / "whole" / file).parent
        assert series((out / file).parent, "step", "loss", "keys", "lr") == series(folder, "step", "loss", "keys", "lr")
    weights = sorted(p.relative_to(out) for p in out.rglob("*.safetensors"))
    assert weights == sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*.safetensors"))
    assert len(weights) == 2
    for file in weights:
        a, b = load_file(out / file), load_file(tmp_path / "whole" / file)
        assert all(a[n].equal(b[n]) for n in a)
    assert len(rows(out / "seed-1" / "lr-0.003")) == 6


def test_a_probe_stops_between_splits_and_goes_on_from_its_features(
    pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    words = ["--task", "demo_subtype", "--method", "gimp", "--init", str(pretrained("gimp")), "--mode", "knn"]
    stopped = finetune(
        tmp_path / "run", *words, world=2, faults={"features": {"splits": 2, "name": "SIGUSR2", "rank": 1}}
    )
    assert stopped.codes == [75, 75], stopped.text
    assert "The same command goes on" in stopped.outputs[0]
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / ".features").iterdir()}
    assert sorted(n.split("-")[0] for n in kept) == ["train", "val"]
    done = finetune(tmp_path / "run", *words)
    assert done.codes == [0], done.text
    assert {n: (tmp_path / ".features" / n).stat().st_mtime_ns for n in kept} == kept, "computed once"
    whole = finetune(tmp_path / "other" / "run", *words)
    assert whole.codes == [0], whole.text
    assert final(tmp_path / "run") == final(tmp_path / "other" / "run")


def test_the_launcher_of_deepspeed_starts_a_fine_tune(
    pretrained: Pretrained, cohort: Path, demo_cohort: Path, tmp_path: Path
) -> None:
    """The command as a user gives it, two ranks: masks with genes as queries, and both controls."""
    launcher = [str(Path(sys.executable).parent / "deepspeed"), "--num_gpus", "2", "--master_port", str(free_port())]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "MEDPAIR_CACHE": str(demo_cohort.parent), "PATH": path, "OMP_NUM_THREADS": "1"}
    words = [
        "--task",
        "demo_lesions",
        "--method",
        "mgi",
        "--init",
        str(pretrained("mgi")),
        "inputs=multimodal",
        "output.width=16",
    ]
    more = ["output.decoder=two_way", "controls=[shuffled, missing]"]
    done = subprocess.run(
        [*launcher, "launch/finetune.py", *tuning(cohort, tmp_path / "run", *words, *more)],
        cwd=ROOT, env=env, text=True, capture_output=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert done.stdout.count("tested once on") == 1, "rank 0 speaks for all"
    assert {final(p.parent)["control"] for p in (tmp_path / "run").rglob("result.json")} == {
        None,
        "shuffled",
        "missing",
    }
