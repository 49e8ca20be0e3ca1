"""Manhattan and QQ plots of an association.

Shape letters: P phenotypes, M variants, Q points.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.gwas.tables import neg_log10
from trainer.reporting.figures import COLOURS, canvas
from trainer.state.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP = 2e7
"""Base pairs between chromosomes on the axis."""
MARKERS = (".", "x", "+", "^")
MOST_POINTS = 5000
"""Of a QQ plot: all of the smallest P values, and evenly chosen ones of the rest."""


def manhattan(
    path: Path,
    places: Mapping[str, tuple[np.ndarray, np.ndarray]],
    threshold: float,
    index: Mapping[str, Sequence[int]],
) -> None:
    """-log10 of the merged P by position. places: by chromosome (positions, log10 P); index: variants to mark."""
    with canvas(3.2, 7.5) as figure:
        axes, start, ticks = figure.subplots(), 0.0, []
        for i, (_, (position_M, log10_p_M)) in enumerate(places.items()):
            name = [*places][i]
            x_M, y_M = start + position_M - position_M.min(), neg_log10(log10_p_M)
            axes.scatter(x_M, y_M, s=4, color=COLOURS[i % 2], linewidths=0, rasterized=True)
            marked = [*index.get(name, ())]
            axes.scatter(x_M[marked], y_M[marked], s=18, marker="D", facecolors="none", edgecolors=COLOURS[3], zorder=3)
            ticks.append((float(x_M.mean()), name))
            start = float(x_M.max()) + GAP
        axes.axhline(-np.log10(threshold), color=COLOURS[6], linestyle="--", linewidth=0.8)
        axes.set_xticks([x for x, _ in ticks], [n for _, n in ticks], fontsize=7)
        axes.set(xlabel="chromosome", ylabel="$-\\log_{10}$ P, times the phenotypes", ylim=(0, None))
        _save(figure, path)


def qq(path: Path, log10_p_PM: np.ndarray, names: Sequence[str], inflation: Sequence[float]) -> None:
    """Observed against expected -log10 P of each phenotype, with the central 95 % of order statistics under no association."""
    from scipy.stats import beta

    with canvas(3.8, 4.6) as figure:
        axes = figure.subplots()
        most = 0.0
        for i, (name, row_M, value) in enumerate(zip(names, log10_p_PM, inflation, strict=True)):
            observed = np.sort(neg_log10(row_M[~np.isnan(row_M)]))[::-1]
            if not len(observed):
                continue
            rank = _chosen(len(observed))
            expected = -np.log10((rank + 0.5) / len(observed))
            label = f"{name} ($\\lambda$ {value:.2f})"
            # Phenotypes beyond the colours have another form.
            form = MARKERS[i // len(COLOURS) % len(MARKERS)]
            axes.plot(expected, observed[rank], form, markersize=3, color=COLOURS[i % len(COLOURS)], label=label)
            if i == 0:
                low, high = (-np.log10(beta.ppf(q, rank + 1, len(observed) - rank)) for q in (0.975, 0.025))
                axes.fill_between(expected, low, high, color="#dddddd", linewidth=0, zorder=0)
            most = max(most, float(expected[0]))
        axes.plot([0, most], [0, most], color=COLOURS[6], linewidth=0.8)
        axes.set(xlabel="expected $-\\log_{10}$ P", ylabel="observed $-\\log_{10}$ P", xlim=(0, None), ylim=(0, None))
        axes.legend(fontsize=6, frameon=False, loc="upper left")
        _save(figure, path)


def _chosen(n: int) -> np.ndarray:
    """Ranks to draw."""
    if n <= MOST_POINTS:
        return np.arange(n)
    head = np.arange(MOST_POINTS // 2)
    return np.unique(np.concatenate([head, np.linspace(MOST_POINTS // 2, n - 1, MOST_POINTS // 2).astype(int)]))


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    write_atomic(path, buffer.getvalue())
