"""Example masks over images, and features in two dimensions.

Shape letters: H height, W width, C channels, N cases, D width of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shards.check.readable import unreadable
from trainer.errors import UserError
from trainer.reporting.cases import MEND
from trainer.reporting.curves import chosen
from trainer.reporting.figures import COLOURS, Plot, canvas, plain, png
from trainer.reporting.groups import Amount, Entry, Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEATURES = "features.npz"
MOST_PANELS, MOST_EXAMPLES = 4, 4
MOST_POINTS, FEWEST_POINTS = 2000, 12
MOST_CLASSES = 12  # distinct labels; more, or broken numbers, are shown on a scale
TRUTH, PREDICTED = "#00e5ff", "#ff2fd6"


def arrays(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Raises: UserError: missing, damaged, or without one of the arrays."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [stored[n] for n in names]
    except Exception as e:  # a damaged archive fails in many ways
        raise UserError(f"{path}: cannot read {', '.join(names)} from it ({type(e).__name__}: {e}); {MEND}") from e


# ------------------------------------------------------------------------------------------------------------------- masks


def examples(group: Group, amount: Amount) -> list[Plot]:
    """Truth and prediction as outlines on the same cases, a plot a setting."""
    return [_examples(e, amount) for e in chosen(group, amount, MOST_PANELS) if e.first.content.examples]


def _examples(e: Entry, amount: Amount) -> Plot:
    cases = [_case(e.first.folder / name) for name in e.first.content.examples[:MOST_EXAMPLES]]
    titles = ("image", *cases[0].titles)
    with canvas(1.75 * len(cases)) as figure:
        grid = figure.subplots(len(cases), len(titles), squeeze=False)
        for row, case in zip(grid, cases, strict=True):
            _example(row, case)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(plain(title), fontsize=9)
        uri = png(figure)
    caption = f"Seed {e.first.content.seeds[0]}. Cyan: true outline, magenta: predicted; empty where a mask is empty."
    return Plot(f"Examples, {e.name}, {amount.name}", caption, uri)


class _Case(NamedTuple):
    """An image and, for each title, the outlines to draw on it: (mask, colour)."""

    name: str
    image_HWC: np.ndarray
    titles: tuple[str, ...]
    outlines: tuple[tuple[tuple[np.ndarray, str], ...], ...]


def _case(path: Path) -> _Case:
    """One structure: its truth, then both outlines; of several structures both outlines of each."""
    several = _several(path)
    own = ("truth_KHW", "predicted_KHW") if several else ("truth_HW", "predicted_HW")
    image_HWC, truth, predicted = arrays(path, ("image_HWC", *own))
    if image_HWC.ndim != 3 or truth.shape[-2:] != image_HWC.shape[:2] or predicted.shape != truth.shape:
        found = f"image {image_HWC.shape}, truth {truth.shape}, predicted {predicted.shape}"
        raise UserError(f"{path}: image and masks differ in size ({found}); {MEND}")
    if not several:
        return _Case(
            path.stem, image_HWC, ("true", "predicted"), (((truth, TRUTH),), ((truth, TRUTH), (predicted, PREDICTED)))
        )
    (names,) = arrays(path, ("names",))
    both = tuple(((t, TRUTH), (p, PREDICTED)) for t, p in zip(truth, predicted, strict=True))
    return _Case(path.stem, image_HWC, tuple(names.tolist()), both)


def _several(path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return "names" in stored.files
    except Exception:  # whoever reads the arrays says what is wrong
        return False


def _example(row: Sequence[Axes], case: _Case) -> None:
    image_HWC, shape = case.image_HWC, case.image_HWC.shape[:2]
    image = np.repeat(image_HWC[..., :1], 3, 2) if image_HWC.shape[2] < 3 else image_HWC[..., :3]
    for axes, outlines in zip(row, ((), *case.outlines), strict=True):
        axes.imshow(image, interpolation="nearest")
        for mask_HW, colour in outlines:
            if (mask_HW > 0).any():
                # A border of nothing closes the outline of a mask that touches the image's edge.
                axes.contour(
                    np.arange(-1, shape[1] + 1),
                    np.arange(-1, shape[0] + 1),
                    np.pad(mask_HW > 0, 1),
                    [0.5],
                    colors=colour,
                    linewidths=1.2,
                )
        axes.set(xticks=[], yticks=[], xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
    row[0].set_ylabel(plain(case.name[:24]), fontsize=7)


# ---------------------------------------------------------------------------------------------------------------- features


def features(group: Group, amount: Amount, seed: int) -> list[Plot]:
    """t-SNE of features.npz (x_ND, label_N), where it lies beside a result."""
    shown = [e for e in chosen(group, amount, len(group.entries)) if (e.first.folder / FEATURES).is_file()]
    plots = (_features(e, amount, seed) for e in shown[:MOST_PANELS])
    return [p for p in plots if p is not None]


def _features(e: Entry, amount: Amount, seed: int) -> Plot | None:
    from trainer.probe.projection import project

    path = e.first.folder / FEATURES
    x_ND, label_N = arrays(path, ("x_ND", "label_N"))
    if x_ND.ndim != 2 or label_N.shape != (len(x_ND),) or not np.isfinite(x_ND).all():
        raise UserError(
            f"{path}: x_ND {x_ND.shape} and label_N {label_N.shape} are not finite features with a label each; {MEND}"
        )
    if len(x_ND) < FEWEST_POINTS:
        return None
    if why := unreadable(x_ND, FEWEST_POINTS, distinct=3, width=2):
        return _not_drawn(e, amount, why)
    kept_N = np.sort(np.random.default_rng(seed).permutation(len(x_ND))[:MOST_POINTS])
    at_N2, label_N = project(x_ND[kept_N].astype(np.float32), seed), label_N[kept_N]
    with canvas(4.2) as figure:
        axes = figure.add_subplot()
        _scatter(figure, axes, at_N2, label_N, e)
        axes.set(xticks=[], yticks=[])
        uri = png(figure)
    some = f"{len(kept_N)} of {len(x_ND)} cases" if len(kept_N) < len(x_ND) else f"{len(x_ND)} cases"
    return Plot(
        f"Features, {e.name}, {amount.name}",
        f"t-SNE of {some}, coloured by the label; distances between clusters mean little.",
        uri,
    )


def _not_drawn(e: Entry, amount: Amount, why: str) -> Plot:
    with canvas(1.0) as figure:
        figure.text(0.5, 0.5, plain(f"not drawn: {why}"), ha="center", fontsize=8)
        uri = png(figure)
    return Plot(f"Features, {e.name}, {amount.name}", f"No picture of these features: {why}.", uri)


def _scatter(figure: Figure, axes: Axes, at_N2: np.ndarray, label_N: np.ndarray, e: Entry) -> None:
    numeric = label_N.dtype.kind in "fiu"
    known_N = ~np.isnan(label_N.astype(float)) if numeric else np.ones(len(label_N), bool)
    values = np.unique(label_N[known_N])
    axes.scatter(at_N2[~known_N, 0], at_N2[~known_N, 1], s=8, color="#cccccc")
    if numeric and (len(values) > MOST_CLASSES or (values != np.round(values)).any()):
        points = axes.scatter(at_N2[known_N, 0], at_N2[known_N, 1], s=8, c=label_N[known_N], cmap="viridis")
        figure.colorbar(points, ax=axes, shrink=0.7)
        return
    for i, value in enumerate(values[: 2 * MOST_CLASSES]):
        here_N = label_N == value
        name = _class_name(value, e) if numeric else str(value)
        axes.scatter(
            at_N2[here_N, 0],
            at_N2[here_N, 1],
            s=10,
            alpha=0.8,
            color=COLOURS[i % len(COLOURS)],
            marker="o^sD"[i // len(COLOURS) % 4],
            label=plain(f"{name} ({int(here_N.sum())})"),
        )
    figure.legend(loc="outside lower left", fontsize=8, frameon=False, ncols=2)


def _class_name(code: float, e: Entry) -> str:
    from trainer.reporting import cases

    classes = cases.predictions(e.results)[0].classes
    return classes[int(code)] if 0 <= code < len(classes) else f"{code:g}"
