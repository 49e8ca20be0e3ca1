"""Where encoders start: ImageNet or MAE weights by file, heads of every kind, genes beside the image with their controls."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from models.contract.start_files import start_keys
from models.encoders.beit import BeitOptions
from models.registry import get_method, method_names
from tests.diagonal import cells, few
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.launching import series
from trainer.config import yaml_text
from trainer.config.recipe import find_recipe
from trainer.downstream.metrics.predictions import Predictions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
Pretrained = Callable[[str], Path]


def demo_options(method: str) -> Any:
    return get_method(method).Options.parse(yaml_text.read(find_recipe(method, "demo", True))["method"])


# One that was pre-trained with BEiT's parts keeps them: no plain ViT's file fits it (tests/models/test_simmim_equations.py).
FROM_FILE = [
    m
    for m in method_names()
    if list(start_keys(get_method(m).Options)) and not isinstance(demo_options(m).image, BeitOptions)
]


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "result.json").read_bytes())


def told(out: Path) -> Predictions:
    return Predictions.load(out / result(out)["predictions"][0])


@pytest.mark.parametrize(("method", "suffix"), cells([".safetensors", ".pth"], FROM_FILE, 1))
def test_image_weights_by_file(method: str, suffix: str, finetune: Finetune, tmp_path: Path) -> None:
    """A plain timm ViT (or MAE's checkpoint of one), classifier and decoder left out; the frozen encoder is the file's."""
    o = demo_options(method).image
    vit = timm.models.vision_transformer.VisionTransformer(
        o.image_size,
        o.patch,
        embed_dim=o.dim,
        depth=o.depth,
        num_heads=o.heads,
        mlp_ratio=o.mlp_ratio,
        num_classes=7,
    )
    torch.manual_seed(0)
    state, file = {n: torch.randn_like(w) / 8 for n, w in vit.state_dict().items()}, tmp_path / f"vit{suffix}"
    if suffix == ".pth":
        torch.save(
            {"model": {**state, "decoder_embed.weight": torch.zeros(3), "mask_token": torch.zeros(1, 1, 3)}}, file
        )
    else:
        save_file(state, file)
    words = ["--task", "demo_subtype", "--method", method, "--init", str(file), "--recipe", "demo"]
    ended = finetune(tmp_path / "run", *words, "protocol.freeze=encoder")
    assert ended.codes == [0], ended.text
    found = result(tmp_path / "run")
    assert found["init"] == {"kind": "file", "path": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert found["hashes"]["checkpoint"] == found["init"]["sha256"]
    assert found["first_line"] == "NOT CHECKED for leaks: the patients behind a weights file are not known"
    after = load_file(next((tmp_path / "run").rglob("finetune.safetensors")))
    blocks = [n for n in state if n.startswith("blocks.")]
    assert len(blocks) == 12 * o.depth
    for name in blocks:
        # A teacher begins as a copy of what it follows, and nothing here moves it.
        ours = {n: w for n, w in after.items() if n.startswith("encoder.") and ".momentum_" not in n}
        same = [n for n, w in ours.items() if n.endswith(f".{name}") and w.equal(state[name])]
        assert len(same) == 1, name

    save_file({n: w for n, w in state.items() if "norm2" not in n}, tmp_path / "less.safetensors")
    words[words.index(str(file))] = str(tmp_path / "less.safetensors")
    ended = finetune(tmp_path / "less", *words)
    assert ended.codes == [2], ended.text
    assert "less.safetensors does not fit; give a file with all tensors" in ended.text
    assert f"lacks {2 * o.depth} of" in ended.text
    assert "blocks.0.norm2.weight" in ended.text


@pytest.mark.parametrize("head", ["linear", "mlp", "bag"])
@pytest.mark.parametrize("method", ["gimp", "mrm_relation"])
def test_heads(method: str, head: str, pretrained: Pretrained, finetune: Finetune, tmp_path: Path) -> None:
    words = ["--task", "demo_grade", "--method", method, "--init", str(pretrained(method)), "output.hidden=24"]
    ended = finetune(tmp_path / "run", *words, f"output.head={head}")
    assert ended.codes == [0], ended.text
    made = load_file(next((tmp_path / "run").rglob("finetune.safetensors")))
    shapes = {n: tuple(w.shape) for n, w in made.items() if n.startswith("head.") and w.ndim == 2}
    dim = next(iter(shapes.values()))[1]
    assert shapes == {
        "linear": {"head.out.weight": (4, dim)},
        "mlp": {"head.fc1.weight": (24, dim), "head.fc2.weight": (4, 24)},
        "bag": {
            "head.tanh.weight": (24, dim), "head.gate.weight": (24, dim), "head.weigh.weight": (1, 24), "head.out.weight": (4, dim),
        },
    }[head]  # fmt: skip
    assert told(tmp_path / "run").score.shape == (result(tmp_path / "run")["n"]["test"], 4), "a column a grade"


@pytest.mark.parametrize("decoder", ["two_way", "upernet", "linear"])
def test_decoders_of_masks(decoder: str, pretrained: Pretrained, finetune: Finetune, tmp_path: Path) -> None:
    """From the image alone; two-way then has no genes as queries."""
    words = ["--task", "demo_lesions", "--method", "mgi", "--init", str(pretrained("mgi")), "output.width=16"]
    ended = finetune(tmp_path / "run", *words, f"output.decoder={decoder}")
    assert ended.codes == [0], ended.text
    found = result(tmp_path / "run")
    assert found["inputs"] == ["image"]
    assert found["examples"]
    with np.load(tmp_path / "run" / found["examples"][0]) as shown:
        assert shown["truth_HW"].shape == shown["predicted_HW"].shape == shown["image_HWC"].shape[:2] == (96, 96)


@pytest.mark.parametrize("method", few(FROM_FILE))
def test_parts_of_beit(method: str, pretrained: Pretrained, finetune: Finetune, tmp_path: Path) -> None:
    """Relative positions and layer scale on a pre-trained encoder that sees larger images, with SETR's decoder: named as new, and
    trained. The first loss is that of the encoder without them."""
    words = ["--task", "demo_lesions", "--method", method, "--init", str(pretrained(method)), "output.width=16"]
    parts = ["encoder.relative_positions=true", "encoder.layer_scale=1.0", "method.image.image_size=96"]
    ended = finetune(tmp_path / "run", *words, *parts, "protocol.lr=1e-2")
    assert ended.codes == [0], ended.text
    new = result(tmp_path / "run")["init"]["new"]
    assert f"{len(new)} tensors of the encoder are new, in no file: {new[0]}" in ended.text
    made = load_file(next((tmp_path / "run").rglob("finetune.safetensors")))
    tables = {n: made[f"encoder.{n}"] for n in new if n.endswith("bias_table")}
    assert len(new) == 3 * len(tables)
    options = demo_options(method)
    extra = 3 if options.image.cls_token else 0
    offsets = (2 * (96 // options.image.patch) - 1) ** 2
    assert all(len(w) == offsets + extra and w.any() for w in tables.values())
    assert all((made[f"encoder.{n}"] != 1).any() for n in new if n.endswith("gamma"))

    ended = finetune(tmp_path / "without", *words, parts[2], "protocol.lr=1e-2")
    assert ended.codes == [0], ended.text
    assert "new" not in result(tmp_path / "without")["init"]
    tasks = [
        json.loads((tmp_path / n / "config.json").read_bytes())["config"]["about"]["task"] for n in ("run", "without")
    ]
    assert tasks[0]["encoder"] == {"relative_positions": True, "layer_scale": 1.0, "last_norm": True}
    assert "encoder" not in tasks[1], "a task without it has the hash that it had before there was such a section"
    losses = [series(tmp_path / n / "seed-0" / "lr-0.01", "loss") for n in ("run", "without")]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5), "before the first update"
    assert losses[0][1] != losses[1][1]


def test_the_start_of_pretraining_stands_in_the_result(
    pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    """And an encoder without its last norm trains: nothing of the run's weights is missed but that norm."""
    run = shutil.copytree(pretrained("mrm_record"), tmp_path / "pretraining")
    card = json.loads((run / "method.json").read_bytes())
    card["options"]["image"] |= {"init": "file", "init_file": "far/gone.pth"}
    (run / "method.json").write_text(json.dumps(card))
    words = ["--task", "demo_subtype", "--method", "mrm_record", "--init", str(run), "encoder.last_norm=false"]
    ended = finetune(tmp_path / "run", *words)
    assert ended.codes == [0], ended.text
    assert result(tmp_path / "run")["init"]["pretrained_from"] == "gone.pth"
    made = load_file(next((tmp_path / "run").rglob("finetune.safetensors")))
    before = set(load_file(run / "weights.safetensors"))
    assert before - {n.removeprefix("encoder.") for n in made} == {"encoder.norm.weight", "encoder.norm.bias"}


def test_setr_decoder(finetune: Finetune, tmp_path: Path) -> None:
    words = [
        "--task",
        "demo_lesions",
        "--method",
        "mgi",
        "--init",
        "scratch",
        "--recipe",
        "demo",
        "method.image.patch=8",
    ]
    ended = finetune(tmp_path / "run", *words, "output.decoder=setr_pup", "output.width=16", "output.auxiliary=0.4")
    assert ended.codes == [0], ended.text
    made = load_file(next((tmp_path / "run").rglob("finetune.safetensors")))
    assert sum(n.startswith("head.convs.") for n in made) == 3
    assert "head.auxiliary.out.weight" in made


@pytest.mark.parametrize(
    ("method", "task", "more"),
    [
        ("gimp", "demo_subtype", ["output.head=mlp", "output.hidden=16"]),
        ("mgi", "demo_lesions", ["output.decoder=two_way", "output.width=16"]),
    ],
)
def test_genes_beside_the_image_and_their_controls(
    method: str, task: str, more: list[str], pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    """GiMP: slide and genes into an MLP; MGI: genes are the queries of the two-way decoder. Each control is another look with
    the same weights, at other genes or none."""
    words = [
        "--task",
        task,
        "--method",
        method,
        "--init",
        str(pretrained(method)),
        *more,
        "protocol.lr=1e-2",
        "protocol.steps=4",
    ]
    ended = finetune(tmp_path / "run", *words, "inputs=multimodal", "controls=[shuffled, missing]")
    assert ended.codes == [0], ended.text
    whole = result(tmp_path / "run")
    assert len(whole["inputs"]) == 2
    assert "rna" in whole["inputs"]
    scores = {"whole": told(tmp_path / "run")}
    for control in ("shuffled", "missing"):
        found = result(tmp_path / "run" / f"control-{control}")
        assert found["control"] == control
        assert (found["chosen"], found["hashes"]) == (whole["chosen"], whole["hashes"])
        scores[control] = told(tmp_path / "run" / f"control-{control}")
        np.testing.assert_array_equal(scores[control].keys_N, scores["whole"].keys_N)
        np.testing.assert_array_equal(scores[control].target, scores["whole"].target)
    if method == "gimp":
        different = [
            (scores[a].score != scores[b].score).all() for a, b in (("whole", "shuffled"), ("whole", "missing"))
        ]
        assert all(different), "genes reach the answer"
    image = finetune(tmp_path / "image", *words)
    assert image.codes == [0], image.text
    assert result(tmp_path / "image")["inputs"] == [i for i in whole["inputs"] if i != "rna"]
