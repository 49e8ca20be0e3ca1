"""Fields that may lack in a whole data set: read where they are, told by presence masks, refused where they are of another kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.contract import Method, Record, Sample, Schema, Stage
from shards.__main__ import main
from shards.errors import DataError
from trainer.config.recipe import build_config
from trainer.data import Data, open_data
from trainer.runtime import Runtime

VIEWS = ("image", "image_2", "image_3")
STAGE = Stage("pretrain", ("image",), optional=VIEWS[1:])


class Viewer(Method):
    """Reads up to three images of a study."""

    def __init__(self, schema: Schema):
        super().__init__(None, schema)

    def sample(self, record: Record, rng: np.random.Generator) -> Sample:
        present = {n: record.has(n) for n in VIEWS}
        zero = np.zeros((4, 4, 1), np.uint8)
        arrays = {n: np.asarray(record.read(n))[:4, :4, :1] if has else zero for n, has in present.items()}
        return Sample(arrays, present)


def packed(folder: Path, views: list[int], third: str = "field") -> Path:
    """A sample a number, with so many images, of its number's grey and one more a view."""
    folder.mkdir()
    lines = [
        "sample,patient,split," + ",".join(f"{third if n == VIEWS[2] else 'field'}:{n}" for n in VIEWS[: max(views)])
    ]
    for i, count in enumerate(views):
        for k in range(count):
            grey = (np.arange(64).reshape(8, 8) + 20 * i + k).astype(np.uint8)
            Image.fromarray(grey).save(folder / f"{i}_{k}.png")
        cells = [f"{i}_{k}.png" if k < count else "" for k in range(max(views))]
        lines.append(f"s{i},p{i},{'val' if i > 3 else 'train'}," + ",".join(cells))
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    assert main(["pack", str(folder / "m.csv"), "--out", str(folder / "set"), "--meaning", "image.bits=8"]) == 0
    return folder / "set"


def opened(*folders: Path) -> Data:
    paths = ",".join(map(str, folders))
    one = f"data.path={paths}" if len(folders) == 1 else f"data.path=[{paths}]"
    return open_data(build_config("simclr", "demo", [one, "global_batch=4", "micro_batch=4", "data.workers=0"])[0])


def first_batch(data: Data) -> dict[int, tuple[list[bool], list[int]]]:
    """{grey of the first image: (which are present, the first pixel of each)} of a batch."""
    config = build_config(
        "simclr", "demo", [f"data.path={data.paths[0]}", "global_batch=4", "micro_batch=4", "data.workers=0"]
    )[0]
    method, runtime = Viewer(data.schema), Runtime(0, 1, 0, torch.device("cpu"))
    data.check(config, STAGE, 1)
    loader = data.loader(config, STAGE, method, runtime)
    batch = next(iter(loader.iterate(0, 0))).micro[0]
    loader.close()
    has = torch.stack([batch.present[n] for n in VIEWS], 1).tolist()
    grey = torch.stack([batch[n][:, 0, 0, 0] for n in VIEWS], 1).tolist()
    return {int(g[0]): (h, g) for h, g in zip(has, grey, strict=True)}


def test_a_stage_reads_both_kinds_of_fields():
    assert STAGE.reads == VIEWS
    assert Stage("pretrain", ("image",)).reads == ("image",)


def test_presence_masks_say_which_images_a_study_has(tmp_path):
    data = opened(packed(tmp_path / "a", [1, 2, 3, 1, 2]))
    found = first_batch(data)
    assert found == {
        0: ([True, False, False], [0, 0, 0]), 20: ([True, True, False], [20, 21, 0]), 40: ([True] * 3, [40, 41, 42]),
        60: ([True, False, False], [60, 0, 0]),
    }  # fmt: skip
    data.close()


def test_a_data_set_without_them_is_one_of_single_images(tmp_path):
    data = opened(packed(tmp_path / "a", [1, 1, 1, 1, 1]))
    assert "image_2" not in data.schema.fields
    assert {h for has, _ in first_batch(data).values() for h in [tuple(has)]} == {(True, False, False)}
    data.close()


def test_both_mix(tmp_path):
    data = opened(packed(tmp_path / "a", [1, 1, 1, 1]), packed(tmp_path / "b", [2, 2, 2, 2]))
    assert "image_2" not in data.schema.fields, "a mix offers what all its parts have"
    for i in range(8):
        made = Viewer(data.schema).sample(data.parts[i], np.random.default_rng(0))
        assert made.present == {"image": True, "image_2": i > 3, "image_3": False}
    data.close()


def test_a_view_of_another_kind_is_refused(tmp_path):
    data = opened(packed(tmp_path / "a", [3, 3, 3, 3, 3], third="text"))
    with pytest.raises(DataError, match=r"field 'image_3' is text, and 'image' is image.*pack 'image_3' as image"):
        first_batch(data)
    data.close()
