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
from trainer.reporting import regions
from trainer.reporting.rows import HEAD, table_of, write_table
from trainer.reporting.table import markdown
from trainer.sweep.file import read_sweep
from trainer.sweep.points import Point, Sweep
from trainer.sweep.rows import Published, wilson
from trainer.sweep.runner import reached

TABLES = sorted((ROOT / "configs" / "sweep").glob("*-table*.yaml"))
BESIDE = [ROOT / "configs" / "sweep" / f"demo-{name}.yaml" for name in ("probes", "zeroshot")]
SMALL: dict[str, Any] = {
    "command": "finetune",
    "words": ["--task", "demo_subtype"],
    "baselines": False,
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


def test_a_recipe_of_a_table_may_name_another_of_the_methods(tmp_path: Path) -> None:
    """The sizes of the demo on real data: the published task, and no word of the table's own recipe reaches a run."""
    small = {"small": ["--recipe", "demo", "--task", "nsclc_subtype"]}
    sweep = read(tmp_path, recipes=small, words=["--task", "nsclc_subtype", "protocol.epochs=70"], recipe="small")
    assert sweep.first is not None
    assert sweep.first.points[0].words == ("--method", "gimp", "steps=1", "--recipe", "demo")
    assert sweep.points[0].words == ("--task", "nsclc_subtype", "--method", "abmil", "--recipe", "demo")
    table = table_of(sweep)
    assert (table.head, "systems' recipe `demo`" in table.note, "**" in table.note) == (HEAD, True, False)
    with pytest.raises(UserError, match=r"recipes.small: --recipe names no recipe of methods; write --recipe demo"):
        read(tmp_path, recipes={"small": ["--task", "nsclc_subtype", "--recipe"]})


def test_a_word_of_a_recipe_may_be_for_one_pre_training(tmp_path: Path) -> None:
    """Of that recipe alone; what the command line says of the same key goes before it; a name that is not there is refused."""
    recipes = {"demo": ["--task", "demo_site", "pretrain.one step:method.dim=32"]}
    made = ("--method", "gimp", "steps=1")
    sweep = read(tmp_path, recipes=recipes, recipe="demo")
    assert sweep.first.points[0].words == (*made, "--recipe", "demo", "method.dim=32")
    assert not any("method.dim" in w for p in sweep.points for w in p.words)
    assert read(tmp_path, recipes=recipes).first.points[0].words == made
    told = read(tmp_path, recipes=recipes, recipe="demo", more=("pretrain.one step:method.dim=8",))
    assert told.first.points[0].words == (*made, "--recipe", "demo", "method.dim=8")
    with pytest.raises(UserError, match=r"pretrain.mae: .* has no such column or run"):
        read(tmp_path, recipes={"demo": ["pretrain.mae:steps=1"]}, recipe="demo")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        pytest.param(file, ["--recipe", name] if name else [], id=f"{file.stem}-{name or 'whole'}")
        for file in [*TABLES, *BESIDE]
        for name in ("", *yaml.safe_load(file.read_text())["recipes"])
    ],
)
def test_every_command_of_a_table_is_one(file: Path, words: list[str], tmp_path: Path, capsys) -> None:
    """Systems, recipes, keys and published counts; nothing is run."""
    data = [] if words[-1:] == ["demo"] else [f"data.path={tmp_path}"]
    study = yaml.safe_load(file.read_text())["command"] == "gwas"
    data += [f"{key}={tmp_path}" for key in ("data", "bed", "covariates") if study]
    assert main([str(file), "--out", str(tmp_path / "out"), "--dry-run", *words, *data]) == 0
    said = capsys.readouterr().out
    sweep = read_sweep(file, tmp_path / "out", *words[1:])
    assert all(f"  {p.name}\n" in said for p in sweep.points)
    made = regions.table_of(sweep) if study else table_of(sweep)
    assert len(made.rows) == len({p.values["row"] for p in sweep.points}), "a table without results says so"


