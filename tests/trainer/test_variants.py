"""What must not change the numbers does not: accumulation, offload, activation checkpointing, ZeRO stage; and stage borders resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.launching import TINY, launch, rows, series

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(600)]
RUN = [*TINY, "steps=3"]


def losses(out: Path) -> list[float]:
    return [r["loss"] for r in rows(out)]


def test_how_a_step_is_computed_does_not_change_it(tmp_path: Path, demo_cohort: Path) -> None:
    plain = launch(2, [*RUN, "zero.stage=0", f"out={tmp_path / 'plain'}"], demo_cohort)
    assert plain.codes == [0, 0], plain.text
    variants = {
        "offloaded": ["zero.stage=2", "zero.offload_optimizer=cpu"],
        "all offloaded": ["zero.stage=3", "zero.offload_optimizer=cpu", "zero.offload_params=cpu"],
        "checkpointed": ["zero.stage=3", "activation_checkpointing=true"],
    }
    for name, words in variants.items():
        ended = launch(2, [*RUN, *words, f"out={tmp_path / name}"], demo_cohort)
        assert ended.codes == [0, 0], ended.text
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "plain"), rel=1e-5), name


def test_accumulation_adds_up_to_the_batch(tmp_path: Path, demo_cohort: Path) -> None:
    """A loss that is a mean over samples: 1 x 8, 4 accumulated x 2, and 2 ranks x 2 accumulated x 2 train alike."""
    words = [
        "--method", "mrm_record", "global_batch=8", "steps=3", "data.val_split=''", "log.tensorboard=false", "optim.clip=0.5",
        "method.report_weight=0", "method.report_dropout=0", "method.image.image_size=16", "method.image.patch=4", "method.image.dim=16",
    ]  # fmt: skip
    for name, world, more in (
        ("whole", 1, []),
        ("parts", 1, ["micro_batch=2"]),
        ("ranks", 2, ["micro_batch=2", "zero.stage=2"]),
    ):
        ended = launch(world, [*words, *more, f"out={tmp_path / name}"], demo_cohort)
        assert ended.codes == [0] * world, ended.text
        for what in ("loss/image", "grad_norm"):
            expected = [v for (v,) in series(tmp_path / "whole", what)]
            assert [v for (v,) in series(tmp_path / name, what)] == pytest.approx(expected, rel=1e-4), (name, what)


def test_both_stages_resume_with_the_best_weights(tmp_path: Path, cohort: Path, demo_cohort: Path) -> None:
    """Killed in the stage that selects, after its best epoch, and again in the next: the same as undisturbed."""
    words = [
        *TINY, f"data.path={cohort}", "method.dropout=0.1", "stages.gene.epochs=2", "stages.gene.optim.lr=3e-3", "steps=6",
        "checkpoint.every=3", "data.val_split=val",
    ]  # fmt: skip
    whole = launch(2, [*words, f"out={tmp_path / 'whole'}"], demo_cohort)
    assert whole.codes == [0, 0], whole.text
    cut = [*words, f"out={tmp_path / 'cut'}"]
    for step in (7, 13):  # four an epoch, eight of the first stage
        died = launch(2, cut, demo_cohort, {"die": {"step": step}})
        assert died.codes == [-9, -9], died.text
    done = launch(2, cut, demo_cohort)
    assert done.codes == [0, 0], done.text
    what = ("step", "stage", "loss", "keys", "grad_norm")
    assert series(tmp_path / "cut", *what) == series(tmp_path / "whole", *what)
    for name in ("stages/gene.safetensors", "weights.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
