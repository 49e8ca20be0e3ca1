"""Protocols say things for one kind of image encoder: they are applied where the encoder is of it, and left out aloud elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from models.registry import get_method
from trainer.downstream.task.by_encoder import applied, kind_in
from trainer.downstream.task.read import build_task
from trainer.downstream.task.schema import Task
from trainer.downstream.task.sections import Encoder
from trainer.errors import UserError


def task(*words: str) -> Task:
    return build_task("demo_subtype", list(words))[0]


def said(name: str, given: Task, options: dict[str, Any] | None = None) -> Any:
    return applied(given, get_method(name), options or {}, given.method)


def test_a_vision_transformer_takes_options_and_parts() -> None:
    got = said("mrm_record", task("recipe=mrm_record"))
    assert got.method == {"image": {"drop_path": 0.1, "positions": "learned"}}
    assert got.parts == Encoder(last_norm=False)
    assert got.left_out == ()
    got = said("mgi", build_task("demo_lesions", ["recipe=mrm_record_siim"])[0])
    assert got.method["image"]["image_size"] == 512
    assert got.parts == Encoder(last_norm=False, relative_positions=True, layer_scale=1.0)


def test_the_tasks_own_words_lie_above() -> None:
    got = said(
        "mgi", task("recipe=mrm_record", "method.image.drop_path=0.3", "encoder.last_norm=true", "image_size=32")
    )
    assert got.method == {"image": {"drop_path": 0.3, "positions": "learned", "image_size": 32}}
    assert got.parts == Encoder(last_norm=True)
    got = said("mgi", task("image_size=32", "method.image.image_size=64"))
    assert got.method == {"image": {"image_size": 64}}


def test_another_kind_is_left_out_aloud() -> None:
    resnet = {"image": {"kind": "resnet", "name": "resnet18"}}
    given = task("recipe=mrm_record", "image_size=64", "resnet={image_size: 96}")
    assert kind_in(get_method("simclr"), {}) == "vit"
    assert kind_in(get_method("simclr"), resnet) == "resnet"
    got = said("simclr", given, resnet)
    assert got.method == {"image": {"image_size": 64}}
    assert got.parts == Encoder()
    (line,) = got.left_out
    assert line == "vit: drop_path, last_norm, positions: left out, the image encoder of simclr is a resnet"
    (line,) = said("gimp", task("recipe=mae")).left_out
    assert line == "vit: drop_path: left out, the image encoder of gimp has options of neither kind"


def test_words_that_choose_the_kind_decide() -> None:
    given = task("recipe=mae", "method.image.kind=resnet", "method.image.name=resnet18")
    got = said("simclr", given)
    assert got.method == {"image": {"kind": "resnet", "name": "resnet18"}}
    assert len(got.left_out) == 1


def test_the_size_of_images_is_a_key_of_its_own() -> None:
    assert said("unet", task("image_size=64")).method == {"image_size": 64}
    with pytest.raises(UserError, match="image_size: gimp takes no images"):
        said("gimp", task("image_size=64"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("vit={drop_paths: 0.1}", r"vit\.drop_paths: unknown key; did you mean 'drop_path'"),
        ("resnet={last_norm: false}", r"resnet\.last_norm: unknown key"),
        ("vit={init_file: a.pth}", r"vit\.init_file: unknown key"),
    ],
)
def test_keys_that_there_are_not(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        task(word)


def test_parts_are_for_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vit\.last_norm: mode linear looks at the encoder as pre-training left it"):
        build_task("demo_subtype", ["recipe=mrm_record"], "linear")
    with pytest.raises(UserError, match=r"vit\.relative_positions: protocol\.freeze=encoder would never train it"):
        build_task("demo_lesions", ["recipe=mrm_record_siim", "protocol.freeze=encoder"])
    assert build_task("demo_subtype", ["recipe=mae"], "linear")[0].vit == {"drop_path": 0.1}
