"""Draws a data set: contact sheet of its images, bag sizes, where samples lie by bag and by genes, what is missing, the splits."""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shards.check.readable import unreadable
from shards.errors import bad
from shards.format.info import SPLITS, load_info, write_atomic
from shards.format.staging import disk_errors
from shards.read.dataset import Dataset
from shards.read.stats import MISSING_CODE, vector_fields

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from shards.read.dataset import ShardRecord

# Okabe & Ito's palette: told apart with any colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
INK, QUIET, GRID = "#222222", "#6b6b6b", "#e4e4e4"
MAX_SAMPLES = 600  # of a scatter; evenly spaced over the data set
MOST_ROWS = 18  # of the panel of what samples have
MAX_ROWS = 2000  # of one bag in its mean
SHEET_ROWS, SHEET_COLUMNS = 2, 8
SHEET_IMAGES = SHEET_ROWS * SHEET_COLUMNS


@dataclass
class _Colouring:
    """Which colour each sample has: by class, or one for all."""

    label: str | None
    names: list[str]
    codes: np.ndarray  # [N], per sample of the data set; -1 unknown

    def points(self, at: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
        """(name, colour, mask) of each class among samples `at`."""
        code = self.codes[at]
        groups = [(n, COLOURS[i], code == i) for i, n in enumerate(self.names)]
        return [g for g in groups if g[2].any()] + ([("unknown", "#bbbbbb", code < 0)] if (code < 0).any() else [])


def draw(folder: Path, out: Path, label: str | None = None) -> Path:
    """Writes the picture of a data set to `out` (PNG); `label` names the class label that colours it.

    Raises:
        DataError: not a data set, no such class label, or a place that cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    info = load_info(Path(folder))
    with (
        Dataset.open(folder) as data,
        plt.rc_context({"font.size": 9, "axes.titlesize": 10, "text.color": INK, "font.family": "DejaVu Sans"}),
    ):
        colouring = _colouring(data, label)
        panels = _panels(data, colouring)
        images = [n for n, f in info.fields.items() if f.kind == "image" and not n.startswith("mask")]
        sheet_rows, panel_rows = len(images), -(-len(panels) // 3)
        ratios = [1.75] * sheet_rows + [1.75] * panel_rows
        layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.08)
        figure = plt.figure(figsize=(12, 0.9 + 1.75 * 1.65 * len(ratios)), dpi=110, layout=layout)
        figure.suptitle(
            f"{info.name}: {info.samples:,} samples of {info.patients:,} patients", x=0.01, ha="left", fontsize=13
        )
        grid = figure.add_gridspec(len(ratios), 1, height_ratios=ratios)
        for row, name in enumerate(images):
            _contact_sheet(figure.add_subfigure(grid[row]), data, name, colouring)
        for row in range(panel_rows):
            part = figure.add_subfigure(grid[sheet_rows + row]).subplots(1, 3)
            for ax, panel in zip(part, [*panels[3 * row : 3 * row + 3], _blank, _blank], strict=False):
                panel(ax)
        picture = io.BytesIO()
        form, known = out.suffix.lstrip(".").lower() or "png", figure.canvas.get_supported_filetypes()
        if form not in known:
            raise bad(f"no picture is written as '{form}'", out, f"give --out NAME.png (or {', '.join(sorted(known))})")
        figure.savefig(picture, format=form, metadata={"Software": "medpair"} if form == "png" else None)
        plt.close(figure)
    with disk_errors(out, "no picture was written"):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, picture.getvalue())
    return out


def _colouring(data: Dataset, label: str | None) -> _Colouring:
    classes = {n: one.classes for n, one in data.info.labels.items() if one.kind == "class"}
    if label is not None and label not in classes:
        raise bad(f"no class label '{label}'", "--label", f"one of: {', '.join(classes) or 'none'}")
    few = [n for n, c in classes.items() if 2 <= len(c) <= len(COLOURS)]
    chosen = label or min(few, key=lambda n: (len(classes[n]), n), default=None)
    if chosen is None:
        return _Colouring(None, ["samples"], np.zeros(len(data), int))
    if len(classes[chosen]) > len(COLOURS):
        raise bad(
            f"label '{chosen}' has {len(classes[chosen])} classes", "--label", f"give one of at most {len(COLOURS)}"
        )
    return _Colouring(chosen, list(classes[chosen]), np.asarray(data.label_values[chosen]))


def _panels(data: Dataset, colouring: _Colouring) -> list[Callable[[Axes], None]]:
    fields = data.info.fields
    bags = [n for n, f in fields.items() if f.kind == "array" and f.shape and len(f.shape) == 2 and f.shape[0] is None]
    wide = [n for n in bags if (fields[n].shape or (0, 0))[1] not in (2, 3)]  # two or three columns are positions
    panels: list[Callable[[Axes], None]] = [lambda ax: _splits(ax, data, colouring), lambda ax: _coverage(ax, data)]
    for name in wide or bags[:1]:
        panels.append(lambda ax, name=name: _bag_sizes(ax, data, name, colouring))  # type: ignore[misc]
    for name in wide:
        panels.append(lambda ax, name=name: _scatter(ax, data, name, _bag_mean, f"{name}: mean of each bag", colouring))  # type: ignore[misc]
    for name in sorted(vector_fields(fields), key=lambda n: -((fields[n].shape or (0,))[0] or 0)):
        panels.append(lambda ax, name=name: _scatter(ax, data, name, _vector, name, colouring))  # type: ignore[misc]
    for name in [n for n, f in fields.items() if f.kind == "text"]:
        panels.append(lambda ax, name=name: _texts(ax, data, name))  # type: ignore[misc]
    return panels


def _chosen(data: Dataset, name: str, most: int) -> np.ndarray:
    """Samples that have a field, evenly spaced."""
    have = np.array([i for i in range(len(data)) if data[i].has(name)])
    return have[np.linspace(0, len(have) - 1, min(most, len(have))).astype(int)] if len(have) else have


def _contact_sheet(part: SubFigure, data: Dataset, name: str, colouring: _Colouring) -> None:
    """Images in rows, framed in the colour of their class, outlines of their mask drawn in."""
    at = _chosen(data, name, SHEET_IMAGES)
    if colouring.label:
        at = at[np.argsort(colouring.codes[at], kind="stable")]
    part.suptitle(f"{name}: {len(at)} of {data.info.fields[name].count:,}", x=0.01, ha="left", fontsize=10)
    for ax, i in zip(part.subplots(SHEET_ROWS, SHEET_COLUMNS).ravel(), [*at, *[None] * SHEET_IMAGES], strict=False):
        _bare(ax)
        if i is None:
            ax.set_visible(False)
            continue
        rec, code = data[int(i)], int(colouring.codes[i])
        pixels = rec.read(name)
        ax.imshow(pixels[..., 0] if pixels.shape[2] < 3 else pixels[..., :3], cmap="gray")
        mask = name.replace("image", "mask") if "image" in name else "mask"
        if mask in rec.fields and (area := rec.read(mask)[..., 0]).shape == pixels.shape[:2] and area.any():
            ax.contour(area > 0, levels=[0.5], colors=["#F0E442"], linewidths=0.8)
        colour = COLOURS[code] if colouring.label and code >= 0 else QUIET
        for side in ax.spines.values():
            side.set(visible=True, color=colour, linewidth=2)
        ax.set_xlabel(
            colouring.names[code] if colouring.label and code >= 0 else rec.key, fontsize=7, color=QUIET, labelpad=3
        )


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_visible(False)


def _blank(ax: Axes) -> None:
    ax.set_visible(False)


def _tidy(ax: Axes, title: str, x: str = "", y: str = "") -> None:
    ax.set_title(title, loc="left", color=INK)
    ax.set_xlabel(x, color=QUIET, fontsize=8)
    ax.set_ylabel(y, color=QUIET, fontsize=8)
    ax.tick_params(colors=QUIET, labelsize=8, length=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRID)


def _splits(ax: Axes, data: Dataset, colouring: _Colouring) -> None:
    names = [s for s in SPLITS if data.info.splits.get(s)]
    left = np.zeros(len(names))
    for name, colour, mask in colouring.points(np.arange(len(data))):
        counts = np.array([int(mask[data.subset(s).indices].sum()) for s in names])
        ax.barh(names, counts, left=left, color=colour, height=0.6, label=name, edgecolor="white", linewidth=1)
        for i, n in enumerate(counts):
            if n > 0.06 * len(data):
                ax.text(left[i] + n / 2, i, f"{n:,}", ha="center", va="center", color="white", fontsize=8)
        left += counts
    ax.invert_yaxis()
    _tidy(ax, f"splits by {colouring.label}" if colouring.label else "splits", "samples")
    if colouring.label:
        ax.legend(frameon=False, fontsize=8, loc="lower right")


def _shown_labels(data: Dataset, room: int) -> tuple[list[str], int]:
    """Labels in their order, as many as there is room for, those that most samples lack before the others; and how many more."""
    labels = data.info.labels
    most = set(sorted(labels, key=lambda n: (-labels[n].missing, n))[: max(room, 4)])
    return [n for n in labels if n in most], len(labels) - len(most)


def _coverage(ax: Axes, data: Dataset) -> None:
    fields = {n: f for n, f in data.info.fields.items() if n != "meta"}
    labels, rest = _shown_labels(data, MOST_ROWS - len(fields))
    names = list(fields) + [f"label {n}" for n in labels]
    have = [f.count for f in fields.values()] + [len(data) - data.info.labels[n].missing for n in labels]
    share = np.array(have) / max(len(data), 1)
    ax.barh(names, np.ones(len(names)), color=GRID, height=0.6)
    ax.barh(names, share, color=[QUIET if n.startswith("label ") else INK for n in names], height=0.6)
    for i, s in enumerate(share):
        ax.text(1.02, i, "all" if s == 1 else f"{s:.1%}", va="center", fontsize=8, color=QUIET if s == 1 else "#D55E00")
    ax.set_xlim(0, 1.15)
    ax.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    ax.invert_yaxis()
    _tidy(ax, "samples that have it", f"and {rest} more labels" if rest else "")
    if len(names) > 12:
        ax.tick_params(axis="y", labelsize=6)


def _bag_sizes(ax: Axes, data: Dataset, name: str, colouring: _Colouring) -> None:
    at = _chosen(data, name, 20_000)
    sizes = np.array([data[int(i)].shape(name)[0] for i in at])
    wide = sizes.max() > 30 * max(sizes.min(), 1)
    edges = (
        np.geomspace(max(sizes.min(), 1), sizes.max() + 1, 31)
        if wide
        else np.linspace(sizes.min(), sizes.max() + 1, 31)
    )
    groups = colouring.points(at)
    ax.hist(
        [sizes[m] for _, _, m in groups],
        bins=edges.tolist(),
        stacked=True,
        color=[c for _, c, _ in groups],
        edgecolor="white",
        linewidth=0.5,
    )
    if wide:
        ax.set_xscale("log")
        ticks = [
            t
            for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5)
            if sizes.min() <= t <= sizes.max()
        ]
        ax.set_xticks(ticks, [f"{t:,.0f}" for t in ticks])
        ax.minorticks_off()
    ax.axvline(float(np.median(sizes)), color=INK, linewidth=1, linestyle=":")
    ax.text(
        float(np.median(sizes)),
        0.97,
        f" median {np.median(sizes):,.0f}",
        transform=ax.get_xaxis_transform(),
        va="top",
        fontsize=8,
    )
    _tidy(ax, f"{name}: bag size", "rows", "samples")


def _vector(rec: ShardRecord, name: str) -> np.ndarray:
    x_D = np.asarray(rec.read(name), np.float32)
    code = MISSING_CODE.get(name)
    return np.where(x_D == code, np.nan, x_D) if code is not None else x_D


def _bag_mean(rec: ShardRecord, name: str) -> np.ndarray:
    rows = rec.shape(name)[0]
    start = max(0, (rows - MAX_ROWS) // 2)
    return rec.rows(name, start, min(rows, start + MAX_ROWS)).astype(np.float32).mean(0)


def _scatter(
    ax: Axes,
    data: Dataset,
    name: str,
    read: Callable[[ShardRecord, str], np.ndarray],
    title: str,
    colouring: _Colouring,
) -> None:
    """First two principal components of standardised features."""
    at = _chosen(data, name, MAX_SAMPLES)
    if len(at) < 3:
        _tidy(ax, f"{title}: too few samples for a plot")
        return
    x_ND = np.stack([read(data[int(i)], name) for i in at])
    if x_ND.shape[1] < 2:
        ax.hist(x_ND[:, 0], bins=30, color=COLOURS[0])
        _tidy(ax, title)
        return
    x_ND = np.where(np.isfinite(x_ND), x_ND, np.nan).astype(np.float32)
    if why := unreadable(np.nan_to_num(x_ND), fewest=3):
        _tidy(ax, f"{title}: no plot ({why})")
        return
    xy_N2, share = principal_components(x_ND)
    for _, colour, mask in colouring.points(at):
        ax.scatter(xy_N2[mask, 0], xy_N2[mask, 1], s=12, color=colour, alpha=0.75, linewidths=0.3, edgecolors="white")
    ax.set_xticks([])
    ax.set_yticks([])
    few = f", {len(at):,} samples" if len(at) < data.info.fields[name].count else ""
    _tidy(ax, f"{title} (D = {x_ND.shape[1]:,}{few})", f"PC 1, {share[0]:.0%} of the variance", f"PC 2, {share[1]:.0%}")


def principal_components(x_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores [N, 2] and shares of the variance [2], features standardised, unknown values set to the mean."""
    with np.errstate(invalid="ignore"):
        x_ND = x_ND - np.nanmean(x_ND, 0)
        x_ND = np.nan_to_num(x_ND / np.maximum(np.nanstd(x_ND, 0), 1e-6))
    u_NK, s_K, _ = np.linalg.svd(x_ND, full_matrices=False)
    # The sign of a component is arbitrary: fix it, so that the picture is the same everywhere.
    sign_2 = np.sign(u_NK[np.abs(u_NK[:, :2]).argmax(0), [0, 1]])
    return u_NK[:, :2] * s_K[:2] * sign_2, s_K[:2] ** 2 / max(float((s_K**2).sum()), 1e-30)


def _texts(ax: Axes, data: Dataset, name: str) -> None:
    at = _chosen(data, name, 2000)
    texts = [data[int(i)].read(name) for i in at]
    words = np.array([len(t.split()) for t in texts])
    shown = []
    for text in [texts[0], texts[len(texts) // 2], texts[-1]]:
        lines = textwrap.wrap(" ".join(text.split()), 52)
        shown.append("\n".join(lines[:4]) + (" ..." if len(lines) > 4 else ""))
    most = ", ".join(
        w for w, _ in Counter(w.strip(".,:;").lower() for t in texts for w in t.split() if len(w) > 4).most_common(6)
    )
    _bare(ax)
    _tidy(ax, f"{name}: {words.min()} to {words.max()} words, median {np.median(words):.0f}")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.02, 0.96, "\n\n".join(shown), va="top", fontsize=7.5, transform=ax.transAxes, linespacing=1.25)
    ax.text(0.02, 0.0, f"frequent: {most}", va="bottom", fontsize=7, color=QUIET, transform=ax.transAxes)
