"""Bytes of model state: the formula by hand, and counted on real ranks for every ZeRO stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.forking import Forks
from trainer.engine.memory import predict


def test_the_formula_by_hand() -> None:
    """Psi = 1000 trainable, bf16, 4 ranks: 2 + 2 + 12 bytes a parameter, less what a stage shards (arXiv 1910.02054)."""
    assert [predict(1000, 0, 4, s, "bf16").total for s in range(4)] == [16000, 7000, 5500, 4000]
    assert predict(1000, 0, 4, 0, "fp32").total == 16000
    assert predict(1000, 500, 2, 3, "fp32", persistent=10).total == 3000 + 2000 + 6000 + 40
    assert predict(1000, 500, 1, 3, "fp32", persistent=10).total == 6000 + 4000 + 12000


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_ranks_hold_what_the_dry_run_says(tmp_path: Path, forks: Forks) -> None:
    ended = forks.launch(2, [str(tmp_path)], program="tests.trainer.memory_worker")
    assert ended.codes == [0, 0], ended.text
    columns = ("weights", "gradients", "optimizer", "kept whole", "total", "predicted", "border")
    print(f"\n{'stage':<8}{'':<8}" + "".join(f"{c:>12}" for c in columns))
    for rank in (0, 1):
        for case in json.loads((tmp_path / f"rank{rank}.json").read_text()):
            counted, predicted = case["counted"], case["predicted"]
            total = {k: sum(v.values()) for k, v in (("counted", counted), ("predicted", predicted))}
            print(f"{case['stage']:<8}{case['precision']:<8}" + "".join(f"{v:>12,}" for v in counted.values()), end="")
            print(f"{total['counted']:>12,}{total['predicted']:>12,}{case['border']:>12,}")
            assert total["counted"] == pytest.approx(total["predicted"], rel=0.02), case
            assert case["border"] <= 2 * case["largest"]
            for what in ("weights", "gradients", "optimizer"):
                assert counted[what] == pytest.approx(predicted[what], rel=0.02), (what, case)


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_one_rank_holds_to_the_byte_what_the_dry_run_says(tmp_path: Path, forks: Forks) -> None:
    """Under ZeRO 3 small tensors are kept whole on every rank; the only one has them whole in its share, and holds no second copy."""
    ended = forks.launch(1, [str(tmp_path), "3"], program="tests.trainer.memory_worker")
    assert ended.codes == [0], ended.text
    for case in json.loads((tmp_path / "rank0.json").read_text()):
        assert case["counted"] == case["predicted"], case
