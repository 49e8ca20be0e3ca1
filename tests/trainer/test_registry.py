"""Every method that is pre-trained, through real DeepSpeed ranks at the sizes of its demo recipe: a new one is tested by being there.

What is asked of each: a kill changes nothing, ZeRO-3 computes what ZeRO-0 does, bf16 stays near fp32, 1 x 8 equals 2 x 4. Of most systems
two of these are asked always (tests/diagonal.py): a kill or bf16, ZeRO-3 or one rank.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.describe import options_of
from models.registry import get_method, pretrained_names
from tests.diagonal import cells
from tests.trainer.forking import Forks
from tests.trainer.launching import STEADY, rows

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(600)]
BEFORE, STEPS = 3, 4  # of each stage before the last, and of the last
Run = Callable[..., list[dict[str, Any]]]


ASKED = list(cells(["kill", "zero-3", "bf16", "one rank"], pretrained_names()))


def asked_of(question: str) -> pytest.MarkDecorator:
    """Parametrises the module's fixture `name`: with each system, marked as its cell is."""
    params = [pytest.param(p.values[0], marks=p.marks, id=p.values[0]) for p in ASKED if p.values[1] == question]
    return pytest.mark.parametrize("name", params, indirect=True, scope="module")


@pytest.fixture(scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def words(name: str, demo_cohort: Path) -> list[str]:
    """The command line of all runs of a method; few steps of every stage that it has, validation and pictures included."""
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.data import open_data

    config, _ = build_config(name, "demo", [f"data.path={demo_cohort}"])
    data = open_data(config)
    earlier = [f"stages.{s.name}.steps={BEFORE}" for s in build_method(config, data).stages()[:-1]]
    data.close()
    first = ["--method", name, f"steps={STEPS}", "global_batch=8", "optim.lr=1e-3", "checkpoint.every=100"]
    return [*first, *earlier, *STEADY.get(name, [])]


@pytest.fixture(scope="module")
def run(words: list[str], name: str, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """run(world, *more words): the rows of metrics.jsonl, of a method without dropout (each rank draws its own)."""
    options = [o.name for o in options_of(get_method(name).Options)]
    still = [f"method.{o}=0" for o in options if o.endswith(("dropout", "drop_path"))]

    def make(world: int, *more: str) -> list[dict[str, Any]]:
        out = tmp_path_factory.mktemp(name) / "run"
        ended = forks.launch(world, [*words, *still, *more, f"out={out}"])
        assert ended.codes == [0] * world, ended.text
        return rows(out)

    return make


@pytest.fixture(scope="module")
def plain(run: Run) -> list[dict[str, Any]]:
    """Two ranks, nothing sharded, float32: what the other ways are compared with."""
    made = run(2, "zero.stage=0")
    first, last = made[-STEPS]["loss"], made[-1]["loss"]
    assert first != last, "nothing is learned: the comparisons would prove nothing"
    return made


def assert_same(a: list[dict[str, Any]], b: list[dict[str, Any]], rel: float) -> None:
    """Every loss term, in training and held back, step by step."""
    assert [r["keys"] for r in a] == [r["keys"] for r in b]
    for one, other in zip(a, b, strict=True):
        terms = [k for k in one if k == "loss" or k.startswith(("loss/", "val/loss/"))]
        assert len(terms) >= 2, terms
        assert [k for k in other if k in terms] == terms
        for term in terms:
            assert other[term] == pytest.approx(one[term], rel=rel, abs=rel), (one["step"], term)


@asked_of("kill")
def test_a_kill_changes_nothing(words: list[str], cohort: Path, forks: Forks, tmp_path: Path) -> None:
    """SIGKILL between two checkpoints: the same command gives losses, gradients, keys and weights bit for bit.

    Of an eighth of the patients, so that the last stage crosses an epoch. What is equal to rounding alone is asked on all of them:
    so few bring single losses to the border of what rounding may do.
    """
    words = [*words, "--recipe", "demo", f"data.path={cohort}", "steps=5", "checkpoint.every=3", "data.workers=2"]
    whole = forks.launch(2, [*words, f"out={tmp_path / 'whole'}"])
    assert whole.codes == [0, 0], whole.text
    total = rows(tmp_path / "whole")[-1]["step"]
    died = forks.launch(2, [*words, f"out={tmp_path / 'cut'}"], {"die": {"step": total - 1}})
    assert died.codes == [-9, -9], died.text
    again = forks.launch(2, [*words, f"out={tmp_path / 'cut'}"])
    assert again.codes == [0, 0], again.text
    assert f"step-{total - 2:08d}" in again.outputs[0], "it goes on from the checkpoint before the kill"
    timed = ("samples_per_s", "data_wait", "peak_memory")
    assert _without(timed, rows(tmp_path / "cut")) == _without(timed, rows(tmp_path / "whole"))
    names = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*.safetensors"))
    assert Path("weights.safetensors") in names
    for file in names:
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def _without(names: tuple[str, ...], made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in names} for row in made]


@asked_of("zero-3")
def test_zero_3_computes_what_zero_0_does(run: Run, plain: list[dict[str, Any]]) -> None:
    assert_same(plain, run(2, "zero.stage=3"), rel=1e-5)


@asked_of("bf16")
def test_bfloat16_stays_near_float32(run: Run, plain: list[dict[str, Any]]) -> None:
    made = run(2, "zero.stage=1", "precision=bf16")
    assert not any(r["skipped"] for r in made)
    assert_same(plain, made, rel=0.05)
    assert [r["loss"] for r in made] != [r["loss"] for r in plain], "it did run in bf16"


@asked_of("one rank")
def test_one_rank_of_eight_equals_two_of_four(run: Run, plain: list[dict[str, Any]]) -> None:
    """Compared with ZeRO-0 on two ranks, this one under ZeRO-1."""
    assert_same(plain, run(1, "zero.stage=1"), rel=1e-5)
