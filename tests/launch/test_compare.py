"""launch/compare.py from folders to files: complete, self-contained, unharmed by what is in the names."""

from __future__ import annotations

import base64
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from launch.compare import main
from tests.trainer.reporting.runs import SCRATCH, cohort_of_runs, write
from trainer.downstream.metrics.table import DEFAULTS
from trainer.reporting.script import SCRIPT


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare")
    cohort_of_runs(root / "runs")
    assert main([str(root / "runs"), "--out", str(root / "report"), "--draws", "100"]) == 0
    return root / "report"


class Page(HTMLParser):
    """Every attribute of a page, its text, and what was opened but not closed."""

    EMPTY = ("meta", "img", "br")

    def __init__(self, text: str):
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, k, v or "") for k, v in attrs]
        self.open += [] if tag in self.EMPTY else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.scripts if self.open[-1:] == ["script"] else self.texts).append(data)


def rows(report: Path) -> list[dict[str, str]]:
    with open(report / "compare.csv", newline="") as f:
        return list(csv.DictReader(f))


def external(text: str) -> list[str]:
    """References in an HTML page, and in the drawings inside it, that would be fetched; files beside it are not."""
    page, found = Page(text), []
    for tag, name, value in page.attributes:
        beside = tag == "a" and re.fullmatch(r"tables/[a-z0-9-]+\.(csv|tex)", value)
        if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster") and not (
            beside or value.startswith(("#", "data:"))
        ):
            found.append(value)
        if tag in ("link", "iframe", "object", "embed", "base") or name.startswith("on"):
            found.append(f"{tag} {name}")
        if value.startswith("data:image/svg+xml"):
            drawing = base64.b64decode(value.partition(",")[2]).decode()
            found += re.findall(r'href="(?!#)(?!data:)[^"]*"|<script|@import|url\((?!#)[^)]*\)', drawing)
    return found + re.findall(r"@import|url\([^)]*\)|https?://[^\s\"<]*", text)


def test_the_page_is_whole_and_fetches_nothing(report: Path) -> None:
    text = (report / "index.html").read_text()
    page = Page(text)
    assert page.open == []
    assert external(text) == []
    names = [v for _, k, v in page.attributes if k == "id"]
    assert {v[1:] for t, k, v in page.attributes if t == "a" and k == "href" and v[0] == "#"} == set(names)
    assert page.scripts == [SCRIPT]
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes
    # The check itself finds what it should.
    svg = base64.b64encode(b'<svg><image href="http://x/y.png"/></svg>').decode()
    assert len(external(f'<img src="//x/y.png"><img src="data:image/svg+xml;base64,{svg}">')) == 2


def test_every_task_has_its_plots(report: Path) -> None:
    text = (report / "index.html").read_text()
    titles = [v for t, k, v in Page(text).attributes if t == "img" and k == "alt"]
    for kind in DEFAULTS:
        assert f"{DEFAULTS[kind][0]}, 100 %" in titles
    for start, times in (
        ("Confusion", 4 + 2 + 2),
        ("ROC", 2),
        ("Survival", 2),
        ("Examples", 2),
        ("Features", 2),
        ("Label eff", 2),
    ):
        assert sum(t.startswith(start) for t in titles) == times, start


def test_a_leak_comes_first(report: Path) -> None:
    line = "LEAK: 3 of 30 test patients were in the pre-training data"
    markdown, page = (report / "compare.md").read_text(), (report / "index.html").read_text()
    assert markdown.index(line) < markdown.index("\n## ")
    assert page.index(line) < page.index("<h2")
    assert "[LEAK]" in page


def test_what_is_still_running_is_listed(report: Path) -> None:
    text = (report / "compare.md").read_text()
    assert "## No result yet" in text
    assert "ordinal-mgi | demo\\_ordinal | mgi |" in text


def test_the_table_says_what_the_results_say(report: Path) -> None:
    result = json.loads((report.parent / "runs" / "binary-pretrained" / "result.json").read_text())
    m = result["metrics"]["auc"]
    mine = [
        r for r in rows(report) if r["task"] == "demo_binary" and r["method"] == "gimp" and r["init"] == "pretrained"
    ]
    (full,) = [r for r in mine if r["fraction"] == "1.0" and r["metric"] == "auc"]
    assert float(full["value"]) == m["value"]
    assert [float(full["low"]), float(full["high"])] == m["interval"]
    assert float(full["spread"]) == m["spread"]
    assert float(full["scratch_difference"]) > 0
    (counted,) = [r for r in mine if r["fraction"] == "1.0" and r["metric"] == "accuracy"]
    assert [int(k) for k in counted["k"].split()] == result["metrics"]["accuracy"]["k"]
    markdown = (report / "compare.md").read_text()
    assert f"{m['value']:.3f}" in markdown
    assert f"{', '.join(counted['k'].split())} of {counted['n']}" in markdown
    assert sorted({r["fraction"] for r in mine}) == ["0.01", "0.1", "1.0"]


