"""The tables of a report as rows of cells, and their writing as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.reporting import words
from trainer.reporting.collect import Running
from trainer.reporting.groups import Amount, Entry, Group
from trainer.reporting.pairs import BEST, CONTROLLED, SCRATCH, Pair


@dataclass(frozen=True)
class Table:
    """Cells as plain text; `bold` holds (row, column) of those that stand out."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: frozenset[tuple[int, int]] = frozenset()
    note: str = ""


def overview(groups: Sequence[Group]) -> Table:
    """Settings x (task, amount): value and interval of each task's primary metric."""
    columns = [(g, a) for g in groups for a in g.amounts]
    labels = list(dict.fromkeys(e.label for g in groups for e in g.entries))
    rows, bold = [], set()
    for i, label in enumerate(labels):
        row = [label]
        for j, (g, a) in enumerate(columns):
            here = [e for e in g.at(a) if e.label == label]
            row.append("; ".join(_short(e) for e in here) or words.NONE)
            if g.best(a) in here:
                bold.add((i, j + 1))
        rows.append(tuple(row))
    head = (
        "",
        *(f"{g.name}, {a.name}: {g.primary}{'' if g.higher_is_better else ' (lower is better)'}" for g, a in columns),
    )
    return Table("All tasks", head, tuple(rows), frozenset(bold))


def _short(e: Entry) -> str:
    return f"{words.number(e.measured.value)} ({words.sure(e.measured)}){e.marks}"


def main_table(group: Group, amount: Amount, tested: Sequence[Pair]) -> Table:
    """Everything about the primary metric of one task at one amount, the best first."""
    entries, best = group.at(amount), group.best(amount)
    found = {(id(t.entry), t.against): t for t in tested}
    controls = any(e.setting.control for e in entries)
    counted = any(e.measured.k for e in entries)
    head = ["", group.primary, "interval", "spread", *(["k/n"] if counted else []), "against best", "against scratch"]
    head += [
        *(["against no control"] if controls else []),
        "repeats",
        "test",
        "train",
        "chosen among",
        "mode",
        "start",
        "inputs",
    ]
    rows = []
    for e in entries:
        s, m = e.setting, e.measured
        row = [e.name, words.number(m.value), words.sure(m), words.number(m.spread)]
        row += [words.count(m)] if counted else []
        row += [_against(e, best, found.get((id(e), BEST))), words.pair(found.get((id(e), SCRATCH)))]
        row += [words.pair(found.get((id(e), CONTROLLED)))] if controls else []
        row += [
            e.repeats,
            words.cases(e),
            words.trained_on(e),
            words.chosen_among(e),
            s.mode,
            s.start,
            "+".join(s.inputs),
        ]
        row[-1] += f" ({s.control})" if s.control else ""
        rows.append(tuple(row))
    bold = frozenset((i, 1) for i, e in enumerate(entries) if best is not None and e.eligible and _ties(e, best))
    problems = dict.fromkeys(
        f"{t.entry.name} against {t.against}: {t.problem}" for t in tested if t.problem and t.entry in entries
    )
    return Table(
        f"{amount.name} of the labels" if not amount.shots else f"{amount.shots} cases a class",
        tuple(head),
        tuple(rows),
        bold,
        " ".join(problems),
    )


def _against(e: Entry, best: Entry | None, t: Pair | None) -> str:
    if e.constant and not e.leaking:
        return "not ranked"
    if e.too_few and not (t and t.problem):
        return "not ranked: too few"
    return "not compared" if e.leaking else "best" if e is best else words.pair(t)


def _ties(e: Entry, best: Entry) -> bool:
    return e.measured.value == best.measured.value


def other_metrics(group: Group, amount: Amount) -> Table | None:
    """The metrics beside the primary one; None where there are none."""
    entries = group.at(amount)
    names = [n for n in dict.fromkeys(n for e in entries for n in e.metrics) if n != group.primary]
    if not names:
        return None
    best = {n: group.best(amount, n) for n in names}
    rows, bold = [], set()
    for i, e in enumerate(entries):
        row = [e.name]
        for j, n in enumerate(names):
            m = e.metrics.get(n)
            text = (
                words.NONE
                if m is None
                else f"{words.number(m.value)} ({words.sure(m)})" + " [CONSTANT]" * m.never_left_one_answer
            )
            row.append(text + (f", {words.count(m)}" if m and m.k else ""))
            if best[n] is e:
                bold.add((i, j + 1))
        rows.append(tuple(row))
    return Table(f"Other metrics, {amount.name}", ("", *names), tuple(rows), frozenset(bold))