def test_a_table_of_published_tasks_is_refused_without_data(tmp_path: Path, capsys) -> None:
    """Its pre-training would be of the demo cohort, without a word of it in the table."""
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "words": ["--task", "nsclc_subtype"]}, sort_keys=False))
    line = [str(file), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(line) == 2
    said = capsys.readouterr().err
    assert "no data for the rows of nsclc_subtype" in said
    assert "no data for the pre-training (one-step)" in said
    assert main([*line, "--row", "ABMIL"]) == 2
    assert "pre-training" not in capsys.readouterr().err
    assert main([*line, "data.path=somewhere"]) == 0
    assert main([*line, "pretrain:data.path=somewhere"]) == 2
    assert "pre-training" not in capsys.readouterr().err


def test_retrieval_is_a_task_of_the_demo_cohort_where_that_is_meant(tmp_path: Path, capsys) -> None:
    rows = {"A": {"words": {"--method": "convirt"}, "start": "a"}}
    content = {
        **SMALL,
        "words": ["--task", "report_retrieval"],
        "pretrain": {"a": ["--method", "convirt"]},
        "rows": rows,
    }
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    line = [str(file), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*line, "--recipe", "demo"]) == 0
    assert main(line) == 2
    assert "no data for the rows of report_retrieval" in capsys.readouterr().err


def test_a_table_says_where_a_recipe_runs_another_task(tmp_path: Path) -> None:
    """Numbers of the demo cohort must not pass for the published ones' neighbours."""
    other = {"demo": ["--task", "demo_site"]}
    plain, demo = (table_of(read(tmp_path, recipes=other, recipe=r)) for r in (None, "demo"))
    assert plain.head == HEAD
    assert {"here, of demo_site", "published, of demo_subtype"} < set(demo.head)
    assert "**" not in plain.note
    assert "task demo_site in place of task demo_subtype" in demo.note
    assert "\n**With the recipe" in markdown(demo), "bold is no text"
    same = table_of(read(tmp_path, recipes={"demo": ["--task", "demo_subtype", "seeds=0"]}, recipe="demo"))
    assert (same.head, "**" in same.note) == (HEAD, False), "the same task is said to be the same"
    columns = {
        "A 1 %": {
            "words": {"--task": "nih14", "protocol.fraction": 0.01, "protocol.lr": 0.03},
            "metric": "auc",
            "recipes": {"demo": {"--task": "demo_findings", "protocol.fraction": 0.1}},
        },
        "B": {"words": {"--task": "aptos"}, "metric": "auc"},
    }
    rows = {"ABMIL": {"words": {"--method": "abmil"}, "printed": {"A 1 %": 0.7}}}
    table = table_of(read(tmp_path, recipe="demo", words=[], pretrain={}, columns=columns, rows=rows))
    assert table.head[3:7] == (
        "task demo_findings, fraction 0.1 in place of A 1 %",
        "A 1 %, published",
        "B",
        "B, published",
    )
    assert (
        "say nothing beside them** (A 1 %: task demo_findings, fraction 0.1 in place of task nih14, fraction 0.01)"
        in table.note
    )


def test_a_task_of_all_columns_is_said_to_be_another(tmp_path: Path) -> None:
    """Columns of one task, which stands among the words of the whole table: MGI's, in three conventions of Dice."""
    columns = {"A": {"words": {}, "metric": "auc"}, "B": {"words": {}, "metric": "accuracy"}}
    rows = {"ABMIL": {"words": {"--method": "abmil"}, "printed": {"A": 0.7}}}
    other = {"demo": ["--task", "demo_site"]}
    table = table_of(read(tmp_path, recipe="demo", recipes=other, pretrain={}, columns=columns, rows=rows))
    assert table.head[3:7] == (
        "task demo_site in place of A",
        "A, published",
        "task demo_site in place of B",
        "B, published",
    )
    assert "A: task demo_site in place of task demo_subtype" in table.note
    same = table_of(read(tmp_path, recipe="demo", pretrain={}, columns=columns, rows=rows))
    assert (same.head[3], "**" in same.note) == ("A", False)


def test_rows_that_a_recipe_makes_equal_are_refused(tmp_path: Path, capsys) -> None:
    """The demo recipe of CLAM is multi-branch itself: a row that does not say `single` is the other row once more."""
    rows = {"SB": {"words": {"--method": "clam"}}, "MB": {"words": {"--method": "clam", "method.branches": "multi"}}}
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "rows": rows, "pretrain": {}}))
    line = [str(file), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*line, "--recipe", "recommended"]) == 0
    assert main([*line, "--recipe", "demo"]) == 2
    assert "points 0 and 1 are the same run (row=MB; row=SB)" in capsys.readouterr().err


