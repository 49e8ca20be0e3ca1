"""Losses that were stored once: whatever is moved or renamed, every method goes on computing the same numbers.

golden.json holds the loss terms of a few steps of every stage of each method's demo recipe, and of a fine-tune with the encoder
frozen, then whole; of a method without stages those of a fine-tune. On the kind of processor and the version of PyTorch that they were
stored with they are compared to the last bit, on others within 1e-5 at a part's first step and 1e-4 later, since rounding grows from
update to update (3e-7 of `simclr`'s loss at its first step, 1e-5 at its fourth, AVX512 against AVX2).
A change of the numbers that is meant is stored again: `python -m tests.trainer.test_golden`, and CHANGELOG.md says why. With names it
stores those methods alone, with what they were made on where that is not what the others were.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from models.describe import options_of
from models.registry import get_method, pretrained_names
from tests.models.steady import steady_words
from tests.trainer.forking import Forks
from tests.trainer.launching import rows, small_cohort

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(600)]
STORED = Path(__file__).parent / "golden.json"
STEPS = 4  # steps of each stage before the last, and of the last
# A kind of loss and of head each; a method that comes later has the first.
TUNED = {
    "mgi": ["--task", "demo_lesions", "inputs=multimodal", "output.decoder=two_way", "output.width=16"],
    "mrm_record": ["--task", "demo_lesions", "output.width=16"],
    "mrm_relation": ["--task", "demo_severity"],
}

LABELLED = ("abmil", "clam", "dsmil", "unet")
"""Of systems without stages those that are watched: a kind of head and of loss terms each."""


def here() -> dict[str, str]:
    """What the last bits depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    vendor = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("vendor_id")), "unknown")
    return {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(), "vendor": vendor}


def pretrained_losses(name: str, cohort: Path, forks: Forks, out: Path) -> list[dict[str, Any]]:
    """Of one rank; nothing is dropped at random, since the numbers drawn for it differ between processors."""
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.data import open_data

    config, _ = build_config(name, "demo", [f"data.path={cohort}"])
    data = open_data(config)
    earlier = [f"stages.{s.name}.steps={STEPS}" for s in build_method(config, data).stages()[:-1]]
    data.close()
    options = [o.name for o in options_of(get_method(name).Options)]
    still = [f"method.{o}=0" for o in options if o.endswith(("dropout", "drop_path"))]
    words = ["--method", name, "--recipe", "demo", f"data.path={cohort}", f"steps={STEPS}", "global_batch=8"]
    ended = forks.launch(
        1, [*words, "optim.lr=1e-3", "log.tensorboard=false", *earlier, *still, *steady_words(name), f"out={out}"]
    )
    assert ended.codes == [0], ended.text
    return terms(out)


def finetuned_losses(name: str, cohort: Path, forks: Forks, run: Path, out: Path) -> list[dict[str, Any]]:
    """An epoch (four steps) in which the encoder is frozen, then two steps of the whole."""
    words = [
        "--method", name, "--init", str(run), *TUNED.get(name, ["--task", "demo_subtype"]), f"data.path={cohort}", "seeds=0",
        "protocol.batch=8", "protocol.lr=1e-3", "protocol.freeze_epochs=1", "protocol.steps=6", "protocol.evaluations=2",
        "bootstrap.draws=100", f"out={out}",
    ]  # fmt: skip
    ended = forks.launch(1, words, program="finetune")
    assert ended.codes == [0], ended.text
    (metrics,) = out.rglob("metrics.jsonl")
    return terms(metrics.parent)


def labelled_losses(name: str, cohort: Path, forks: Forks, out: Path) -> list[dict[str, Any]]:
    """Six steps of a system that learns from labels alone: masks where it draws them, else classes; nothing is dropped at random."""
    cls = get_method(name)
    still = [f"method.{o.name}=0" for o in options_of(cls.Options) if o.name.endswith(("dropout", "drop_path"))]
    words = [
        "--method", name, "--recipe", "demo", "--task", "demo_lesions" if cls.draws_masks else "demo_subtype", f"data.path={cohort}",
        "seeds=0", "protocol.batch=8", "protocol.lr=1e-3", "protocol.steps=6", "protocol.evaluations=2", "bootstrap.draws=100", *still,
        f"out={out}",
    ]  # fmt: skip
    ended = forks.launch(1, words, program="finetune")
    assert ended.codes == [0], ended.text
    (metrics,) = out.rglob("metrics.jsonl")
    return terms(metrics.parent)


