"""Nothing is exported of which licence, commercial use or citation is not known of any part; the words that a refusal gives are enough."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from launch.export import main
from tests.trainer.untrained import untrained
from trainer.export.opened import open_finished
from trainer.export.terms import Stated, commercial_use, settled

SMALL = ("method.image.dim=16", "method.image.depth=1", "method.image.heads=2")
GIVE = re.compile(r"give ((?:--\w+ (?:'[^']*'|\S)+ ?)+)")


@pytest.fixture(scope="module")
def known(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the demo cohort, which states all of it."""
    return untrained("mae", cohort, tmp_path_factory.mktemp("terms") / "mae", *SMALL)


@pytest.fixture
def run(known: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(known, tmp_path / "run"))


def edit(run: Path, **words: Any) -> Path:
    card = json.loads((run / "method.json").read_text())
    card["data"]["sets"][0] |= words
    (run / "method.json").write_text(json.dumps(card))
    return run


def started(run: Path, file: Path) -> Path:
    """The run as one that began with a file of weights."""
    card = json.loads((run / "method.json").read_text())
    card["options"]["image"] |= {"init": "file", "init_file": str(file)}
    (run / "method.json").write_text(json.dumps(card))
    return run


def text(folder: Path) -> str:
    return (folder / "README.md").read_text()


def test_the_terms_of_the_data_stand_in_card_and_configuration(run: Path, tmp_path: Path) -> None:
    assert main([str(run), "--to", "timm", "--out", str(tmp_path / "out")]) == 0
    card, config = text(tmp_path / "out"), json.loads((tmp_path / "out/config.json").read_text())
    assert "| data set demo | CC0-1.0 | yes | medpair's demo cohort, generated: nothing to cite |" in card
    assert "Commercial use of these weights: **yes**" in card
    assert 'license: other\nlicense_name: "CC0-1.0"' in card
    assert re.search(r"samples of each split: \d+ train, \d+ val, \d+ test; source: synthetic", card)
    assert config["medpair"]["terms"]["commercial"] == "yes"
    assert config["pretrained_cfg"]["license"] == "CC0-1.0"


@pytest.mark.parametrize(
    "words", [{"licence": ""}, {"commercial": ""}, {"licence": "", "commercial": "", "citation": ""}]
)
def test_what_is_not_stated_is_refused_and_the_remedy_works(
    run: Path, words: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(run, **words, name="our films")
    command = [str(run), "--to", "safetensors", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "data set 'our films' states no " in said
    assert "python -m shards terms DIR" in said
    assert not (tmp_path / "out").exists()
    hit = GIVE.search(said)
    assert hit, said
    assert len(shlex.split(hit[1])) == 2 * len(words)
    assert main([*command, *shlex.split(hit[1])]) == 0, capsys.readouterr().err
    assert "our films" in text(tmp_path / "out")


def test_first_weights_say_it_beside_them_or_are_asked_for(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, command = tmp_path / "mae_vit.pth", [str(run), "--to", "timm", "--out", str(tmp_path / "out")]
    started(run, file)
    assert main(command) == 2
    said = capsys.readouterr().err
    hit = GIVE.search(said)
    assert hit, said
    assert "first weights 'mae_vit.pth' states no licence and no commercial use and no citation" in said
    assert main([*command, *shlex.split(hit[1])]) == 0
    assert "Commercial use of these weights: **unknown**" in text(tmp_path / "out")
    (beside := Path(f"{file}.terms.yaml")).write_text(
        "licence: CC-BY-NC-4.0\ncommercial: no\ncitation: He et al. 2022\n"
    )
    assert beside.name in said
    shutil.rmtree(tmp_path / "out")
    assert main(command) == 0
    assert "| first weights mae_vit.pth | CC-BY-NC-4.0 | no | He et al. 2022 |" in text(tmp_path / "out")
    assert "Commercial use of these weights: **no**" in text(tmp_path / "out")
    for wrong in ("licence: x\ncommercial: perhaps\n", "licence: 3\n", "license: x\n"):
        beside.write_text(wrong)
        assert main(command) == 2
        assert "give licence, commercial (yes, no or unknown) and citation as text" in capsys.readouterr().err


def test_words_of_the_command_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = open_finished(edit(run, commercial="", citation=""))
    parts = settled(opened, Stated(["demo=other"], ["no"], ["a = b"]))
    assert [(p.terms.licence, p.terms.commercial, p.terms.citation) for p in parts] == [("other", "no", "a = b")]
    command = [
        str(run),
        "--to",
        "timm",
        "--commercial",
        "maybe",
        "--commercial",
        "demo=perhaps",
        "--results",
        str(tmp_path / "none"),
    ]
    assert main(command) == 2
    said = capsys.readouterr().err
    for words in (
        "--commercial maybe: give yes, no or unknown",
        "--commercial demo=perhaps",
        "no citation",
        "cannot be read",
    ):
        assert words in said
    assert main([*command[:3], "--citation", "a", "--citation", "b", "--commercial", "no"]) == 2
    assert "--citation b: given twice, differently" in capsys.readouterr().err


def test_runs_of_before_are_asked_for_all_of_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = json.loads((run / "method.json").read_text())
    del card["data"]["sets"]
    (run / "method.json").write_text(json.dumps(card))
    assert main([str(run), "--to", "timm"]) == 2
    assert "data set 'data' states no licence and no commercial use and no citation" in capsys.readouterr().err
    assert main([str(run), "--to", "timm", "--licence", "x", "--commercial", "unknown", "--citation", "y"]) == 0


def test_one_no_makes_it_no(run: Path) -> None:
    parts = settled(open_finished(run), Stated())
    assert commercial_use(parts) == "yes"
    told = {w: settled(open_finished(run), Stated(commercial=[f"demo={w}"])) for w in ("no", "unknown")}
    assert commercial_use([*parts, *told["unknown"]]) == "unknown"
    assert commercial_use([*parts, *told["unknown"], *told["no"]]) == "no"
