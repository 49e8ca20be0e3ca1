"""The report as one HTML file that fetches nothing: no script, no link out, images inside. Readable on a phone, dark text on white."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from trainer.reporting.figures import Plot
from trainer.reporting.table import Table

# The policy makes a browser refuse what should not be there in the first place.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
ONE_LINE = 44  # characters
STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; padding: 0 1rem 4rem; max-width: 76rem;
  overflow-wrap: anywhere }
h1 { font-size: 1.6rem } h2 { font-size: 1.3rem; margin-top: 2.5rem; border-top: 2px solid #1a1a1a; padding-top: .5rem }
h3 { font-size: 1.05rem }
a { color: #00508a }
.scroll { overflow-x: auto; margin: .5rem 0 1rem }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #bbb; min-width: 3.5rem; max-width: 22rem;
  overflow-wrap: normal }
.short { white-space: nowrap }
th { border-bottom: 2px solid #1a1a1a }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; min-width: 7.5rem; max-width: 11rem;
  overflow-wrap: anywhere }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start }
figure { margin: 0; flex: 0 1 27rem; min-width: 0 }
figure img { width: 100%; height: auto } figcaption { font-size: .85rem; color: #333 }
.warning { border-left: 6px solid #b00020; background: #fdecee; padding: .6rem 1rem; margin: 1rem 0 }
.note { border-left: 6px solid #777; background: #f3f3f3; padding: .6rem 1rem; margin: 1rem 0; font-size: .92rem }
"""


def table(t: Table) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in t.head)
    body = "".join(
        "<tr>" + "".join(_cell(c, j, (i, j) in t.bold) for j, c in enumerate(row)) + "</tr>\n"
        for i, row in enumerate(t.rows)
    )
    note = f"<p>{escape(t.note)}</p>" if t.note else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>{note}'


def _cell(text: str, column: int, bold: bool) -> str:
    """Numbers stay on one line; names in the first column and sentences wrap."""
    short = ' class="short"' if column and len(text) <= ONE_LINE else ""
    return f"<td{short}>{f'<strong>{escape(text)}</strong>' if bold else escape(text)}</td>"


def plots(drawn: Sequence[Plot]) -> str:
    return '<div class="plots">' + "\n".join(map(_plot, drawn)) + "</div>" if drawn else ""


def _plot(p: Plot) -> str:
    title = escape(p.title)
    return f'<figure><h3>{title}</h3><img alt="{title}" src="{p.uri}"><figcaption>{escape(p.caption)}</figcaption></figure>'


def listing(lines: Sequence[str], style: str) -> str:
    return f'<div class="{style}">' + "".join(f"<p>{escape(x)}</p>" for x in lines) + "</div>" if lines else ""


def folded(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inside}</details>" if inside else ""


def page(title: str, sections: Sequence[tuple[str, str]], first: str) -> str:
    """`sections` are (heading, HTML); `first` stands above the table of contents."""
    contents = " · ".join(f'<a href="#s{i}">{escape(name)}</a>' for i, (name, _) in enumerate(sections))
    body = "\n".join(f'<h2 id="s{i}">{escape(name)}</h2>\n{html}' for i, (name, html) in enumerate(sections))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{first}\n<p>{contents}</p>\n{body}\n</body></html>\n"
    )
