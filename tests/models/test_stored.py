"""Runs that were stored before a rename still load: tests/models/stored/METHOD.json is the method.json of such a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from synthetic import schema

from models.contract import MethodError, Options
from models.registry import get_method

STORED = sorted((Path(__file__).parent / "stored").glob("*.json"))


def values(options: dict) -> list:
    """What the options say, whatever they are called."""
    flat = [values(v) if isinstance(v, dict) else [json.dumps(v)] for v in options.values()]
    return sorted(v for part in flat for v in part)


@pytest.mark.parametrize("path", STORED, ids=lambda p: p.stem)
def test_a_stored_run_loads(path):
    """Every value that it was given arrives under today's names, and the method is built of them."""
    card = json.loads(path.read_bytes())
    cls = get_method(card["method"])
    named = cls.Options.stored(card["options"])
    options = cls.Options.parse(named)
    assert values(named) == values(card["options"])
    dumped = options.model_dump(mode="json")
    assert {k: dumped[k] for k in named} == named
    torch.manual_seed(0)
    method = cls(options, schema())
    assert sum(p.numel() for p in method.parameters()) > 0


def test_every_method_of_then_is_stored():
    assert {p.stem for p in STORED} >= {"gimp", "mgi", "mrm_record", "mrm_relation"}


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
