"""The deletion test: of a map that knows what the answer rests on it holds, of one that knows the opposite it does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shards.read.dataset import Dataset
from trainer.downstream.maps.deletion import DRAWS, Deletion, Kept, deletions, lost, told
from trainer.downstream.maps.made import Made
from trainer.downstream.maps.write import SlideMaps, write_maps

CPU = torch.device("cpu")


class Mean(nn.Module):
    """Answers with the mean of the first feature, times a sign."""

    def __init__(self, sign: float = 1.0, kind: str = "binary"):
        super().__init__()
        self.sign, self.question = sign, SimpleNamespace(kind=kind)
        self.bags = 0

    def eval_sample(self, record: Any, rng: np.random.Generator) -> np.ndarray:
        patches_NF = record.read("patches")
        assert record.shape("patches") == patches_NF.shape
        assert (record.rows("patches", 1, 3) == patches_NF[1:3]).all()
        return patches_NF

    def collate(self, samples: list[np.ndarray]) -> torch.Tensor:
        self.bags += 1
        return torch.from_numpy(samples[0].astype(np.float64))[None]

    def logits(self, batch_BNF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled_BF = batch_BNF.mean(1)
        return self.sign * pooled_BF[:, :1], pooled_BF


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_map_that_knows_holds_and_its_opposite_does_not(cohort: Path, sign: float) -> None:
    data = Dataset.open(cohort)
    try:
        record = data[0]
        first_N = record.read("patches")[:, 0].astype(np.float64)
        # What speaks for the answer that the whole is given has the largest share.
        for_it_N = first_N * (1 if first_N.mean() >= 0 else -1)
        share_N = np.exp(for_it_N) / np.exp(for_it_N).sum()
        maps = SlideMaps(
            record.key, record.patient, ("knows", "opposite"), np.stack([share_N, 1 - share_N]), record.read("coords")
        )
        method: Any = Mean(sign)
        knows, opposite = deletions(method, data, 0, maps, CPU)
    finally:
        data.close()
    N = len(share_N)
    assert knows.removed == opposite.removed == int(np.ceil(N / 10))
    assert method.bags == 1 + DRAWS + 2
    assert knows.holds
    assert not opposite.holds
    kept_N = np.argsort(-share_N, kind="stable")[knows.removed :]
    assert knows.top == pytest.approx(abs(first_N.mean()) - for_it_N[kept_N].mean())
    assert knows.random == opposite.random
    assert abs(knows.random) < knows.top


def test_other_fields_of_a_record_stay(cohort: Path) -> None:
    data = Dataset.open(cohort)
    try:
        kept = Kept(data[0], np.array([3, 5]))
        assert kept.shape("coords") == (2, 2)
        assert (kept.read("rna") == data[0].read("rna")).all()
        assert (kept.key, kept.has("patches"), kept.labels) == (data[0].key, True, data[0].labels)
    finally:
        data.close()


@pytest.mark.parametrize(
    ("kind", "whole", "without", "loss"),
    [
        ("binary", [2.0], [0.5], 1.5), ("binary", [-2.0], [0.5], 2.5), ("multiclass", [1.0, 3.0, 1.0], [1.0, 1.0, 1.0], 2.0),
        ("survival", [0.3], [0.5], 0.2), ("regression", [1.0, 2.0], [2.0, 0.0], 3.0),
    ],
)  # fmt: skip
def test_what_is_lost(kind: str, whole: list[float], without: list[float], loss: float) -> None:
    method: Any = Mean(kind=kind)
    assert lost(method, torch.tensor(whole), torch.tensor(without)) == pytest.approx(loss)


def test_a_slide_of_one_patch_has_no_test_and_the_table_is_written(tmp_path: Path) -> None:
    one = SlideMaps("a", "p", ("attention",), np.ones((1, 1)), np.zeros((1, 2)))
    data: Any = None
    method: Any = Mean()
    assert deletions(method, data, 0, one, CPU) == []
    found = [Deletion("a", "attention", 4, 1.5, 0.2, 0.1), Deletion("b", "attention", 4, 0.1, 0.2, 0.1)]
    write_maps(tmp_path, [one], found)
    assert (tmp_path / "deletion.csv").read_text().splitlines()[1:] == [
        "a,attention,4,1.5,0.2,0.1,1",
        "b,attention,4,0.1,0.2,0.1,0",
    ]
    assert "in 1 of 2 slides (mean loss 0.8 against 0.2)" in told(found)[0]
    (warning,) = (line for line in Made((1, 0), [one]).told(tmp_path, "test") if "warning" in line)
    assert "no map could be tested" in warning
    assert not any("could be tested" in line for line in Made((1, 0), [one], found).told(tmp_path, "test"))


def test_a_map_that_holds_too_seldom_comes_with_a_warning() -> None:
    def of(holding: int, cases: int = 20) -> list[str]:
        return told([Deletion(str(i), "attention", 4, float(i < holding), 0.5, 0.1) for i in range(cases)])

    assert len(of(19)) == 1
    line, warning = of(18)
    assert "in 18 of 20 slides" in line
    assert warning.startswith("warning: map attention holds in less than 95% of these slides")
    assert len(of(0, 1)) == 2, "of one slide, too"
