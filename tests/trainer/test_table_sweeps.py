"""Rows of published tables as sweeps: what a file means, what of it is refused, and a small table made from nothing to its last line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.sweep import main
from tests.trainer.launching import ROOT
from tests.trainer.reporting.runs import SCRATCH, write
from tests.trainer.test_sweep import status
from trainer.errors import UserError
from trainer.reporting.rows import HEAD, table_of, write_table
from trainer.sweep.file import Point, Sweep, read_sweep
from trainer.sweep.rows import Published, wilson

TABLES = sorted((ROOT / "configs" / "sweep").glob("*-table*.yaml"))
SMALL: dict[str, Any] = {
    "command": "finetune",
    "words": ["--task", "demo_subtype"],
    "pretrain": {"one step": ["--method", "gimp", "steps=1"]},
    "rows": {
        "ABMIL": {"words": {"--method": "abmil"}, "published": {"value": 0.7737, "of": [190]}, "group": "slide"},
        "GiMP": {"words": {"--method": "gimp", "inputs": "multimodal"}, "start": "one step"},
    },
}


def read(tmp_path: Path, recipe: str | None = None, more: tuple[str, ...] = (), **changed: Any) -> Sweep:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **changed}, sort_keys=False))
    return read_sweep(file, tmp_path / "out", recipe, more)


# ------------------------------------------------------------------------------------------------------------ what it means


def test_a_row_is_a_point_and_what_it_starts_from_is_made_first(tmp_path: Path) -> None:
    sweep = read(tmp_path, recipes={"demo": ["--task", "demo_site"]}, recipe="demo", more=("data.path=here", "seeds=0"))
    assert sweep.first is not None
    assert [p.name for p in sweep.first.points] == ["one-step"]
    assert sweep.first.points[0].words == ("--method", "gimp", "steps=1", "--recipe", "demo", "data.path=here")
    abmil, gimp = sweep.points
    assert abmil.words == ("--task", "demo_site", "--method", "abmil", "--recipe", "demo", "data.path=here", "seeds=0")
    begun = ("--init", str(tmp_path / "out" / "pretrain" / "one-step"))
    assert gimp.words == (
        "--task", "demo_site", "--method", "gimp", "inputs=multimodal", *begun, "data.path=here", "seeds=0",
    )  # fmt: skip
    assert sweep.starts == {"GiMP": "one-step"}
    plain = read(tmp_path)
    assert plain.points[0].words == ("--task", "demo_subtype", "--method", "abmil")


@pytest.mark.parametrize("file", TABLES, ids=lambda p: p.stem)
@pytest.mark.parametrize("words", [[], ["--recipe", "demo"]], ids=["whole", "demo"])
def test_every_command_of_a_table_is_one(file: Path, words: list[str], tmp_path: Path, capsys) -> None:
    """Systems, recipes, keys and published counts; nothing is run."""
    assert main([str(file), "--out", str(tmp_path / "out"), "--dry-run", *words]) == 0
    said = capsys.readouterr().out
    sweep = read_sweep(file, tmp_path / "out")
    assert all(f"  {p.name}\n" in said for p in sweep.points)
    assert len(table_of(sweep).rows) == len(sweep.rows), "a table without results says so"


def test_tables_are_there() -> None:
    assert {"gimp-table1", "gimp-table2"} <= {p.stem for p in TABLES}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"command": "pretrain"}, "belong to command: finetune"),
        ({"pretrain": {}}, r"rows\.GiMP\.start: there is no 'one step' in pretrain"),
        ({"pretrain": {**SMALL["pretrain"], "two": ["--method", "gimp"]}}, r"pretrain\.two: no row starts from it"),
        ({"grid": {"seeds": [0]}}, "rows stand beside grid or points"),
        ({"rows": {}, "pretrain": {}, "grid": {"seeds": [0]}, "title": "x"}, "recipes, title: they belong to rows"),
        ({"rows": {"A": {"words": {"--method": "abmil"}, "published": {"value": 0.7737, "of": [189]}}}, "pretrain": {}},
         r"0\.7737 is no fraction of 189"),
        ({"rows": {"A": {"words": {"--init": "x"}, "start": "one step"}}}, "start and --init both say"),
        ({"rows": {"A b": {"words": {"--method": "abmil"}}, "a-B": {"words": {"--method": "dsmil"}}}, "pretrain": {}}, "same run"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        read(tmp_path, **changed)


def test_a_recipe_of_a_sweep_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no rows; write --recipe among its words"):
        read(tmp_path, rows={}, pretrain={}, grid={"seeds": [0]}, recipe="demo")


# ------------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(189, 190, 0.971, 0.999), (185, 190, 0.940, 0.989), (184, 190, 0.933, 0.985), (0, 10, 0, 0.278)],
)
def test_wilsons_interval(k: int, n: int, low: float, high: float) -> None:
    """The last is Newcombe's (1998) of 0 of 10; the others are of the paper's counts by an independent calculator."""
    assert wilson(k, n) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))


def test_a_published_number_is_a_count_where_it_can_be() -> None:
    both = Published(value=0.9947)
    assert (both.right(189), both.right(190)) == (188, 189)
    assert Published(value=0.7737).right(190) == 147
    assert Published(value=0.7737).right(189) is None
    assert Published(value=0.9974).right(190) is None


# ------------------------------------------------------------------------------------------------------------------ a table


def test_a_table_has_both_numbers_with_their_counts_and_intervals(tmp_path: Path) -> None:
    """Of two seeds: Wilson's interval is that of the mean; the other one is the result's own, over patients."""
    sweep = read(tmp_path)
    result = json.loads((write(sweep.folder(sweep.points[0]), seeds=(0, 1), **SCRATCH) / "result.json").read_bytes())
    m = result["metrics"]["accuracy"]
    said = write_table(sweep)
    abmil, gimp = table_of(sweep).rows
    low, high = wilson(sum(m["k"]) / 2, m["n"])
    assert abmil == (
        "ABMIL", "slide", "nothing", f"{m['value']:.4f}", f"{m['k'][0]}, {m['k'][1]} of {m['n']}", f"{low:.3f} to {high:.3f}",
        f"{m['interval'][0]:.3f} to {m['interval'][1]:.3f}", "0.7737", "147 of 190", "0.709 to 0.827", "",
    )  # fmt: skip
    assert gimp == ("GiMP", "–", "one-step", "no result", *["–"] * 6, "")
    assert len(abmil) == len(HEAD)
    text = (tmp_path / "out" / "table.md").read_text()
    assert text in said
    assert "| ABMIL | slide | nothing |" in text
    assert (tmp_path / "out" / "report" / "index.html").is_file()


def test_numbers_that_are_not_those_of_the_predictions_are_refused(tmp_path: Path) -> None:
    sweep = read(tmp_path)
    path = write(sweep.folder(sweep.points[0]), **SCRATCH) / "result.json"
    content = json.loads(path.read_bytes())
    content["metrics"]["accuracy"]["value"] = 0.99
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="accuracy"):
        table_of(sweep)
    del content["metrics"]["accuracy"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"has no accuracy, which this table is of"):
        table_of(sweep)


def test_pre_training_comes_first_and_rows_without_theirs_are_left_out(tmp_path: Path, monkeypatch, capsys) -> None:
    """Processes of the runner with another program in place of the trainings: one pre-training ends well, one is refused."""
    program = "import sys; print(sys.argv[1], file=open(sys.argv[2], 'a')); sys.exit(2 * (sys.argv[1] == 'bad'))"
    order = tmp_path / "order.txt"

    def instead(sweep: Sweep, point: Point) -> list[str]:
        return [sys.executable, "-S", "-c", program, point.name, str(order)]

    monkeypatch.setattr(Sweep, "command_line", instead)
    file, out = tmp_path / "s.yaml", tmp_path / "out"
    content = {
        **SMALL,
        "pretrain": {**SMALL["pretrain"], "bad": ["--method", "gimp", "steps=2"]},
        "rows": {**SMALL["rows"], "lost": {"words": {"--method": "gimp"}, "start": "bad"}},
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    assert main([str(file), "--out", str(out), "--no-preload", "--recipe", "demo"]) == 1
    assert order.read_text().split() == ["one-step", "bad", "ABMIL", "GiMP"]
    said = capsys.readouterr().out
    assert "lost: left out, since what it starts from failed" in said
    assert [status(out / "pretrain", n)["exit"] for n in ("one-step", "bad")] == [0, 2]
    assert not (out / "lost").exists()
    assert "| lost | – | bad | no result |" in (out / "table.md").read_text()
    assert main([str(file), "--out", str(out), "--no-preload", "--recipe", "demo", "--point", "0"]) == 0, "a row alone"
    assert order.read_text().split()[4:] == [], "what is done is not run again"