def published(group: Group) -> Table | None:
    """Numbers of papers beside our best at the largest amount, with what was measured on; differences are not tested."""
    if not group.references:
        return None
    amount = group.amounts[-1]
    rows = []
    for r in group.references:
        ours = group.best(amount, r.metric)
        if ours is None:
            rows.append(
                (r.system, r.metric, words.number(r.value), "not measured", words.NONE, words.NONE, r.data, words.NONE)
            )
            continue
        m, n = ours.metrics[r.metric], ours.first.content.n
        data = f"{n.test_patients} test patients ({n.test} cases), {words.trained_on(ours)} trained on"
        cells = (words.number(m.value), words.sure(m), words.number(m.value - r.value, True))
        rows.append((r.system, r.metric, words.number(r.value), f"{ours.label}: {cells[0]}", *cells[1:], r.data, data))
    head = (
        "system",
        "metric",
        "published",
        "our best",
        "our interval",
        "ours minus published",
        "their data",
        "our data",
    )
    note = "Other patients, splits and sizes: a difference here says little about the methods."
    return Table(f"Published numbers beside ours, {amount.name}", head, tuple(rows), note=note)


def still_running(running: Sequence[Running]) -> Table:
    rows = tuple((str(r.folder), r.task, r.method, r.last_wrote) for r in running)
    return Table("No result yet (running, or stopped)", ("folder", "task", "method", "last wrote"), rows)


# ----------------------------------------------------------------------------------------------------------------- writing


def markdown(t: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escaped(c) for c in cells) + " |"

    def strong(i: int, row: Sequence[str]) -> list[str]:
        return [f"**{c}**" if (i, j) in t.bold else c for j, c in enumerate(row)]

    lines = [line(t.head), "|" + "---|" * len(t.head), *(line(strong(i, r)) for i, r in enumerate(t.rows))]
    return "\n".join(lines + (["", escaped(t.note)] if t.note else []))


def escaped(text: str) -> str:
    """No cell ends its row, and no name is taken for markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace(" *", " \\*")


COLUMNS = (
    "task", "group", "kind", "method", "mode", "init", "init_path", "init_sha256", "inputs", "control", "fraction", "shots", "draws",
    "seeds", "metric", "primary", "convention", "higher_is_better", "value", "low", "high", "interval_by", "constant", "level",
    "spread", "per_seed", "k", "n", "train", "val", "test", "test_patients", "leak_checked", "leak_shared", "best",
    "best_difference", "best_low", "best_high", "best_p", "best_p_holm", "scratch_difference", "scratch_low", "scratch_high",
    "scratch_p", "scratch_p_holm", "data_hash", "folders", "external", "best_false_claim", "best_by", "scratch_false_claim",
    "scratch_by",
)  # fmt: skip


def as_csv(groups: Sequence[Group], tested: Sequence[Pair]) -> str:
    """A line a setting, amount and metric; full precision; comparisons stand at the primary metric."""
    found = {(id(t.entry), t.against): t for t in tested}
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for g in groups:
        for e in (e for a in g.amounts for e in g.at(a)):
            for name in e.metrics:
                row = _csv_row(g, e, name)
                if name == g.primary:
                    for against in (BEST, SCRATCH):
                        row |= _csv_pair(against, found.get((id(e), against)))
                writer.writerow(row)
    return out.getvalue()


def _csv_row(g: Group, e: Entry, name: str) -> dict[str, object]:
    c, m = e.first.content, e.metrics[name]
    low, high = m.interval or (None, None)
    return {
        "task": c.task, "group": g.name, "kind": c.kind, "method": c.method, "mode": c.mode, "init": c.init.kind,
        "init_path": c.init.path, "init_sha256": c.init.sha256, "inputs": "+".join(c.inputs), "control": c.control,
        "fraction": e.amount.fraction, "shots": e.amount.shots or None, "draws": len(e.results), "seeds": " ".join(map(str, c.seeds)),
        "metric": name, "primary": int(name == g.primary), "convention": m.convention,
        "higher_is_better": int(m.higher_is_better), "value": m.value, "low": low, "high": high,
        "interval_by": m.interval_by, "constant": " ".join(str(int(c)) for c in m.constant or ()), "level": m.level, "spread": m.spread,
        "per_seed": " ".join(map(str, m.per_seed)), "k": " ".join(map(str, m.k or ())), "n": m.n, "train": words.trained_on(e),
        "val": c.n.val, "test": c.n.test, "test_patients": c.n.test_patients, "leak_checked": int(c.leak.checked),
        "leak_shared": c.leak.shared, "best": int(g.best(e.amount, name) is e), "data_hash": c.hashes.data,
        "folders": " ".join(str(r.folder) for r in e.results), "external": g.external,
    }  # fmt: skip


def _csv_pair(against: str, t: Pair | None) -> dict[str, object]:
    if t is None or t.problem:
        return {}
    low, high = t.interval
    names = ("difference", "low", "high", "p", "p_holm", "false_claim", "by")
    values = (t.difference, low, high, t.p, t.p_holm, t.false_claim, t.by)
    return {f"{against}_{k}": v for k, v in zip(names, values, strict=True)}
