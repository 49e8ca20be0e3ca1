"""View positions of chest films, and which film of a study comes first: PA, AP, frontal, lateral, another, not known; of equals as listed.

Words of positions are those of MIMIC-CXR-JPG's metadata (`ViewPosition`: PA, AP, LATERAL, LL, `AP AXIAL`, ...), of CheXpert (`AP/PA`, and
`Frontal/Lateral` where that is blank) and of IU's projections (Frontal, Lateral). The rule is ours: published code draws views at random.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import DataError, bad
from shards.sources._cxr_layouts import Film, columns_named, joined_lines, lists_reports
from shards.tables.cells import plain
from shards.tables.identity import sample
from shards.tables.keyed import Rows, keyed, no_column, read_rows
from shards.tables.unknown import words_of

VIEW_COLUMNS = ("viewposition", "view_position", "ap_pa", "frontal_lateral", "view", "projection")
RANKS = ("PA", "AP", "frontal", "lateral", "another", "not known")
_WORDS = {
    "PA": ("pa", "postero_anterior", "posteroanterior", "pa_erect", "chest_pa"),
    "AP": ("ap", "antero_posterior", "anteroposterior", "ap_erect", "ap_supine", "ap_semi_erect", "chest_ap"),
    "frontal": ("frontal",),
    "lateral": ("lateral", "lat", "ll", "rl", "l", "left_lateral", "right_lateral", "xtable_lateral"),
    "another": (
        "ap_axial", "ap_lld", "ap_rld", "pa_lld", "pa_rld", "lao", "rao", "lpo", "rpo", "oblique", "swimmers", "decubitus", "lordotic",
        "ap_lordotic",
    ),
}  # fmt: skip
POSITIONS = {word: name for name, words in _WORDS.items() for word in words}
BY_POSITION, AS_LISTED = "position", "listed"
RULE = f"{', '.join(RANKS)}; of equal ones as listed"
HOW = "name it with --view-column, or give MIMIC's metadata as --views mimic-cxr-2.0.0-metadata.csv.gz"


def view_options(parser: argparse.ArgumentParser) -> None:
    """What `--per study` asks besides the study."""
    parser.add_argument("--view-column", help=f"view positions, for --per study (default: {', '.join(VIEW_COLUMNS)})")
    parser.add_argument("--views", type=Path, help="MIMIC's metadata (dicom_id, ViewPosition), for --per study")
    parser.add_argument(
        "--view-order",
        choices=(BY_POSITION, AS_LISTED),
        help=f"which image of a study comes first: by position ({RULE}; the default), or as the table lists them",
    )


@dataclass(frozen=True)
class Views:
    """Of each film its place in the order (less is earlier), its position's name, and lines on where they are from."""

    order: list[tuple[int, int]]
    names: list[str]
    notes: list[str]


def views_of(args: argparse.Namespace, rows: Rows, image_column: str | None, films: Sequence[Film]) -> Views:
    """The view of every film.

    Raises:
        DataError: no column of views and no order in place of it; a column that holds no view position.
    """
    reports = image_column is not None and lists_reports(rows, image_column)
    if args.view_order == AS_LISTED:
        if reports:
            what = "lists reports, so nothing but names of files gives its images an order"
            fix = "give --view-order position --views mimic-cxr-2.0.0-metadata.csv.gz"
            raise bad(what, args.csv, fix)
        return Views([(0, i) for i in range(len(films))], [], ["views: as the table lists them"])
    cells, lines, where = _joined(args, films) if args.views else _columns(args, rows, films)
    names = [_position(c) for c in cells]
    if not set(names) - set(RANKS[4:]):
        seen = [c for c in dict.fromkeys(cells) if c]
        what = f"no cell is a view position (it holds {', '.join(map(repr, seen[:3])) or 'blanks alone'})"
        raise bad(what, where, f"{HOW}; to take the images of a study as the table lists them: --view-order listed")
    # A list of reports has no line a film: of equal views the table of views tells which comes first.
    ties = lines if reports else range(len(films))
    order = [(RANKS.index(n), tie) for n, tie in zip(names, ties, strict=True)]
    counts = Counter(names)
    notes = [f"views from {where}: {', '.join(f'{counts[n]} {n}' for n in RANKS if counts[n])}"]
    notes += _strange(cells)
    return Views(order, names, [*notes, f"  first in a study: {RULE}"])


def _position(cell: str) -> str:
    return POSITIONS.get(plain(cell), RANKS[4]) if cell else RANKS[5]


def _strange(cells: Sequence[str]) -> list[str]:
    """A line on words that the rule does not know, with their counts."""
    strange = Counter(c for c in cells if c and plain(c) not in POSITIONS)
    shown = ", ".join(f"{n} x '{c}'" for c, n in strange.most_common(5))
    return [f"  no view position by that name, so taken as another: {shown}"] if strange else []


def _joined(args: argparse.Namespace, films: Sequence[Film]) -> tuple[list[str], list[int], str]:
    """Cells, lines and name of MIMIC-CXR's table of metadata."""
    fix = "give MIMIC's metadata as --views mimic-cxr-2.0.0-metadata.csv.gz"
    rows, unknown = read_rows(args.views, ("dicom_id", "ViewPosition"), fix), words_of(args)
    of_image = keyed(rows, lambda row: sample(row["dicom_id"]), "image")
    joined_lines("--views", args.views, [f.image for f in films], of_image, sample)
    found = [of_image.get(f.image) for f in films]
    cells = ["" if r is None or unknown(r["ViewPosition"]) else r["ViewPosition"] for r in found]
    return cells, [len(rows) if r is None else r.line for r in found], f"'ViewPosition' of {args.views.name}"


def _columns(args: argparse.Namespace, rows: Rows, films: Sequence[Film]) -> tuple[list[str], list[int], str]:
    """Of each film the first cell of the columns of views that is filled; its line; their names."""
    if args.view_column is not None and args.view_column not in rows.columns:
        raise DataError(no_column([args.view_column], "--view-column", args.csv, rows.columns))
    names = [args.view_column] if args.view_column else list(columns_named(rows.columns, VIEW_COLUMNS))
    if not names:
        what = "no column with the view positions of the images, which tell the first of a study"
        raise bad(
            what,
            args.csv,
            f"{HOW}; to take the images of a study as the table lists them: --view-order listed; columns: {', '.join(rows.columns)}",
        )
    unknown = words_of(args)
    cells = [next((f.row[n] for n in names if not unknown(f.row[n])), "") for f in films]
    return cells, [f.row.line for f in films], f"{args.csv.name}, {', then '.join(map(repr, names))}"
