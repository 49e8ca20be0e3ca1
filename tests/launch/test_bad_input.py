"""Every wrong input gives one clear error (what, where, how to mend), a status that is not 0, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.finetune import main as finetune
from launch.pretrain import main
from shards.__main__ import main as shards
from shards.format.info import load_info, save_info
from tests.trainer.launching import TINY, launch, rows


@pytest.fixture(autouse=True)
def _cache(demo_cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDPAIR_CACHE", str(demo_cohort.parent))


def refused(capsys: pytest.CaptureFixture[str], out: Path, *words: str, method: str = "gimp") -> str:
    """The message of a command that ends with status 2 and touches nothing."""
    assert main(["--method", method, *words, f"out={out}"]) == 2
    assert not out.exists(), "nothing was written"
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.lrr=1"], "optim.lrr: unknown key; did you mean 'lr'?"),
        (["method.margn=1"], "method.margn: unknown key; did you mean 'margin'?"),
        (["global_batch=0"], "global_batch: Input should be greater than or equal to 1 (got 0)"),
        (["micro_batch=5"], "micro_batch=5 x 1 ranks does not divide global_batch=16: use one of [1, 2, 4, 8, 16]"),
        (["micro_batch=4"], "compares the samples of a batch with each other"),
        (
            ["global_batch=1"],
            "stage pretrain of gimp compares the samples of a batch with each other, and one has no other",
        ),
        (["stages.gen.epochs=1"], "stages.gen: gimp has no such stage; it has gene, pretrain"),
        (["global_batch=4000"], "a global batch of 4000 from "),
        (["data.path=nowhere"], "nowhere: no dataset.json"),
        (["--recipe", "nowhere.yaml"], "--recipe nowhere.yaml: no such file"),
        (["precision=fp16"], "precision=fp16: this machine has no device for it"),
        (["method.label=colour"], "has no label 'colour'"),
    ],
)
def test_refused_before_anything_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, tmp_path / "run", *words)


def test_a_plan_says_what_this_machine_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login node has no GPU: there a run is planned, and refused only at its start."""
    warning = "precision=fp16: this machine has no device for it; use bf16 or fp32, or start it on a machine with a GPU"
    run = ["--method", "gimp", "precision=fp16", "zero.stage=1", f"out={tmp_path / 'run'}"]
    tune = ["--task", "demo_subtype", "--init", "scratch", *run]
    for start, words in ((main, run), (finetune, tune)):
        assert start([*words, "--dry-run"]) == 0
        assert f"warning: {warning}" in capsys.readouterr().out
        assert start(words) == 2
        assert warning.partition(", or")[0] in capsys.readouterr().err
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("trainer.runtime.has_half", lambda: True)
            assert start([*words, "--dry-run"]) == 0
        assert "no device" not in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_an_unknown_method_gets_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean" in refused(capsys, tmp_path / "run", method="gim")


def test_damaged_data_is_refused_before_training(
    demo_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(demo_cohort, tmp_path / "data"))
    (data / "vocab" / "rna.txt").write_text("A\nB\n")
    text = refused(capsys, tmp_path / "run", f"data.path={data}")
    assert "the vocabulary is not the one the data set was sealed with" in text
    splits = (data / "splits.csv").read_text()
    (data / "splits.csv").write_text(splits.replace("train", "test", 1))
    assert "splits.csv: changed since the data set was sealed" in refused(capsys, tmp_path / "run", f"data.path={data}")


pytest_ranks = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(400)]


