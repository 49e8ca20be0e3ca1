"""The command line: every command end to end, exit status, messages on standard error."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from manifests import snapshot, sources

from shards.__main__ import main
from shards.command_line import build_parser, byte_count


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> Path:
    made = sources(tmp_path / "in", count=20)
    made.write()
    assert (
        main(["pack", str(made.manifest), "--out", str(tmp_path / "set"), "--stratify", "subtype", "--licence", "CC0"])
        == 0
    )
    assert "set: 20 samples of 20 patients in 1 shards" in capsys.readouterr().out
    return tmp_path / "set"


def test_pack_index_split_lint_info_preview(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["lint", str(folder)]) == 0
    assert "clean" in capsys.readouterr().out
    assert (
        main(
            [
                "split",
                str(folder),
                "--fractions",
                "0.5,0.25,0.25",
                "--stratify",
                "subtype",
                "--label-fractions",
                "0.2,0.5",
            ]
        )
        == 0
    )
    assert "train 10, val 5, test 5" in capsys.readouterr().out
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"]["val"]["samples"] == 5
    assert main(["index", str(folder)]) == 0
    assert main(["lint", str(folder)]) == 0
    assert main(["preview", str(folder), "--out", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_index_of_ones_own_data_set_changes_nothing(folder: Path) -> None:
    before = snapshot(folder)
    assert main(["index", str(folder)]) == 0
    assert snapshot(folder) == before


def test_lint_exits_2_with_problems(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "splits.csv").write_text("sample,patient,split\n")
    assert main(["lint", str(folder)]) == 2
    assert "problem" in capsys.readouterr().out


def test_bad_manifest_exits_2_and_lists_all_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = sources(tmp_path / "in")
    made.rows[0]["field:image"], made.rows[1]["patient"] = "no.png", ""
    made.write()
    assert main(["pack", str(made.manifest), "--out", str(tmp_path / "set")]) == 2
    shown = capsys.readouterr()
    assert re.search(r"error: 2 problems:\n  manifest.csv line 3: .*\n  manifest.csv line 2 .*Fix: ", shown.err)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "absent.csv", "--out", "x"], "absent.csv: no such file"),
        (["lint", "nowhere", "--reference", "rna"], "--reference: 'rna' is not FIELD=VALUE"),
        (["split", "nowhere", "--fractions", "0.5"], "--fractions: '0.5' is not a list of fractions"),
        (["split", "nowhere", "--fractions", "1"], "nowhere: no dataset.json"),
        (["index", "nowhere"], "nowhere: no *.tar"),
        (["info", "nowhere"], "no dataset.json. Fix: "),
        (["preview", "nowhere"], "no dataset.json. Fix: "),
    ],
)
def test_what_cannot_be(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_unknown_option_exits_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["lint", "x", "--refrence", "y"])
    assert caught.value.code == 2


def test_sizes() -> None:
    assert [byte_count(t) for t in ("64M", "1.5k", "2G", "100")] == [64 << 20, 1536, 2 << 30, 100]


def test_commands_start_without_torch(folder: Path) -> None:
    """Starting is cheap: none of these loads the deep-learning library, and lint not the drawing one."""
    loaded = "bool({'torch', 'matplotlib'} & set(sys.modules))"
    code = f"import sys; from shards.__main__ import main; main(['lint', {str(folder)!r}]); sys.exit({loaded})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


def test_commands_are_those_of_the_docs() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    commands = next(a for a in build_parser()._actions if hasattr(a, "choices") and a.choices).choices
    assert commands is not None
    for name in commands:
        assert f"python -m shards {name}" in docs, name
    for option in re.findall(r"(?<!plink )(?<!tar )(--[a-z][a-z-]+)", docs):  # other programs have options of their own
        known = {o for p in [*commands.values()] for a in p._actions for o in a.option_strings}
        sources = next(a for a in commands["source"]._actions if getattr(a, "choices", None)).choices
        known |= {o for p in sources.values() for a in p._actions for o in a.option_strings}
        assert option in known, option


def test_manifest_of_the_docs_packs(tmp_path: Path) -> None:
    """The example in docs/data.md is a real one."""
    made = sources(tmp_path / "in", count=12)
    made.write()
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    block = re.search(r"```csv\n(.*?)```", docs, re.DOTALL)
    assert block
    lines = block[1].splitlines()
    shutil.copy(made.folder / "p0.png", made.folder / "p1-mask.png")
    for line in lines[1:]:
        for path in re.findall(r"[\w/]+\.(?:png|jpg)", line):
            (made.folder / path).parent.mkdir(exist_ok=True)
            shutil.copy(made.folder / "p0.png", made.folder / path)
    (made.folder / "docs.csv").write_text(block[1])
    arguments = ["pack", str(made.folder / "docs.csv"), "--out", str(tmp_path / "docs"), "--split-fractions", "1"]
    assert main(arguments) == 0
    assert main(["lint", str(tmp_path / "docs")]) == 0