def terms(out: Path) -> list[dict[str, Any]]:
    """Stage, step and every loss term of each step, held-back ones included."""
    chosen = [
        {k: v for k, v in row.items() if k in ("stage", "step", "loss", "val/loss") or "loss/" in k}
        for row in rows(out)
    ]
    assert all(isinstance(row["loss"], float) for row in chosen)
    return chosen


def measured(cohort: Path, forks: Forks, name: str, folder: Path) -> dict[str, list[dict[str, Any]]]:
    run = folder / "run"
    if not get_method(name).outline:
        return {"finetune": labelled_losses(name, cohort, forks, run)}
    pretrained = pretrained_losses(name, cohort, forks, run)
    return {"pretrain": pretrained, "finetune": finetuned_losses(name, cohort, forks, run, folder / "tuned")}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cohort(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def forks(cohort: Path) -> Forks:
    return Forks(cohort)


@pytest.mark.parametrize("name", sorted({*pretrained_names(), *LABELLED}))
def test_losses_are_those_that_were_stored(name: str, cohort: Path, forks: Forks, tmp_path: Path) -> None:
    stored = json.loads(STORED.read_bytes())
    assert name in stored["losses"], f"store the losses of {name}: python -m tests.trainer.test_golden {name}"
    exact = here() == stored.get("made_elsewhere", {}).get(name, stored["made_on"])
    found = measured(cohort, forks, name, tmp_path)
    for part, expected in stored["losses"][name].items():
        assert [list(r) for r in found[part]] == [list(r) for r in expected], part
        for at, (now, then) in enumerate(zip(found[part], expected, strict=True)):
            within = 0 if exact else 1e-4 if at else 1e-5
            assert now == close(then, within), f"{name}, {part}, step {then['step']}, within {within}"


def close(row: dict[str, Any], within: float) -> dict[str, Any]:
    if not within:
        return row
    return {k: pytest.approx(v, rel=within, abs=within) if isinstance(v, float) else v for k, v in row.items()}


def test_one_method_is_stored_beside_those_of_another_processor() -> None:
    there, here_ = {"torch": "1"}, {"torch": "2"}
    before = {"made_on": there, "losses": {"b": {"pretrain": []}}}
    after = with_losses(before, "a", {"pretrain": [{}]}, here_)
    assert list(after["losses"]) == ["a", "b"]
    assert after["made_on"] == there
    assert after["made_elsewhere"] == {"a": here_}
    again = with_losses(after, "a", {"pretrain": []}, there)
    assert again == {"made_on": there, "losses": {"a": {"pretrain": []}, "b": {"pretrain": []}}}


def with_losses(stored: dict[str, Any], name: str, losses: dict[str, Any], made_on: dict[str, str]) -> dict[str, Any]:
    """What is stored, with the losses of a method in it; of all others nothing changes."""
    elsewhere = {n: w for n, w in stored.get("made_elsewhere", {}).items() if n != name}
    if made_on != stored["made_on"]:
        elsewhere[name] = made_on
    new = {"made_on": stored["made_on"], "losses": dict(sorted({**stored["losses"], name: losses}.items()))}
    return {**new, "made_elsewhere": dict(sorted(elsewhere.items()))} if elsewhere else new


def store(names: list[str]) -> None:
    """Stores the losses of these methods beside those of the others; without names those of all, on this processor."""
    stored = json.loads(STORED.read_bytes()) if names and STORED.exists() else {"made_on": here(), "losses": {}}
    with tempfile.TemporaryDirectory() as folder:
        cohort = small_cohort(Path(folder))
        forks = Forks(cohort)
        for name in names or sorted({*pretrained_names(), *LABELLED}):
            stored = with_losses(stored, name, measured(cohort, forks, name, Path(folder) / name), here())
    STORED.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    store(sys.argv[1:])
