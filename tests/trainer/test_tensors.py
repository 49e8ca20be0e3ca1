"""What a checkpoint brings back beside trained weights: read from model states as each ZeRO stage writes them, compared by hash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.trainer.forking import Forks
from trainer.engine.teachers import put_shard
from trainer.engine.tensors import differing, digest, untrained


def test_a_hash_is_of_type_shape_and_values() -> None:
    x_AB = torch.arange(6, dtype=torch.float32).view(2, 3)
    others = [x_AB.view(3, 2), x_AB.bfloat16(), x_AB + torch.eye(2, 3) * 1e-6, x_AB.to(torch.int32)]
    assert len({digest(t) for t in [x_AB, *others]}) == 5
    assert digest(x_AB.t().contiguous().t()) == digest(x_AB), "strides are not part of it"
    assert digest(x_AB, x_AB) != digest(x_AB)
    assert digest(torch.tensor([0.0, float("nan")])) == digest(torch.tensor([-0.0, float("nan")]))
    assert digest(torch.tensor(3)) != digest(torch.tensor([3]))
    assert digest(torch.tensor(True)) != digest(torch.tensor(False))


def test_what_one_side_lacks_differs() -> None:
    assert differing({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]
    assert differing({"a": "1"}, {}) == ["a"]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_frozen_parameters_are_put_together_from_the_fragments_of_all_ranks(world: int, tmp_path: Path) -> None:
    """Ten ranks and more are not in the order of their names; the last fragment is padded."""
    whole_AB, size = torch.arange(35, dtype=torch.float32).view(5, 7), -(-35 // (world * 5))
    padded = torch.cat([whole_AB.flatten(), torch.full((size * world * 5 - 35,), -1.0)])
    for rank in range(world * 5):
        state = {
            "module": {"mean": torch.tensor([float(rank)]), "w": torch.empty(0)},
            "buffer_names": ["mean"],
            "frozen_param_shapes": {"w": whole_AB.shape},
            "frozen_param_fragments": {"w": padded[rank * size : (rank + 1) * size]},
        }
        torch.save(state, tmp_path / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
    found = untrained(tmp_path)
    assert found.keys() == {"mean", "w"}
    assert torch.equal(found["w"], whole_AB)
    assert found["mean"].tolist() == [0.0], "rank 0's"


def test_a_folder_without_model_states(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model states"):
        untrained(tmp_path)


def test_a_shard_takes_its_share_and_leaves_the_padding() -> None:
    value = torch.arange(5, dtype=torch.float32)
    shards = [torch.full((3,), -1.0) for _ in range(3)]
    for rank, shard in enumerate(shards):
        put_shard(shard, value, rank)
    assert [s.tolist() for s in shards] == [[0, 1, 2], [3, 4, -1], [-1, -1, -1]]


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_rank_gets_its_own_buffers_back_and_names_what_is_not_what_was_saved(
    tmp_path: Path, forks: Forks
) -> None:
    ended = forks.launch(2, [str(tmp_path)], program="tests.trainer.state_worker")
    assert ended.codes == [0, 0], ended.text
    ranks = [json.loads((tmp_path / f"rank-{r}.json").read_text()) for r in (0, 1)]
    for stage in ("0", "1", "2"):
        assert [r[stage]["queue"][0] for r in ranks] == [3.0, 6.0], stage
        assert [r[stage]["seen"] for r in ranks] == [3, 3]
        assert ranks[0][stage]["error"] == ranks[1][stage]["error"], "said alike everywhere"
        said = ranks[0][stage]["error"]
        # Without what each rank keeps for itself, rank 1's queue is not rank 0's; `seen` was moved on rank 1 alone.
        assert "rank 0: 1 (frozen.weight)" in said
        assert "rank 1: 3 (frozen.weight, queue, seen)" in said
