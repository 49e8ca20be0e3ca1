"""From folders of runs to compare.md, compare.csv, index.html and a file a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.errors import UserError
from trainer.reporting import (
    bars,
    baselines,
    calibrated,
    cases,
    coverage,
    curves,
    external,
    forest,
    over_tasks,
    page,
    pictures,
    ranks,
    reliability,
    sites,
    subgroups,
    survival,
    table,
    words,
)
from trainer.reporting.collect import Running, collect
from trainer.reporting.exports import Exports
from trainer.reporting.figures import Plot, styles
from trainer.reporting.groups import Group, group
from trainer.reporting.pairs import Pair, pairs
from trainer.reporting.table import Table
from trainer.state.files import write_atomic

FILES = ("compare.md", "compare.csv", "index.html")
TITLE = "Fine-tune results"


@dataclass
class Report:
    """What the files say; plots are drawn once."""

    groups: list[Group]
    running: tuple[Running, ...]
    draws: int
    seed: int
    tested: dict[str, list[Pair]] = field(default_factory=dict)
    plots: dict[str, list[Plot]] = field(default_factory=dict)
    beside: dict[str, list[Table]] = field(default_factory=dict)
    """By group, its numbers beside those of the same weights on other data."""
    over: Table | None = None
    """Settings against each other over several tasks."""
    ranks: ranks.OverTasks = field(default_factory=ranks.OverTasks)
    coverage: list[str] = field(default_factory=list)
    """What simulation found of differences like these."""

    @property
    def pairs(self) -> list[Pair]:
        return [t for g in self.groups for t in self.tested[g.name]]


def build(paths: Sequence[Path], draws: int, seed: int, rope: float = 0.01) -> Report:
    """Reads, checks and tests everything under `paths`; `rope`: half of the region within which settings are called equivalent.

    Raises:
        UserError: nothing found, or anything found that cannot be read or does not fit together; all problems at once.
    """
    # Every number from its predictions: result.json is what a person may have edited, or moved beside other files.
    found = collect(paths, cases.recomputed)
    report = Report(group(found.results), found.running, draws, seed)
    labels = sorted({e.label for g in report.groups for e in g.entries})
    for g in report.groups:
        report.tested[g.name] = pairs(g, draws, seed)
        report.plots[g.name] = draw(g, labels, seed, report.tested[g.name])
        report.beside[g.name] = external.tables(g, report.groups)
    report.over = over_tasks.table(report.groups, draws, seed, rope)
    report.ranks = ranks.over_tasks(report.groups)
    report.coverage = coverage.notes(report.groups)
    return report


def draw(g: Group, labels: Sequence[str], seed: int, tested: Sequence[Pair]) -> list[Plot]:
    """Bars and differences for every amount and curves over amounts; what lies behind them for the largest amount."""
    style, most = styles(labels, g.entries), g.amounts[-1]
    out = [p for a in reversed(g.amounts) for p in (bars.bars(g, a, style), *forest.forests(g, a, tested))]
    out += bars.efficiency(g, style)
    if g.kind in ("binary", "multilabel"):
        curve = curves.roc(g, most, style)
        out += [curve] if curve else []
    if g.kind in ("binary", "multiclass", "multilabel", "ordinal"):
        out += reliability.reliability(g, most, style)
    if g.kind in ("binary", "multiclass", "ordinal"):
        out += curves.confusions(g, most)
    if g.kind == "survival":
        out += survival.survivals(g, most)
    return out + pictures.examples(g, most) + pictures.features(g, most, seed)


def write(report: Report, out: Path) -> list[Path]:
    """Writes the three files and the folder of tables, each file at once.

    Raises:
        UserError: `out` cannot be written.
    """
    exports = Exports()
    texts = (markdown(report), table.as_csv(report.groups, report.pairs), html(report, exports))
    try:
        out.mkdir(parents=True, exist_ok=True)
        tables = exports.write(out)
        for name, text in zip(FILES, texts, strict=True):
            write_atomic(out / name, text.encode())
            (out / name).chmod(0o644)  # a report is there to be shared
    except OSError as e:
        raise UserError(f"--out {out}: cannot be written ({e.strerror}); give another folder") from e
    return [*(out / name for name in FILES), tables]


def _tables(report: Report, g: Group) -> Iterator[Table]:
    """Of one task, in the order of reading: the largest amount of labels first."""
    for amount in reversed(g.amounts):
        yield table.main_table(g, amount, report.tested[g.name])
    yield from report.beside[g.name]
    yield from (t for a in reversed(g.amounts) for t in subgroups.tables(g, a))
    yield from (t for a in reversed(g.amounts) for t in sites.tables(g, a, report.groups))
    yield from (t for a in reversed(g.amounts) if (t := calibrated.table(g, a)))
    reference = table.published(g)
    if reference:
        yield reference
    yield from (t for a in reversed(g.amounts) if (t := table.other_metrics(g, a)))


def _about(g: Group) -> list[str]:
    """What is measured on whom; and what the words of the labels were taken for."""
    sizes = {(r.content.n.test, r.content.n.test_patients) for e in g.entries for r in e.results}
    tested = " or ".join(f"{n} test cases of {patients} patients" for n, patients in sorted(sizes))
    better = "higher" if g.higher_is_better else "lower"
    convention = g.entries[0].measured.convention.rstrip(".")
    return [
        f"{g.kind}; {g.primary}: {convention}; {better} is better; {tested}.",
        *g.entries[0].first.content.meaning,
        *baselines.missing(g),
    ]


def markdown(report: Report) -> str:
    doubts, notes = words.warnings(report.groups)
    notes += report.coverage
    lines = [f"# {TITLE}", ""]
    lines += [f"> **Warning**: {table.escaped(w)}\n" for w in doubts]
    lines += [f"{table.escaped(a)}\n" for a in words.apart(report.groups)]
    if report.running:
        lines += _md(table.still_running(report.running))
    if report.groups:
        lines += _md(table.overview(report.groups))
    if report.over:
        lines += _md(report.over)
    if report.ranks.table:
        lines += _md(report.ranks.table)
    if report.ranks.why_not:
        lines += [f"## {ranks.TITLE}", "", report.ranks.why_not, ""]
    for g in report.groups:
        lines += [f"## {table.escaped(g.name)}", "", *(f"{table.escaped(x)}\n" for x in _about(g))]
        for t in _tables(report, g):
            lines += _md(t, "###")
    lines += [
        "## How to read this",
        "",
        *(f"- {table.escaped(x)}" for x in words.how_to_read(report.groups, report.draws, report.seed)),
    ]
    lines += (
        ["", "## What the results say of themselves", "", *(f"- {table.escaped(x)}" for x in notes)] if notes else []
    )
    return "\n".join(lines) + "\n"


def _md(t: Table, level: str = "##") -> list[str]:
    return [f"{level} {table.escaped(t.title)}", "", table.markdown(t), ""]


def html(report: Report, exports: Exports | None = None) -> str:
    """`exports` is given the tables that the page links to."""
    doubts, notes = words.warnings(report.groups)
    notes += report.coverage
    kept = exports or Exports()
    first = page.listing(doubts, "warning") + page.listing(words.apart(report.groups), "note")
    sections = []
    if report.running:
        waiting = table.still_running(report.running)
        sections.append((waiting.title, page.table(waiting, kept.add(waiting.title, waiting))))
    if report.groups:
        whole = table.overview(report.groups)
        sections.append((whole.title, page.table(whole, kept.add(whole.title, whole))))
    if report.over:
        sections.append((report.over.title, page.table(report.over, kept.add(report.over.title, report.over))))
    if any(report.ranks):
        sections.append((ranks.TITLE, _ranks(report.ranks, kept)))
    for g in report.groups:
        others = [t for a in reversed(g.amounts) if (t := table.other_metrics(g, a))]
        main = [t for t in _tables(report, g) if t not in others]
        body = page.listing(_about(g), "note") + "".join(
            f"<h3>{page.escape(t.title)}</h3>{page.table(t, kept.add(g.name, t))}" for t in main
        )
        body += page.plots(report.plots[g.name])
        body += "".join(page.folded(t.title, page.table(t, kept.add(g.name, t))) for t in others)
        sections.append((g.name, body))
    sections.append(
        ("How to read this", page.listing(words.how_to_read(report.groups, report.draws, report.seed), "note"))
    )
    if notes:
        sections.append(("What the results say of themselves", page.listing(notes, "note")))
    return page.page(TITLE, sections, first)


def _ranks(found: ranks.OverTasks, kept: Exports) -> str:
    said = page.listing([found.why_not] if found.why_not else [], "note")
    said += page.table(found.table, kept.add(ranks.TITLE, found.table)) if found.table else ""
    return said + page.plots([found.plot] if found.plot else [])
