"""What all plots of a report share: size, colours, and becoming an image inside the page (a data URI, nothing to fetch)."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trainer.reporting.groups import Entry

# Inches; 4.6 at 9 points stays readable when a phone shows it 360 pixels wide.
WIDTH = 4.6
INK = "#1a1a1a"
SETTINGS: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "medpair",  # the same results give the same bytes
    "svg.fonttype": "path",
}
# Okabe and Ito's palette, told apart with any colour vision, without its pale yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5f5f5f", "#8c510a")
# Of settings that share a colour, since there are more of them than colours.
MARKERS = "os^DvPX*"


@dataclass(frozen=True)
class Plot:
    title: str
    caption: str
    uri: str


@contextmanager
def canvas(height: float, width: float = WIDTH) -> Iterator[Figure]:
    """A figure drawn without any window system, in the report's style."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        yield figure


def svg(figure: Figure) -> str:
    return _uri(figure, "svg", "image/svg+xml", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})


def png(figure: Figure) -> str:
    """For pictures and clouds of points, where a drawing would be larger."""
    return _uri(figure, "png", "image/png", dpi=150, metadata={"Software": None})


def _uri(figure: Figure, form: str, mime: str, **options: Any) -> str:
    out = io.BytesIO()
    figure.savefig(out, format=form, **options)
    return f"data:{mime};base64,{base64.b64encode(out.getvalue()).decode()}"


def styles(labels: Sequence[str], entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of every setting by its label: dashed from scratch, dotted a control."""
    order = {label: i for i, label in enumerate(labels)}
    out = {}
    for e in entries:
        line = ":" if e.setting.control else "--" if e.setting.scratch else "-"
        again, colour = divmod(order[e.label], len(COLOURS))
        out[e.label] = {"color": COLOURS[colour], "linestyle": line, "marker": MARKERS[again % len(MARKERS)]}
    return out


def unmarked(style: dict[str, Any]) -> dict[str, Any]:
    return {**style, "marker": ""}


def plain(text: str) -> str:
    """A name as it is: a dollar sign does not start mathematics."""
    return text.replace("$", r"\$")
