"""How problems are told: by kind, with a count and examples, all of them with `--all`; and nothing is lost on the way."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from builders import write_tar

from models.contract import MethodError
from shards.__main__ import main
from shards.check.lint import Report
from shards.errors import DataError, Problem, grouped, lines_of, listing, show_every, told
from trainer.errors import UserError, exit_status


@pytest.fixture(autouse=True)
def not_every():
    yield
    show_every(False)


def many(n: int) -> list[Problem]:
    """Two kinds, interleaved, of n each."""
    missing = [Problem(f"no such file 'img/{i}.png'", f"m.csv line {i + 2}", "mend the path") for i in range(n)]
    nan = [Problem(f"{i + 1} of 30 values are NaN", f"m.csv line {i + 2}", "give --impute") for i in range(n)]
    return [p for pair in zip(missing, nan, strict=True) for p in pair]


@pytest.mark.parametrize("n", [4, 10_000])
def test_of_a_kind_with_many_three_are_shown_and_all_are_counted(n):
    text = str(DataError(many(n)))
    lines = text.splitlines()
    assert lines[0] == f"{2 * n} problems of 2 kinds (--all lists every one):"
    assert lines[1] == "  m.csv line 2: no such file 'img/0.png'. Fix: mend the path"
    assert lines[2].startswith(f"    {n} of this kind, also m.csv line 3: no such file 'img/1.png'; m.csv line 4: ")
    assert [len(lines), text.count("Fix: give --impute")] == [5, 1]
    show_every(True)
    assert [str(p) for p in many(n)[::2]] == [line.strip() for line in str(DataError(many(n))).splitlines()[1 : n + 1]]


def test_few_are_listed_in_full():
    lines = str(DataError(many(3))).splitlines()
    assert lines[0] == "6 problems:"
    assert [line.strip() for line in lines[1:]] == [str(p) for p in [*many(3)[::2], *many(3)[1::2]]]
    assert str(DataError(many(3)[:1])) == str(many(3)[0])


def test_a_kind_is_what_is_wrong_and_its_remedy():
    one = Problem("sample 's1' has no patient", "a.tar", "fill it")
    assert len(grouped([one, Problem("sample 'it is another' has no patient", "b.tar", "fill it")])) == 1
    assert len(grouped([one, Problem("sample 's2' has no patient", "a.tar", "drop it")])) == 2
    assert len(grouped([one, Problem("sample 's2' has no label", "a.tar", "fill it")])) == 2
    assert lines_of([one, one]) == [str(one)], "equal ones are one"
    named = [
        Problem(f"column '{c}' means nothing", "m.csv", f"call it label:{c}, or did you mean text:{c}?") for c in "xyzw"
    ]
    named += [
        Problem(f"column '{c}' means nothing", "m.csv", f"call it label:{c}, or did you mean text:{c}?")
        for c in ("GENE.A", "of us")
    ]
    assert len(grouped(named)) == 1, "a name is a name in the remedy too"
    assert len(grouped([f"'{c}' is no key of {c}: see '{c}'" for c in ("ab", "cd")])) == 1
    alike = [Problem("has no patient", f"a.tar: s{i}", "fill it") for i in range(5)]
    assert lines_of(alike)[1] == "  5 of this kind, also a.tar: s1; a.tar: s2"


def test_users_and_methods_errors_are_grouped_too(capsys):
    problems = [f"sample s{i}: mask is {i} x 3 pixels, its image 4 x 4" for i in range(9)]
    assert str(UserError(problems)).splitlines()[0] == "9 problems of 1 kind (--all lists every one):"
    assert told(MethodError(problems)) == listing(problems) == str(UserError(problems))

    def run():
        raise MethodError(problems)

    assert exit_status(run) == 2
    assert "9 of this kind" in capsys.readouterr().err


def test_an_error_survives_the_way_to_another_process():
    for error in (DataError(many(5)), UserError(["a", "b"])):
        again = pickle.loads(pickle.dumps(error))
        assert [again.problems, str(again)] == [error.problems, str(error)]


def test_lint_groups_what_it_finds():
    text = str(Report(Path("x"), many(50), many(2)[:1]))
    assert len(text.splitlines()) == 6
    assert text.splitlines()[-1] == "x: 100 problems, 1 warning"
    assert text.count("problem: ") == 2


def test_every_command_can_list_all(tmp_path, capsys):
    write_tar(tmp_path / "a.tar", [(f"s{i}.meta.json", b"{}") for i in range(50)])
    assert main(["index", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) < 6
    assert main(["index", str(tmp_path), "--all"]) == 2
    assert len(re.findall(r"s\d+.meta.json", capsys.readouterr().err)) == 50
    assert main(["index", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) < 6, "the option holds for its own command alone"


@pytest.mark.parametrize("name", ["compare", "export", "finetune", "learn", "pretrain", "slurm", "sweep"])
def test_every_launcher_can_list_all(name):
    import importlib

    parser = importlib.import_module(f"launch.{name}").parser()
    actions = [a for a in parser._actions if "--all" in a.option_strings]
    assert len(actions) == 1
    before = vars(parser.parse_args(_needed(name)))
    after = vars(parser.parse_args(["--all", *_needed(name)]))
    assert after == before, "it changes what is printed, not what is done"
    assert len(lines_of(many(50))) == 100


def _needed(name: str) -> list[str]:
    """The least that a launcher wants."""
    return {
        "compare": ["runs"], "export": ["run", "--to", "timm"], "finetune": ["--task", "t", "--method", "m", "--init", "r"], "learn": [],
        "pretrain": ["--method", "m"], "slurm": ["status", "run"], "sweep": ["s.yaml"],
    }[name]  # fmt: skip
