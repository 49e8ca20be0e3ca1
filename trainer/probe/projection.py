"""A picture of what the encoder sees: pooled features of held-back samples in two dimensions (t-SNE), coloured by a label.

Shape letters: N samples, D width.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from models.contract import Schema
from shards.check.readable import unreadable
from trainer.build import build_method
from trainer.config.schema import Config
from trainer.data import Data
from trainer.errors import UserError
from trainer.probe.probe import features

FEWEST, MOST = 12, 2000


def label_to_show(schema: Schema) -> str | None:
    """A class label: one that is called so, else the first."""
    classes = [n for n, v in schema.labels.items() if v.kind == "class"]
    preferred = [n for n in ("label", "subtype") if n in classes]
    return next(iter(preferred + classes), None)


def project(x_ND: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton, 2008) of standardised features: [N, 2].

    Raises:
        UserError: features that have no picture: not finite, too few, all alike.
    """
    if why := unreadable(x_ND, FEWEST, distinct=3, width=2):
        raise UserError(f"no projection: {why}")
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    perplexity = min(30.0, max(2.0, (len(x_ND) - 1) / 4))
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        StandardScaler().fit_transform(x_ND)
    )


def draw(at_N2: np.ndarray, codes_N: np.ndarray, classes: tuple[str, ...], title: str) -> bytes:
    """A scatter plot as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for code, name in enumerate(classes):
        here = codes_N == code
        axes.scatter(at_N2[here, 0], at_N2[here, 1], s=12, alpha=0.8, label=f"{name} ({int(here.sum())})")
    axes.set(title=title, xticks=[], yticks=[])
    axes.legend(loc="best", fontsize="small")
    out = BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def projection(config: Config, data: Data, weights: Path) -> bytes | None:
    """The picture for a run's final weights on its validation split, made on the CPU; None where there is nothing to show.

    Raises:
        UserError: features that have no picture.
    """
    label, split, part = label_to_show(data.schema), config.data.val_split, data.datasets[0]
    samples = part.info.splits.get(split, 0) if split else 0
    if label is None or not split or not FEWEST <= samples <= MOST:
        return None
    method: Any = build_method(config, data)
    method.load_state_dict(load_file(weights), strict=True)
    try:
        found = features(method, part, [split], [label])[label]
    except UserError:
        return None  # the method has no image side, or samples lack the label
    classes = data.schema.labels[label].classes
    return draw(project(found.x_ND, config.seed), found.label_N, classes, f"{config.method_name}: {split} by {label}")
