"""The report as one HTML file that fetches nothing: images and its one script inside. Readable on a phone, dark text on white."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from trainer.reporting.exports import FOLDER, KINDS
from trainer.reporting.figures import Plot
from trainer.reporting.script import ALLOWED, SCRIPT
from trainer.reporting.table import Table

# The policy makes a browser refuse what should not be there in the first place.
POLICY = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {ALLOWED}"
ONE_LINE = 44  # characters
STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; padding: 0 1rem 4rem; max-width: 76rem;
  overflow-wrap: anywhere }
h1 { font-size: 1.6rem } h2 { font-size: 1.3rem; margin-top: 2.5rem; border-top: 2px solid #1a1a1a; padding-top: .5rem }
h3 { font-size: 1.05rem }
a { color: #00508a }
.scroll { overflow: auto; max-height: 85vh; margin: .5rem 0 .3rem }
table { border-collapse: separate; border-spacing: 0; font-size: 14px; line-height: 21px; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: 5px 10px; border-bottom: 1px solid #bbb; min-width: 3.5rem; max-width: 22rem;
  overflow-wrap: normal }
.short { white-space: nowrap } .long { min-width: 15rem }
th { border-bottom: 2px solid #1a1a1a; position: sticky; top: 0; background: #fff; z-index: 1 }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; min-width: 7.5rem; max-width: min(11rem, 40vw);
  overflow-wrap: anywhere }
th:first-child { z-index: 2 }
th button { font: inherit; color: inherit; text-align: left; background: none; border: 0; padding: 0; cursor: pointer }
th button::after { content: " \\2195"; color: #777 }
th[aria-sort=ascending] button::after { content: " \\2191"; color: inherit }
th[aria-sort=descending] button::after { content: " \\2193"; color: inherit }
tbody tr:hover td { background: #f3f3f3 }
.filter { margin: .5rem 0 } .filter input { font: inherit; max-width: 100%; padding: .2rem .4rem } .filter output { color: #333 }
.files { font-size: .85rem; margin: 0 0 1rem }
@media print { .scroll { max-height: none } .filter, .files { display: none } }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start }
figure { margin: 0; flex: 0 1 27rem; min-width: 0 }
figure img { width: 100%; height: auto } figcaption { font-size: .85rem; color: #333 }
.warning { border-left: 6px solid #b00020; background: #fdecee; padding: .6rem 1rem; margin: 1rem 0 }
.note { border-left: 6px solid #777; background: #f3f3f3; padding: .6rem 1rem; margin: 1rem 0; font-size: .92rem }
"""


def table(t: Table, name: str = "") -> str:
    """`name`: of the table's files beside the page, without folder and ending; "" where there are none."""
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in t.head)
    body = "".join(
        "<tr>" + "".join(_cell(c, j, (i, j) in t.bold) for j, c in enumerate(row)) + "</tr>\n"
        for i, row in enumerate(t.rows)
    )
    note = f"<p>{escape(t.note)}</p>" if t.note else ""
    title = escape(t.title)
    return (
        f'<div class="scroll" tabindex="0"><table aria-label="{title}"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>'
        f"</div>{_files(name)}{note}"
    )


def _files(name: str) -> str:
    links = ", ".join(f'<a href="{FOLDER}/{escape(name)}.{ending}">{kind}</a>' for ending, kind in KINDS)
    return f'<p class="files">This table as {links}</p>' if name else ""


def _cell(text: str, column: int, bold: bool) -> str:
    """Numbers stay on one line; names in the first column and sentences wrap."""
    width = f' class="{"short" if len(text) <= ONE_LINE else "long"}"' if column else ""
    return f"<td{width}>{f'<strong>{escape(text)}</strong>' if bold else escape(text)}</td>"


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
        f"<body><h1>{escape(title)}</h1>\n{first}\n<p>{contents}</p>\n{body}\n<script>{SCRIPT}</script></body></html>\n"
    )
