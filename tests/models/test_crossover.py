"""Which attention is faster is measured and said; no network is changed by it."""

from __future__ import annotations

import pytest
import torch

from models.layers import crossover as measured
from models.layers.crossover import Pair, crossover, pairs


def test_the_crossover_is_the_last_size_before_exact_falls_behind() -> None:
    assert crossover([Pair(512, 2.0, 1.0), Pair(1024, 3.0, 3.0), Pair(2048, 4.0, 5.0), Pair(4096, 9.0, 8.0)]) == 1024
    assert crossover([Pair(512, 1.0, 1.1)]) == 0
    assert crossover([Pair(512, 1.0, 0.5)]) == 512


def test_both_layers_are_timed_until_exact_attention_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []

    def seconds(layer: torch.nn.Module, x_BLC: torch.Tensor) -> float:
        layer(x_BLC).sum().backward()
        timed.append((layer.landmarks, x_BLC.shape[1]))
        return 1.0 if layer.landmarks else x_BLC.shape[1] / 32

    monkeypatch.setattr(measured, "SIZES", (16, 32, 64, 128))
    monkeypatch.setattr(measured, "_seconds", seconds)
    found = list(pairs(torch.device("cpu"), dim=16, heads=2, landmarks=4))
    assert found == [Pair(16, 1.0, 0.5), Pair(32, 1.0, 1.0), Pair(64, 1.0, 2.0)]
    assert timed == [(m, n) for n in (16, 32, 64) for m in (4, 4, None, None)]
    monkeypatch.undo()
    assert measured._seconds(measured.LongAttention(16, 2, 4), torch.zeros(1, 20, 16)) > 0


def test_doctor_says_what_follows_for_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.doctor import attentions

    monkeypatch.setattr(measured, "pairs", lambda device: iter([Pair(512, 0.2, 0.1), Pair(1024, 0.2, 0.3)]))
    lines = list(attentions(cuda=False))
    assert lines[0] == "     512 tokens   Nystrom   200.0 ms, exact   100.0 ms"
    assert "up to 512 tokens" in lines[-1]
    assert "method.attention=auto method.exact_tokens=512" in lines[-1]
    monkeypatch.setattr(measured, "pairs", lambda device: iter([Pair(512, 0.1, 0.2)]))
    assert list(attentions(cuda=False))[-1] == "  Nystrom attention is faster at 512 tokens already"
