"""The picture of pooled features: groups stay groups, and it is a picture."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from models.contract import Label, Schema
from trainer.probe.projection import draw, label_to_show, project


def test_groups_stay_apart() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (20, 8)), rng.normal(8, 1, (20, 8))])
    at = project(x)
    assert at.shape == (40, 2)
    within = max(
        np.linalg.norm(at[:20] - at[:20].mean(0), axis=1).mean(),
        np.linalg.norm(at[20:] - at[20:].mean(0), axis=1).mean(),
    )
    assert np.linalg.norm(at[:20].mean(0) - at[20:].mean(0)) > 2 * within
    assert np.array_equal(project(x), at), "the same seed, the same picture"


def test_the_picture() -> None:
    png = draw(np.arange(8.0).reshape(4, 2), np.array([0, 0, 1, 1]), ("a", "b"), "title")
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert pixels.shape[0] > 300
    colours = {tuple(c) for c in pixels.reshape(-1, 3)[::7].tolist()}
    assert len(colours) > 3, "two groups, text and a frame on white"


def test_the_label_shown() -> None:
    number, site, subtype = (
        Label("age", "number"),
        Label("site", "class", ("x",)),
        Label("subtype", "class", ("a", "b")),
    )
    assert label_to_show(Schema({}, {"age": number})) is None
    assert label_to_show(Schema({}, {"site": site, "subtype": subtype})) == "subtype"
    assert label_to_show(Schema({}, {"age": number, "site": site})) == "site"
