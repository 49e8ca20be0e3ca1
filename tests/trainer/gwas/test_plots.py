"""Plots of a study: what is drawn can be told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer.gwas import plots


def test_ten_phenotypes_of_a_qq_plot_look_different(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms: list[tuple[object, object]] = []
    monkeypatch.setattr(
        plots, "_save", lambda figure, _: forms.extend((x.get_color(), x.get_marker()) for x in figure.axes[0].lines)
    )
    log10_p = np.log10(np.random.default_rng(0).uniform(size=(10, 50)))
    plots.qq(tmp_path / "qq.png", log10_p, [f"PC{i}" for i in range(10)], [1.0] * 10)
    assert len(forms) == 11, "ten phenotypes and the diagonal"
    assert len(set(forms)) == 11