def test_tables_are_there() -> None:
    assert {f"mrm-relation-table{i}" for i in range(1, 6)} <= {p.stem for p in TABLES}
    assert {"gimp-table1", "gimp-table2", "mgi-table1", *(f"mrm-record-table{i}" for i in range(1, 6))} <= {
        p.stem for p in TABLES
    }


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"command": "pretrain"}, "belong to command: finetune"),
        ({"pretrain": {}}, r"rows\.GiMP\.start: there is no 'one step' in pretrain"),
        ({"pretrain": {**SMALL["pretrain"], "two": ["--method", "gimp"]}}, r"pretrain\.two: no row starts from it"),
        ({"grid": {"seeds": [0]}}, "rows stand beside grid or points"),
        ({"rows": {}, "pretrain": {}, "grid": {"seeds": [0]}, "title": "x"}, "columns, recipes, title: they belong to rows"),
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
    program = "import sys; print(sys.argv[1], file=open(sys.argv[2], 'a')); sys.argv[1] == 'bad' and sys.exit(print('error: no film') or 2)"
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
    assert "bad: failed, status 2 after 0 s\n    error: no film\n" in said
    assert "lost: left out, since what it starts from failed" in said
    assert [status(out / "pretrain", n)["exit"] for n in ("one-step", "bad")] == [0, 2]
    assert not (out / "lost").exists()
    assert "| lost | – | bad | no result |" in (out / "table.md").read_text()
    assert main([str(file), "--out", str(out), "--no-preload", "--recipe", "demo", "--point", "0"]) == 0, "a row alone"
    assert order.read_text().split()[4:] == [], "what is done is not run again"


# ------------------------------------------------------------------------------------------------------------------- columns

COLUMNS: dict[str, Any] = {
    "words": [],
    "columns": {
        "subtype": {"words": {"--task": "demo_subtype"}, "metric": "auc", "scale": 100, "digits": 1},
        "grade, 10 %": {
            "words": {"--task": "demo_grade", "protocol.fraction": 0.1},
            "metric": "kappa_quadratic",
            "recipes": {"demo": {"--task": "demo_grade", "protocol.fraction": 0.5}},
        },
    },
    "rows": {
        "ABMIL": {"words": {"--method": "abmil"}, "printed": {"subtype": 77.4}},
        "GiMP": {"words": {"--method": "gimp"}, "start": "one step", "printed": {"subtype": 99.5, "grade, 10 %": 0.5}},
    },
}


def test_every_row_is_run_in_every_column(tmp_path: Path) -> None:
    words = {"pretrain:data.path": "films", "pretrain:steps": 3, "pretrain.one step:steps": 2}
    more = ("data.path=all", "grade, 10 %:data.path=grades", *(f"{k}={v}" for k, v in words.items()), "seeds=0")
    sweep = read(tmp_path, more=more, recipe="demo", **COLUMNS)
    assert [p.name for p in sweep.points] == [f"{r}_{c}" for r in ("ABMIL", "GiMP") for c in ("subtype", "grade-10")]
    assert sweep.first is not None
    assert sweep.first.points[0].words[-2:] == ("data.path=films", "steps=2")
    assert sweep.points[0].words[-2:] == ("data.path=all", "seeds=0")
    assert sweep.points[3].words[-2:] == ("data.path=grades", "seeds=0")
    assert "protocol.fraction=0.5" in sweep.points[3].words
    assert "protocol.fraction=0.1" in read(tmp_path, **COLUMNS).points[3].words
    assert sweep.starts == {"GiMP_subtype": "one-step", "GiMP_grade-10": "one-step"}