def test_one_best_a_table_and_never_a_leak_or_a_control(report: Path) -> None:
    primary = [r for r in rows(report) if r["primary"] == "1"]
    tables = {(r["group"], r["fraction"], r["shots"]) for r in primary}
    best = [r for r in primary if r["best"] == "1"]
    assert len(best) == len(tables) == 12
    assert not [r for r in best if r["leak_shared"] != "0" or r["control"]]


def test_published_numbers_stand_beside_ours_with_their_data(report: Path) -> None:
    (line,) = [x for x in (report / "compare.md").read_text().splitlines() if x.startswith("| A paper, Table 1 |")]
    cells = [c.strip() for c in line.strip("|").split("|")]
    ours = float(cells[3].rpartition(" ")[2])
    assert cells[2] == "0.995"
    assert float(cells[5]) == pytest.approx(ours - 0.9947, abs=0.001)
    assert cells[6:] == ["946 patients, 190 tested", "30 test patients (60 cases), 100 trained on"]


def test_the_same_runs_give_the_same_bytes(report: Path, tmp_path: Path) -> None:
    runs = report.parent / "runs"
    one = [str(runs / n) for n in ("binary-pretrained", "binary-scratch")]
    for out in ("a", "b"):
        assert main([*one, "--out", str(tmp_path / out), "--draws", "100"]) == 0
    names = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*.*"))
    assert len(names) > 3
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>|$x$ *b* _c_ [d](http://e)"
    for name, changes in (("a", {}), ("b", SCRATCH)):
        write(tmp_path / name, seeds=(0,), task=evil, method=evil, first_line=evil, **changes)
    assert main([str(tmp_path), "--out", str(tmp_path / "report"), "--draws", "100"]) == 0
    page = Page((tmp_path / "report" / "index.html").read_text())
    assert page.scripts == [SCRIPT]
    links = [v for _, k, v in page.attributes if k == "href"]
    assert links
    assert all(re.fullmatch(r"#s\d+|tables/[a-z0-9-]+\.(csv|tex)", v) for v in links)
    assert evil in "".join(page.texts)
    tables = [x for x in (tmp_path / "report" / "compare.md").read_text().splitlines() if x.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", x)) for x in tables[:3]}
    assert len(widths) == 1, "a name opens no column"
    assert "<script" not in "".join(tables)


def test_only_running_runs_make_a_report_too(tmp_path: Path) -> None:
    (tmp_path / "going").mkdir()
    (tmp_path / "going" / "config.json").write_text(json.dumps({"config": {"task": "dr", "method": "mgi"}}))
    assert main([str(tmp_path), "--out", str(tmp_path / "report")]) == 0
    assert "going" in (tmp_path / "report" / "index.html").read_text()


def test_values_without_a_number_are_shown_as_such(tmp_path: Path) -> None:
    """A result whose metric has no value (null in the file) stands in the tables, last, and is never the best."""
    write(tmp_path / "a", seeds=(0,))
    write(tmp_path / "b", cases=1, seeds=(0,), method="mgi")
    assert main([str(tmp_path), "--out", str(tmp_path / "report"), "--draws", "100"]) == 0
    (line,) = [
        x
        for x in (tmp_path / "report" / "compare.md").read_text().splitlines()
        if x.startswith("| mgi: pretrained | – | – |")
    ]
    assert "other test cases" in line


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    assert main([str(w) for w in words]) == 2
    return capsys.readouterr().err


def test_bad_input_is_refused_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    assert "not there" in refused(capsys, tmp_path / "nowhere", "--out", out)
    assert "no result.json under" in refused(capsys, tmp_path, "--out", out)
    good, bad = write(tmp_path / "good", seeds=(0,)), write(tmp_path / "bad", seeds=(0,))
    (bad / "result.json").write_text((bad / "result.json").read_text()[:-100])
    assert f"{bad / 'result.json'}: cannot be read as JSON" in refused(capsys, good, bad, "--out", out)
    (bad / "result.json").write_text((good / "result.json").read_text())
    (bad / "predictions" / "seed-0.npz").write_bytes(b"PK nothing")
    assert "seed-0.npz cannot be read as predictions" in refused(capsys, good, bad, "--out", out)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/result.json").write_text("{")
    said = refused(capsys, good, bad, tmp_path / "cut", tmp_path / "nowhere", "--out", out)
    assert all(words in said for words in ("seed-0.npz cannot", "cannot be read as JSON", "nowhere: not there")), said
    assert not out.exists()
    out.write_text("a file")
    assert "give another folder" in refused(capsys, good, "--out", out)
    with pytest.raises(SystemExit) as e:
        main([str(good), "--draws", "5"])
    assert e.value.code == 2
