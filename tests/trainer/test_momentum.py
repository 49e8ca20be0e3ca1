"""Teachers and queues on real ranks, every ZeRO stage, fp32 and bf16: alike on one rank and two, untouched by a step that is skipped,
bit-equal after a resume in mid-schedule, and the same after a resume on another number of ranks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.contract import Method
from models.registry import get_method, pretrained_names
from tests.trainer.forking import Forks
from tests.trainer.momentum_worker import CASES, SYSTEM_CASES

pytestmark = [pytest.mark.ranks, pytest.mark.slow, pytest.mark.timeout(300)]
NAMES = [f"{z}-{p}" for z, p in CASES]
SYSTEMS = [n for n in pretrained_names() if get_method(n).teachers is not Method.teachers]
"""Those with a teacher: a new one is tested by being there."""
Found = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def found(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """By launch what each of its ranks wrote: one rank, two ranks, and one rank from the checkpoint of two."""
    folders = {n: tmp_path_factory.mktemp(n) for n in ("one", "two", "moved")}
    for name, world in (("one", 1), ("two", 2), ("moved", 1)):
        words = [str(folders[name]), *([str(folders["two"])] if name == "moved" else [])]
        ended = forks.launch(world, words, program="tests.trainer.momentum_worker")
        assert ended.codes == [0] * world, ended.text
    return {n: [_load(p) for p in sorted(folder.glob("rank-?.pt"))] for n, folder in folders.items()}


def _load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [n for n in a if not torch.equal(a[n], b[n])]


@pytest.mark.parametrize("case", NAMES)
def test_a_resume_in_mid_schedule_is_bit_equal(case: str, found: Found) -> None:
    for rank in [*found["one"], *found["two"]]:
        assert not differing(rank[case]["whole"], rank[case]["again"])
        moved = differing(rank[case]["saved"], rank[case]["whole"])
        assert {"teacher.0.weight", "queue_keys"} <= set(moved), "or the comparison would be of nothing"
    one, two = found["two"][0][case]["whole"], found["two"][1][case]["whole"]
    assert not differing(one, two), "all ranks hold the same"


@pytest.mark.parametrize("case", NAMES)
def test_a_skipped_step_leaves_teacher_and_queue(case: str, found: Found) -> None:
    for rank in [*found["one"], *found["two"]]:
        changed = differing(rank[case]["before"], rank[case]["skipped"])
        # Batch norms remember the batch that they saw; its statistics were finite.
        assert not [n for n in changed if "running" not in n and "num_batches" not in n]


@pytest.mark.parametrize("case", NAMES)
def test_the_momentum_is_that_of_the_progress(case: str, found: Found) -> None:
    """The fourth step, before which two of five updates were made."""
    for rank in [*found["one"], *found["two"]]:
        before, now = rank[case]["skipped"], rank[case]["saved"]
        kept = "teacher.0.weight average" if case.endswith("bf16") else "teacher.0.weight"
        expected = before[kept].lerp(now["student.0.weight"].float(), 1 - (0.9 + 0.1 * 2 / 5))
        torch.testing.assert_close(now[kept], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("case", NAMES)
def test_two_ranks_equal_one(case: str, found: Found) -> None:
    one, two = found["one"][0][case]["whole"], found["two"][0][case]["whole"]
    assert one.keys() == two.keys()
    rough = {} if case.endswith("fp32") else {"rtol": 2e-2, "atol": 2e-2}
    for name in ("teacher.0.weight", "teacher.1.bias", "student.0.weight", "queue_keys"):
        torch.testing.assert_close(two[name], one[name], **(rough or {"rtol": 1e-4, "atol": 1e-6}))
    for name in ("queue_keys_at", "queue_keys_valid"):
        assert torch.equal(one[name], two[name])
    assert int(one["queue_keys_at"]) == 3 * 5 % 6, "five real steps of three real samples"


@pytest.mark.parametrize("case", NAMES)
def test_another_number_of_ranks_goes_on(case: str, found: Found) -> None:
    moved, two = found["moved"][0][case], found["two"][0][case]
    kept = [n for n in two["saved"] if "running" not in n and "num_batches" not in n]
    assert not [n for n in kept if not torch.equal(moved["loaded"][n], two["saved"][n])]
    rough = {} if case.endswith("fp32") else {"rtol": 2e-2, "atol": 2e-2}
    for name in ("teacher.0.weight", "queue_keys"):
        torch.testing.assert_close(moved["whole"][name], two["whole"][name], **(rough or {"rtol": 1e-4, "atol": 1e-6}))


@pytest.mark.parametrize("case", [n for n in NAMES if n.endswith("bf16")])
def test_the_average_has_float32_beside_weights_of_16_bits(case: str, found: Found) -> None:
    for rank in found["two"]:
        state = rank[case]["whole"]
        exact, rounded = state["teacher.0.weight average"], state["teacher.0.weight"]
        assert (exact.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(exact.bfloat16(), rounded)
        assert not torch.equal(exact, rounded.float())
    # What a run hands on is the exact one.
    assert torch.equal(found["two"][0][case]["weights"]["teacher.0.weight"], exact)


@pytest.fixture(scope="module")
def systems(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks wrote."""
    folder = tmp_path_factory.mktemp("systems")
    ended = forks.launch(2, [str(folder), "systems", *SYSTEMS], program="tests.trainer.momentum_worker")
    assert ended.codes == [0, 0], ended.text
    return [_load(p) for p in sorted(folder.glob("rank-?.pt"))]


@pytest.mark.parametrize("case", [f"{n}-{z}-{p}" for n in SYSTEMS for z, p in SYSTEM_CASES])
def test_a_system_resumes_in_mid_schedule_bit_for_bit(case: str, systems: list[dict[str, Any]]) -> None:
    for rank in systems:
        assert not differing(rank[case]["whole"], rank[case]["again"])
        moved = differing(rank[case]["saved"], rank[case]["whole"])
        assert any(n.startswith("momentum_") for n in moved), "or no teacher followed"
