"""A report over twenty systems, three tasks and three amounts of labels: its tables as files, and its page in a browser."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.compare import main
from tests.launch import chromium
from tests.launch.test_compare import Page
from tests.trainer.reporting.runs import SCRATCH, write
from trainer.reporting.exports import Exports, as_csv, as_latex
from trainer.reporting.script import FEWEST_ROWS
from trainer.reporting.table import Table

SYSTEMS, AMOUNTS, TASKS = 20, (0.01, 0.1, 1.0), 3


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("twenty")
    for t in range(TASKS):
        for i in range(SYSTEMS):
            words: dict[str, Any] = {"method": f"system_{i // 2}", "task": f"task_{t}", **(SCRATCH if i % 2 else {})}
            for a in AMOUNTS:
                skill = 0.1 + 0.1 * i * a**0.2
                write(root / f"runs/{t}-{i}-{a}", "regression", skill, (0,), 40, cohort=t, fraction=a, **words)
    assert main([str(root / "runs"), "--out", str(root / "report"), "--draws", "100"]) == 0
    return root / "report"


# ------------------------------------------------------------------------------------------------------------------- files


def test_each_table_has_its_files_with_the_same_cells(report: Path) -> None:
    text = (report / "index.html").read_text()
    links = re.findall(r'<a href="(tables/[^"]+)">', text)
    files = sorted(str(p.relative_to(report)) for p in (report / "tables").iterdir())
    assert sorted(links) == files
    assert len(links) == 2 * text.count("<table ")
    with open(report / next(f for f in links if f.endswith("task-0-100-of-the-labels.csv")), newline="") as f:
        head, *rows = list(csv.reader(f))
    assert len(rows) == SYSTEMS
    assert {len(r) for r in rows} == {len(head)}
    page = "".join(Page(text).texts)
    assert all(c in page for r in rows for c in r)
    latex = (report / next(f for f in links if f.endswith("task-0-100-of-the-labels.tex"))).read_text()
    lines = [x for x in latex.splitlines() if x.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", x)) for x in lines} == {len(head) - 1}
    assert len(lines) == SYSTEMS + 1
    assert latex.count(r"\textbf{") == 1


def test_three_tasks_are_too_few_for_ranks_and_it_is_said(report: Path) -> None:
    assert f"here {SYSTEMS} settings are ranked on {TASKS} tasks together" in (report / "compare.md").read_text()
    titles = [v for t, k, v in Page((report / "index.html").read_text()).attributes if (t, k) == ("img", "alt")]
    assert not [t for t in titles if t.startswith("Critical")]
    for start, times in (("Differences from the best", 9), ("Differences from scratch", 9), ("Label eff", 3)):
        assert sum(t.startswith(start) for t in titles) == times, start


def test_tables_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    for name in ("07-all-tasks.csv", "notes.csv", "7-mine.tex"):
        (tmp_path / "tables" / name).write_text("old")
    exports = Exports()
    assert exports.add("A / task", Table("All", ("",), ())) == "01-a-task-all"
    exports.write(tmp_path)
    left = sorted(p.name for p in (tmp_path / "tables").iterdir())
    assert left == ["01-a-task-all.csv", "01-a-task-all.tex", "7-mine.tex", "notes.csv"]


def test_names_harm_neither_a_spreadsheet_nor_latex() -> None:
    names = (
        "=1+1",
        "@SUM(1)",
        "-2+cmd|' /C x'!A0",
        "+0.012 (-0.010 to +0.034), p .300",
        "-0.5",
        r"\input{x} % & _ # $",
    )
    t = Table("T%\n\\input{y}", ("", "difference"), tuple((n, "+0.5") for n in names), note="a\n\\b")
    cells = [row[0] for row in csv.reader(as_csv(t).splitlines())][1:]
    assert cells == [f"'{n}" for n in names[:3]] + list(names[3:])
    latex = as_latex(t).splitlines()
    assert latex[0] == r"% T% \input{y}"
    assert r"\textbackslash{}input\{x\} \% \& \_ \# \$ & +0.5 \\" in latex
    assert not [x for x in latex if x.startswith(r"\input")]


# ----------------------------------------------------------------------------------------------------------------- browser


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    chromium.needed()
    with chromium.browser(tmp_path_factory.mktemp("profile")) as b:
        yield b


TABLE = "document.querySelectorAll('div.scroll > table')[2]"
CELLS = f"Array.from({TABLE}.tBodies[0].rows).filter(r => !r.hidden).map(r => r.cells[%d].textContent)"
HEAD = f"{TABLE}.tHead.rows[0].cells[%d]"


def middle(b: chromium.Browser, element: str) -> tuple[float, float]:
    box = json.loads(b.run(f"JSON.stringify({element}.getBoundingClientRect())"))
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_sorts_filters_and_scrolls(report: Path, opened: chromium.Browser, width: int) -> None:
    b = opened
    b.open(report / "index.html", width)
    assert b.run("document.documentElement.scrollWidth") <= width, "the page itself does not scroll sideways"
    assert [u for u in b.asked_for() if not u.startswith("data:")] == [(report / "index.html").resolve().as_uri()]
    written = b.run(CELLS % 1)
    assert len(written) == SYSTEMS
    b.run(f"{TABLE}.parentNode.previousElementSibling.scrollIntoView()")

    up, down = sorted(written, key=float), sorted(written, key=float, reverse=True)
    for sort, said in ((up, "ascending"), (down, "descending"), (written, None)):
        b.click(*middle(b, f"{HEAD % 1}.firstChild"))
        assert b.run(CELLS % 1) == sort
        assert b.run(f"{HEAD % 1}.getAttribute('aria-sort')") == said
    b.click(*middle(b, f"{HEAD % 0}.firstChild"))
    assert b.run(CELLS % 0)[:3] == ["system_0: pretrained", "system_0: scratch", "system_1: pretrained"]

    b.click(*middle(b, f"{TABLE}.parentNode.previousElementSibling.querySelector('input')"))
    b.type("SCRATCH system_3")
    assert b.run(CELLS % 0) == ["system_3: scratch"]
    assert b.run(f"{TABLE}.parentNode.previousElementSibling.querySelector('output').textContent") == "1 of 20 rows"
    b.type(" nobody")
    assert b.run(CELLS % 0) == []

    b.open(report / "index.html", width)
    b.run(f"{TABLE}.parentNode.scrollIntoView()")
    b.run(f"{TABLE}.parentNode.scrollTo(150, 200)")
    box = f"{TABLE}.parentNode.getBoundingClientRect()"
    assert b.run(f"{TABLE}.parentNode.scrollTop") == 200
    assert abs(b.run(f"{HEAD % 1}.getBoundingClientRect().top - {box}.top")) < 1
    assert abs(b.run(f"{TABLE}.tBodies[0].rows[5].cells[0].getBoundingClientRect().left - {box}.left")) < 1
    assert b.run(f"{TABLE}.parentNode.scrollLeft") > 0
    assert b.complaints() == []


def test_a_column_goes_by_what_its_cells_begin_with(opened: chromium.Browser, tmp_path: Path) -> None:
    """What says nothing is last both ways; a column with few numbers goes by its letters."""
    from trainer.reporting import page

    rows = (
        ("b", "10 of 12", "x"),
        ("a", "–", "10"),
        ("c", "-2.5 (a)", "y"),
        ("d", "best", "9"),
        ("e", "9", "–"),
        ("f", "1e-3", "z"),
    )
    (tmp_path / "p.html").write_text(page.page("t", [("s", page.table(Table("t", ("", "n", "words"), rows)))], ""))
    b = opened
    b.open(tmp_path / "p.html", 1280)
    first = "document.querySelector('table')"
    names = f"Array.from({first}.tBodies[0].rows).map(r => r.cells[0].textContent).join('')"
    for column, orders in ((1, ("cfebad", "befcad")), (2, ("dabcfe", "fcbade"))):
        for order in orders:
            b.run(f"{first}.tHead.rows[0].cells[{column}].firstChild.click()")
            assert b.run(names) == order
    assert b.run("document.querySelectorAll('.filter').length") == int(len(rows) >= FEWEST_ROWS)
    assert b.run("document.querySelectorAll('.files').length") == 0


def test_no_other_script_runs_in_the_page(report: Path, opened: chromium.Browser, tmp_path: Path) -> None:
    text = (report / "index.html").read_text().replace("</h1>", "</h1><script>document.title = 'changed'</script>", 1)
    (tmp_path / "p.html").write_text(text)
    opened.open(tmp_path / "p.html", 1280)
    assert opened.run("document.title") == "Fine-tune results"
    assert any("Content Security Policy" in c for c in opened.complaints())