def test_columns_of_another_metric_alone_are_one_run(tmp_path: Path) -> None:
    columns = COLUMNS["columns"]
    both = {**columns, "subtype, right": {**columns["subtype"], "metric": "accuracy"}}
    sweep = read(tmp_path, **COLUMNS | {"columns": both})
    assert [p.name for p in sweep.points] == [f"{r}_{c}" for r in ("ABMIL", "GiMP") for c in ("subtype", "grade-10")]
    assert sweep.points[0].values["columns"] == ("subtype", "subtype, right")
    m = json.loads((write(sweep.folder(sweep.points[0])) / "result.json").read_bytes())["metrics"]
    line = table_of(sweep).rows[0]
    assert [line[3][:4], line[7][:4]] == [f"{100 * m[k]['value']:.1f}" for k in ("auc", "accuracy")]
    told = read(tmp_path, more=("subtype, right:seeds=1",), **COLUMNS | {"columns": both})
    assert [p.name for p in told.points[:3]] == ["ABMIL_subtype", "ABMIL_grade-10", "ABMIL_subtype-right"]


def test_rows_and_columns_can_be_chosen(tmp_path: Path, capsys) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **COLUMNS}, sort_keys=False))
    line = [str(file), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*line, "--row", "ABMIL", "--column", "subtype"]) == 0
    said = capsys.readouterr().out
    assert "ABMIL_subtype" in said
    assert not any(n in said for n in ("GiMP", "one-step", "grade-10"))
    assert main([*line, "--row", "abmil", "--column", "sex"]) == 2
    said = capsys.readouterr().err
    assert "--row abmil" in said
    assert "has the rows ABMIL, GiMP" in said
    assert "has the columns subtype, grade, 10 %" in said
    assert main([*line, "--point", "0", "--row", "GiMP"]) == 2
    assert "another row or column" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"rows": {"A": {"words": {"--method": "abmil"}, "published": {"value": 0.5}}}}, "has columns; write printed"),
        ({"rows": {**COLUMNS["rows"], "ABMIL": {"words": {"--method": "abmil"}, "printed": {"Subtype": 0.5}}}}, "no such column"),
        ({"rows": {**COLUMNS["rows"], "ABMIL": {"words": {"--method": "abmil", "--task": "x"}}}}, r"stands in columns\.subtype too"),
        ({"columns": {**COLUMNS["columns"], "pretrain": COLUMNS["columns"]["subtype"]}}, "rename it"),
        ({"words": ["--task", "demo_site"]}, "--task stands among the words and among what differs"),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit_are_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        read(tmp_path, **COLUMNS | changed)


def test_words_for_a_column_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"sex: .* no such column or run \(there: subtype, grade, 10 %, pretrain, pretrain\.one step\)"
    ):
        read(tmp_path, more=("sex:data.path=here",), **COLUMNS)


def test_a_word_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pretrain:data\.path: given 2 times; keep one of them"):
        read(tmp_path, more=("pretrain:data.path=a", "seeds=0", "pretrain:data.path=b"), **COLUMNS)


def test_rows_of_a_sweep_that_has_none_are_refused(tmp_path: Path, capsys) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({"command": "pretrain", "words": ["--method", "gimp"], "grid": {"seed": [0, 1]}}))
    assert main([str(file), "--out", str(tmp_path / "out"), "--dry-run", "--row", "a"]) == 2
    assert "has no rows" in capsys.readouterr().err


def test_a_table_of_columns_has_pairs_of_numbers_in_the_printed_unit(tmp_path: Path) -> None:
    sweep = read(tmp_path, **COLUMNS)
    folder = write(sweep.folder(sweep.points[0]), **SCRATCH)
    m = json.loads((folder / "result.json").read_bytes())["metrics"]["auc"]
    write(sweep.folder(sweep.points[3]), "ordinal")
    table = table_of(sweep)
    assert table.head == (
        "",
        "reads",
        "starts from",
        "subtype",
        "subtype, published",
        "grade, 10 %",
        "grade, 10 %, published",
        "remark",
    )
    low, high = (100 * v for v in m["interval"])
    assert table.rows[0] == (
        "ABMIL", "–", "nothing", f"{100 * m['value']:.1f} ({low:.1f} to {high:.1f})", "77.4", "no result", "–", "",
    )  # fmt: skip
    assert table.rows[1][2:5] == ("one-step", "no result", "99.5")
    assert table.rows[1][6] == "0.50"
    assert table.rows[1][5].startswith("0.")
    assert table.note.startswith("subtype: auc x 100; grade, 10 %: kappa_quadratic. ")
    assert (tmp_path / "out").is_dir()
    assert "subtype, published" in write_table(sweep)