class TestWithProcesses:
    """What needs a run to exist."""

    pytestmark = pytest_ranks

    def test_a_run_is_not_continued_with_another_configuration_data_or_method(
        self, tmp_path: Path, demo_cohort: Path
    ) -> None:
        out = f"out={tmp_path / 'run'}"
        words = [*TINY, "--recipe", "demo", "steps=4", "checkpoint.every=2", out]
        assert launch(1, words, demo_cohort, {"die": {"step": 3}}).codes == [-9]
        before = (tmp_path / "run" / "config.json").read_bytes()

        other = launch(1, [*words, "optim.lr=0.5"], demo_cohort)
        assert other.codes == [2], other.text
        assert "another configuration; optim.lr: 0.001 -> 0.5" in other.text
        assert (tmp_path / "run" / "config.json").read_bytes() == before

        data = Path(shutil.copytree(demo_cohort, tmp_path / "data"))
        info = json.loads((data / "dataset.json").read_text())
        assert shards(["split", str(data), "--fractions", "0.5,0.25,0.25"]) == 0
        moved = launch(1, [*words, f"data.path={data}"], demo_cohort)
        assert moved.codes == [2], moved.text
        assert info["fingerprint"] in moved.text
        assert json.loads((data / "dataset.json").read_text())["fingerprint"] in moved.text
        assert "resume.accept_data=true" in moved.text

        state = next((tmp_path / "run" / "checkpoints").glob("step-*")) / "state.json"
        assert json.loads(state.read_text())["config"]["method_name"] == "gimp"
        mgi = launch(1, ["--method", "mgi", out, "resume.accept_config=true"], demo_cohort)
        assert mgi.codes == [2], mgi.text
        assert "is a checkpoint of gimp, not of mgi" in mgi.text

        accepted = launch(1, [*words, f"data.path={data}", "resume.accept_data=true"], demo_cohort)
        assert accepted.codes == [0], accepted.text
        assert [r["step"] for r in rows(tmp_path / "run")] == [1, 2, 3, 4]

    def test_a_folder_that_cannot_be_used(self, tmp_path: Path, demo_cohort: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        ended = launch(1, [*TINY, "steps=2", f"out={tmp_path / 'file' / 'run'}"], demo_cohort)
        assert ended.codes == [2], ended.text
        assert "cannot be written" in ended.text
        busy = tmp_path / "busy"
        busy.mkdir()
        lock = os.open(busy / ".lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = launch(1, [*TINY, "steps=2", f"out={busy}"], demo_cohort)
        os.close(lock)
        assert ended.codes == [2], ended.text
        assert "another process is training in it" in ended.text

    def test_a_global_batch_that_the_ranks_do_not_divide(self, tmp_path: Path, demo_cohort: Path) -> None:
        ended = launch(2, [*TINY, "steps=2", "global_batch=7", f"out={tmp_path / 'run'}"], demo_cohort)
        assert ended.codes == [2, 2], ended.text
        assert "global_batch=7 cannot be shared by 2 ranks: use 6 or 8" in ended.text

    def test_bad_samples_are_counted_named_and_replaced_until_there_are_too_many(
        self, tmp_path: Path, demo_cohort: Path
    ) -> None:
        from shards.read.dataset import Dataset

        data = Path(shutil.copytree(demo_cohort, tmp_path / "data"))
        with Dataset.open(data) as opened:
            first = int(opened.subset("train").indices[3])
            key = opened[first].key
        shard = data / "shard-000000.tar"
        index = next(r for r in _index(data) if r["key"].decode() == key and r["field"] == b"rna")
        content = bytearray(shard.read_bytes())
        content[int(index["offset"]) + int(index["size"]) - 5] ^= 0xFF
        shard.write_bytes(content)
        words = [*TINY, "epochs=1", "steps=null", f"data.path={data}"]
        allowed = launch(1, [*words, "data.max_bad_samples=1", f"out={tmp_path / 'a'}"], demo_cohort)
        assert allowed.codes == [0], allowed.text
        assert f"bad sample {key} replaced" in allowed.text
        assert sum(r["replaced_samples"] for r in rows(tmp_path / "a")) == 1
        none = launch(1, [*words, f"out={tmp_path / 'b'}"], demo_cohort)
        assert none.codes == [2], none.text
        assert "data.max_bad_samples allows 0" in none.text
        assert key in none.text


def _index(data: Path) -> list:
    import numpy as np

    return list(np.load(data / "shard-000000.idx.npy"))


def test_a_system_that_learns_from_labels_alone_is_not_called_trained(
    tmp_path: Path, demo_cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without stages there is nothing to pre-train; nor with stages of no length."""
    said = refused(capsys, tmp_path / "run", method="abmil")
    assert "learns from a task's labels alone" in said
    assert "launch/finetune.py --task TASK --method abmil --init scratch" in said
    said = refused(capsys, tmp_path / "run", *TINY[2:], "epochs=null", "steps=null", "stages.pretrain.epochs=0")
    assert "nothing would be trained" in said


def test_films_of_unknown_bits_are_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, rows = np.random.default_rng(0), ["sample,patient,split,field:image,field:pgs"]
    for i in range(12):
        Image.fromarray(rng.integers(0, 4096, (32, 32)).astype(np.uint16)).save(tmp_path / f"{i}.png")
        np.save(tmp_path / f"{i}.npy", rng.normal(size=5).astype(np.float32))
        rows.append(f"s{i},p{i},{'train' if i < 8 else 'test'},{i}.png,{i}.npy")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    assert shards(["pack", str(tmp_path / "m.csv"), "--out", str(tmp_path / "films")]) == 0
    info = load_info(tmp_path / "films")
    assert info.fields["image"].meaning == {"bits": "12"}
    fields = {**info.fields, "image": info.fields["image"].model_copy(update={"meaning": {}})}
    save_info(tmp_path / "films", info.model_copy(update={"fields": fields}))  # as packed before bits were stored
    words = [f"data.path={tmp_path / 'films'}", "method.genetics=[pgs]", "global_batch=4", "data.val_split="]
    said = refused(capsys, tmp_path / "run", *words, method="mrm_relation")
    assert "images 'image' have 16 bits, and nothing says how many of them are used" in said
    assert "python -m shards meaning DIR image.bits=12" in said
    assert shards(["meaning", str(tmp_path / "films"), "image.bits=12"]) == 0
    assert main(["--method", "mrm_relation", *words, f"out={tmp_path / 'run'}", "--dry-run"]) == 0
    assert shards(["meaning", str(tmp_path / "films"), "image.bits=99", "--overwrite"]) == 2
    assert "give a whole number from 1 to 16" in capsys.readouterr().err
