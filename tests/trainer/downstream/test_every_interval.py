"""Every place that makes or asks for an interval stands in the docs, with the simulation that tells how often it holds the true value."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from trainer.downstream.metrics.simulated import cells, cells_of_differences, cells_of_parts

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "results" / "coverage.md"
MAKE = {
    "interval",
    "_interval",
    "percentile",
    "nanpercentile",
    "ppf",
    "isf",
    "stdtrit",
    "brentq",
    "wilson",
    "reach_of_picked",
}
"""What makes an interval of a number's errors, draws or counts."""
ASK = {"bootstrap", "paired", "apart", "entry", "by_group", "calibrated_entry", "over_tasks"}


def places(source: str) -> Iterator[str]:
    """The innermost functions that call one of these."""

    def inside(node: ast.AST, name: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                called = child.func
                by_name = called.id if isinstance(called, ast.Name) else ""
                if by_name in MAKE | ASK or (isinstance(called, ast.Attribute) and called.attr in MAKE):
                    yield name
            yield from inside(child, child.name if isinstance(child, ast.FunctionDef) else name)

    yield from inside(ast.parse(source), "")


def rows() -> list[list[str]]:
    text = PAGE.read_text().split("## Every interval")[1].split("\n## ")[0]
    return [[c.strip() for c in line.strip("|").split("|")] for line in re.findall(r"^\|.*$", text, re.MULTILINE)[2:]]


def test_no_interval_is_without_a_line() -> None:
    found = {
        f"{path.relative_to(ROOT / 'trainer').as_posix()}: {name}"
        for path in (ROOT / "trainer").rglob("*.py")
        for name in places(path.read_text())
    }
    told = [place for row in rows() for place in re.findall(r"`([^`]+)`", row[1])]
    assert sorted(told) == sorted(found), "a line of docs/results/coverage.md, Every interval, for each place"


def test_what_a_line_names_was_simulated() -> None:
    tables = {
        "coverage.yaml": {*cells()},
        "differences.yaml": {*cells_of_differences()},
        "parts.yaml": {*cells_of_parts()},
    }
    page = PAGE.read_text()
    for what, _, how in rows():
        assert how, what
        for file, part in re.findall(r"`(\w+\.yaml): ([^`]+)`", how):
            assert part in tables[file], (what, part)
        for heading in re.findall(r"above, ([A-Z][^;|]+?)(?:;|$)", how):
            assert f"## {heading}\n" in page, (what, heading)
        known = (
            "coverage.yaml",
            "differences.yaml",
            "parts.yaml",
            "above, ",
            "not simulated",
            "by a test",
            "no interval",
        )
        assert any(word in how for word in known), (what, how)


def test_a_new_interval_is_found() -> None:
    source = "def told(p):\n    def of(m):\n        return paired(p, m)\n    return interval(1, 2, 3, 0.95), mean(p)\n"
    assert [*places(source)] == ["of", "told"]
    assert [*places("x = np.nanpercentile(v, [2.5, 97.5])")] == [""]