def test_a_column_without_its_metric_is_refused(tmp_path: Path) -> None:
    sweep = read(tmp_path, **COLUMNS)
    write(sweep.folder(sweep.points[1]))
    with pytest.raises(UserError, match="has no kappa_quadratic, which this table is of"):
        table_of(sweep)


# -------------------------------------------------------------------------------------------------------------------- studies

STUDIES: dict[str, Any] = {
    "command": "gwas",
    "words": [],
    "recipes": {"demo": []},
    "columns": {
        "regions": {"words": {}, "metric": "clumps"},
        "random": {"words": {"--random": 0}, "metric": "regions_1mb"},
    },
    "rows": {"GiMP": {"words": {}, "start": "one step", "printed": {"regions": 18}}},
}
PEOPLE = ("data=people", "bed=chip.bed", "covariates=c.csv")


def test_a_study_is_of_the_run_that_its_row_starts_from(tmp_path: Path) -> None:
    sweep = read(tmp_path, recipe="demo", more=(*PEOPLE, "data.path=here", "random:seed=1"), **STUDIES)
    run = str(tmp_path / "out" / "pretrain" / "one-step")
    people = ("--data", "people", "--bed", "chip.bed", "--covariates", "c.csv")
    assert [p.words for p in sweep.points] == [(run, *people), ("--random", "0", run, *people, "--seed", "1")]
    assert sweep.command_line(sweep.points[0])[-2:] == ["--out", str(tmp_path / "out" / "GiMP_regions")]
    assert sweep.first is not None
    assert sweep.first.points[0].words[-3:] == ("--recipe", "demo", "data.path=here")


def test_a_table_of_studies_has_counts_beside_the_printed_ones(tmp_path: Path) -> None:
    sweep = read(tmp_path, **STUDIES)
    assert regions.table_of(sweep).note.startswith("Here: no study has ended yet.")
    for point, clumps in zip(sweep.points, (39, 3), strict=True):
        sweep.folder(point).mkdir(parents=True)
        summary = {"people": 2000, "variants": 1000, "clumps": clumps, "regions_1mb": clumps - 1}
        (sweep.folder(point) / "gwas.json").write_text(json.dumps(summary))
    assert "| GiMP | – | 39 | 18 | 2 | – |" in write_table(sweep)
    assert "Here: 2000 people and 1000 variants." in (tmp_path / "out" / "table.md").read_text()
    assert reached(sweep.folder(sweep.points[0])) == "clumps 39"
    other = {**STUDIES["columns"], "regions": {"words": {}, "metric": "inflation"}}
    with pytest.raises(
        UserError, match="counts no 'inflation', which the column regions is of; write clumps or regions_1mb"
    ):
        regions.table_of(read(tmp_path, **STUDIES | {"columns": other}))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"rows": {"A": {"words": {}}}, "pretrain": {}}, r"rows\.A: a study is of a run of pre-training; give start"),
        ({"columns": {}, "rows": {"GiMP": {"words": {}, "start": "one step"}}}, "a table of studies needs them"),
    ],
)
def test_studies_that_do_not_fit_are_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        read(tmp_path, **STUDIES | changed)


def test_studies_without_people_or_training_data_are_refused(tmp_path: Path, capsys) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **STUDIES}, sort_keys=False))
    line = [str(file), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*line, "bed=chip.bed"]) == 2
    assert "no data, covariates of the people who are tested" in capsys.readouterr().err
    assert main([*line, *PEOPLE]) == 2
    said = capsys.readouterr().err
    assert "no data for the pre-training (one-step)" in said
    assert "no data for the rows" not in said
    assert main([*line, *PEOPLE, "pretrain:data.path=here"]) == 0
    assert main([*line, *PEOPLE, "--recipe", "demo"]) == 0
    assert main([*line, *PEOPLE, "--recipe", "demo", "p3=1"]) == 2
    assert "is no command line of launch/gwas.py" in capsys.readouterr().err
