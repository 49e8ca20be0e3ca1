"""Runs that were stored before a rename still load: tests/models/stored/METHOD.json is the method.json of such a run.

Options of the demo recipe as each method has them in groups stand in stored/grouped/, so that a later rename cannot forget what was stored:
`python tests/models/test_stored.py METHOD` writes a new method's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from synthetic import schema, small_options

from models.contract import MethodError, Options
from models.registry import get_method, method_names

STORED = sorted((Path(__file__).parent / "stored").glob("*.json"))
GROUPED = Path(__file__).parent / "stored" / "grouped"


def flat(options: dict, prefix: str = "") -> dict:
    """Options by their dotted names."""
    parts = [flat(v, f"{prefix}{k}.") if isinstance(v, dict) else {prefix + k: v} for k, v in options.items()]
    return {k: v for part in parts for k, v in part.items()}


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_a_stored_run_loads(path):
    """Every value that it was given arrives under today's names, and the method is built of them."""
    card = json.loads(path.read_bytes())
    cls = get_method(card["method"])
    today = cls.Options
    named, then = flat(today.stored(card["options"])), flat(card["options"])
    options = today.parse(today.stored(card["options"]))
    dumped = flat(options.model_dump(mode="json"))
    assert dumped == named, "nothing is left to a default of today"
    moved = {today.renamed.get(k, k): v for k, v in then.items()}
    words = {k: today.reworded[k].get(v, v) if k in today.reworded else v for k, v in moved.items()}
    assert named == {**words, **today.unsaid}
    torch.manual_seed(0)
    method = cls(options, schema())
    assert sum(p.numel() for p in method.parameters()) > 0


def test_every_method_of_then_is_stored():
    assert {p.stem for p in STORED} >= {
        "gimp",
        "mgi",
        "mrm_record",
        "mrm_relation",
        "porpoise",
        "mcat",
        "pathomic_fusion",
    }


@pytest.mark.parametrize("name", method_names())
def test_options_in_groups_go_on_loading(name):
    """Whatever is called otherwise one day has its new name in `renamed`; options that are new have their defaults."""
    path, today = GROUPED / f"{name}.json", get_method(name).Options
    assert path.is_file(), f"store what its options are called: python tests/models/test_stored.py {name}"
    then = flat(json.loads(path.read_bytes()))
    now = flat(today.parse(today.stored(json.loads(path.read_bytes()))).model_dump(mode="json"))
    moved = {today.renamed.get(k, k): v for k, v in then.items()}
    words = {
        k: today.reworded[k].get(v, v) if k in today.reworded and isinstance(v, str | bool) else v
        for k, v in moved.items()
    }
    assert {k: now.get(k, "gone") for k in words} == words


class Part(Options):
    size: int = 1


class Renamed(Options):
    renamed: ClassVar = {"img_size": "image.size", "width": "dim", "old.deep.depth": "depth"}
    image: Part = Part()
    dim: int = 2
    depth: int = 3


def test_renamed_keys_take_their_new_places():
    given = {"img_size": 7, "width": 8, "old": {"deep": {"depth": 9}}}
    assert Renamed.stored(given) == {"image": {"size": 7}, "dim": 8, "depth": 9}
    assert Renamed.parse(Renamed.stored(given)) == Renamed(image=Part(size=7), dim=8, depth=9)
    assert given == {"img_size": 7, "width": 8, "old": {"deep": {"depth": 9}}}, "what was given stays as it was"
    assert Renamed.stored({"dim": 5, "image": {"size": 4}}) == {"dim": 5, "image": {"size": 4}}, "new names stay"


def test_a_key_under_both_names_is_refused():
    with pytest.raises(MethodError, match=r"(?s)method.img_size.*image.size.*\n.*method.width"):
        Renamed.stored({"img_size": 7, "image": {"size": 7}, "width": 1, "dim": 1})


def store(names: list[str]) -> None:
    for name in names:
        options = get_method(name).Options.parse(small_options(name)).model_dump(mode="json")
        (GROUPED / f"{name}.json").write_text(json.dumps(options, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    store(sys.argv[1:])
