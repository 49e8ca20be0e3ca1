"""Exports: plain timm gives the same features, the card's code makes the same input, a method comes back without its data."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from launch.export import main
from models.contract import Batch, Method
from models.encoders.vit import ViT
from shards.read.dataset import Dataset
from tests.trainer.launching import TINY, launch
from trainer.errors import UserError
from trainer.export.card import read_results, validation_row
from trainer.export.export import export
from trainer.export.opened import built, load_exported, open_finished
from trainer.export.terms import Stated
from trainer.export.timm import OTHER, beit_args, model_args
from trainer.state.finished import open_run

SHORT = ["steps=2", "epochs=null", "stages.pretrain.epochs=null", "log.tensorboard=false", "data.workers=1"]
UNSEEN = [*SHORT, "data.val_split=''"]
VIT = ["method.image.dim=32", "method.image.depth=2", "method.image.heads=4"]
RUNS = {
    "mgi": ["--method", "mgi", *UNSEEN, *VIT, "global_batch=4", "method.image.init=scratch"],
    "mgi_class": [
        "--method", "mgi", *UNSEEN, *VIT, "global_batch=4", "method.image.cls_token=true", "method.image.positions=learned",
        "method.learn_alpha=true", "method.image.mlp_ratio=1.3", "method.image.drop_path=0.1", "method.genes.drop_constant=true",
    ],
    "relation": ["--method", "mrm_relation", *UNSEEN, *VIT, "global_batch=4"],
    "relation_class": [
        "--method", "mrm_relation", *UNSEEN, *VIT, "global_batch=4", "method.match_feature=cls", "method.view.fit=stretch",
    ],
    "record": ["--method", "mrm_record", *SHORT, *VIT, "global_batch=4"],
    "record_colour": ["--method", "mrm_record", *UNSEEN, *VIT, "global_batch=4", "method.view.grayscale=false"],
    "gimp": [*TINY, "steps=2"],
}  # fmt: skip
WITH_VIT = [n for n in RUNS if n != "gimp"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, demo_cohort: Path) -> Callable[[str], Path]:
    """A finished run by name, trained when it is first asked for."""
    root = tmp_path_factory.mktemp("export")

    def finished(name: str) -> Path:
        out = root / name
        if not out.exists():
            ended = launch(1, [*RUNS[name], f"out={out}"], demo_cohort)
            assert ended.codes == [0], ended.text
        return out

    return finished


@dataclass
class Picture:
    """A record that holds one image."""

    image: np.ndarray
    key: str = "one"
    patient: str = "one"
    labels: Mapping[str, Any] = None  # type: ignore[assignment]

    def has(self, name: str) -> bool:
        return name == "image"

    def read(self, name: str) -> Any:
        return self.image


def trained(out: Path) -> Method:
    """The run's method as pre-training left it."""
    opened = open_run(out)
    method = opened.build()
    method.load_state_dict(load_file(out / "weights.safetensors"), strict=True)
    method.enter("")
    method.inputs = ("image",)
    return method.eval()


def batch_of(method: Method, image: np.ndarray) -> Batch:
    sample: Any = Picture(image)
    return method.collate([method.sample(sample, np.random.default_rng(0))])


def seen_by(method: Method, data: Batch) -> torch.Tensor:
    """What reaches the image encoder of a batch, [B, 3, H, W]."""
    seen: list[torch.Tensor] = []
    image: Any = method.image_encoder()
    hook = image.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    method.encode(data)
    hook.remove()
    return seen[0]


def code_of(folder: Path) -> dict[str, Any]:
    """Names defined by the card's code, which a reader would run in the folder."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    code = code.split("image = ImageOps.exif_transpose(Image.open")[0].replace("local-dir:.", f"local-dir:{folder}")
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def images(demo_cohort: Path) -> list[np.ndarray]:
    """A stored image, and shapes and channels that the cohort does not have."""
    data, rng = Dataset.open(demo_cohort), np.random.default_rng(0)
    stored = next(r for r in (data[i] for i in range(len(data))) if r.has("image")).read("image")
    return [stored, *(rng.integers(0, 255, s, dtype=np.uint8) for s in ((61, 90, 3), (150, 75, 3)))]


@torch.no_grad()
@pytest.mark.parametrize("name", WITH_VIT)
def test_plain_timm_gives_the_same_features_from_the_same_image(
    name: str, run: Callable[[str], Path], tmp_path: Path, demo_cohort: Path
) -> None:
    folder, _ = export(run(name), "timm", tmp_path / "out")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    method, card = trained(run(name)), code_of(folder)
    view = method.image_view()
    assert view is not None
    for image in images(demo_cohort):
        batch = batch_of(method, image)
        expected = method.encode(batch)
        torch.testing.assert_close(card["prepare"](image), seen_by(method, batch), atol=1e-6, rtol=0)
        tokens_BLD = card["model"].forward_features(card["prepare"](image))
        assert tokens_BLD.shape == expected["tokens_BLD"].shape
        torch.testing.assert_close(tokens_BLD, expected["tokens_BLD"], atol=1e-5, rtol=0)
        if view.pool:
            torch.testing.assert_close(card["model"](card["prepare"](image)), expected["pooled_BD"], atol=1e-5, rtol=0)


@torch.no_grad()
@torch.no_grad()
def test_an_approximate_gelu_is_told_to_timm_and_refused_where_it_has_none() -> None:
    vit = ViT(32, 8, dim=32, depth=2, heads=4).eval()
    block: Any
    for block in vit.blocks:
        block.mlp.gelu = "tanh"
        block.mlp.fc1.weight.mul_(8)
    x_BCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    args = model_args(vit, "avg")
    gaps = []
    for given in (args, {k: v for k, v in args.items() if k != "act_layer"}):
        model: Any = timm.create_model(OTHER, num_classes=0, **given).eval()
        model.load_state_dict(vit.state_dict())
        gaps.append(float((model.forward_features(x_BCHW) - vit(x_BCHW)).abs().max()))
    assert gaps[0] < 1e-5 < gaps[1]
    vit.add_parts(relative_positions=True)
    with pytest.raises(UserError, match="an approximate GELU; use --to safetensors"):
        beit_args(vit, "avg")


@pytest.mark.parametrize("name", ["mgi", "relation", "record", "record_colour"])
def test_the_cards_code_takes_single_channels_as_the_method_does(
    name: str, run: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, _ = export(run(name), "timm", tmp_path / "out")
    method, prepare = trained(run(name)), code_of(folder)["prepare"]
    image = np.random.default_rng(1).integers(0, 255, (60, 50, 1), dtype=np.uint8)
    torch.testing.assert_close(prepare(image), seen_by(method, batch_of(method, image)), atol=1e-6, rtol=0)
    assert prepare(image[..., 0]).equal(prepare(image))


@torch.no_grad()
def test_all_three_channels_of_a_scan(run: Callable[[str], Path], tmp_path: Path) -> None:
    """method.view.channels=all3 changes no weight, so that the run of one channel serves."""
    out = Path(shutil.copytree(run("mgi"), tmp_path / "run"))
    card = json.loads((out / "method.json").read_text())
    card["options"]["view"]["channels"] = "all3"
    (out / "method.json").write_text(json.dumps(card))
    method, prepare = trained(out), code_of(export(out, "timm")[0])["prepare"]
    image = np.random.default_rng(1).integers(0, 255, (60, 50, 3), dtype=np.uint8)
    torch.testing.assert_close(prepare(image), seen_by(method, batch_of(method, image)), atol=1e-6, rtol=0)


def test_timm_builds_it_from_its_arguments_alone(run: Callable[[str], Path], tmp_path: Path) -> None:
    folder, _ = export(run("mgi_class"), "timm", tmp_path / "out")
    args = json.loads((folder / "config.json").read_text())["model_args"]
    model = timm.models.vision_transformer.VisionTransformer(num_classes=0, **args)
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    assert model.pos_embed.shape == (1, model.patch_embed.num_patches + 1, 32)


def test_timm_reads_the_preprocessing(run: Callable[[str], Path], tmp_path: Path) -> None:
    told = {}
    for name in ("mgi", "relation", "record"):
        folder, _ = export(run(name), "timm", tmp_path / name)
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
        told[name] = timm.data.resolve_model_data_config(model)
        content = json.loads((folder / "config.json").read_text())
        assert content["medpair"]["preprocessing"]["per_image_standardised"] == (name == "mgi")
        assert ("z-score per slice" in (folder / "README.md").read_text()) == (name == "mgi")
    assert (told["mgi"]["interpolation"], told["mgi"]["crop_mode"]) == ("bilinear", "squash")
    assert tuple(told["mgi"]["mean"]) == (0, 0, 0)
    assert (told["relation"]["interpolation"], told["relation"]["crop_mode"]) == ("bilinear", "center")
    assert tuple(told["relation"]["mean"]) == (0.485, 0.456, 0.406)
    assert (told["record"]["interpolation"], told["record"]["crop_pct"]) == ("bicubic", 1.0)
    assert tuple(told["record"]["mean"]) == (0.43, 0.43, 0.43)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gimp", "mgi_class", "record"])
def test_a_whole_method_comes_back_without_its_data(
    name: str, run: Callable[[str], Path], tmp_path: Path, demo_cohort: Path
) -> None:
    folder, _ = export(run(name), "safetensors", tmp_path / "out")
    opened = open_run(run(name))
    there = built(opened.method_name, opened.options, opened.schema, opened.weights)
    back, data = load_exported(folder), Dataset.open(demo_cohort)
    record = next(r for r in (data[i] for i in range(len(data))) if all(r.has(n) for n in there.inputs))
    made = [m.encode(m.collate([m.sample(record, np.random.default_rng(0))])) for m in (there, back)]
    assert made[0]["pooled_BD"].equal(made[1]["pooled_BD"])
    assert not (folder / "patients.txt").exists()
    assert str(demo_cohort) not in (folder / "method.json").read_text() + (folder / "README.md").read_text()


def test_start_files_are_not_needed_again(run: Callable[[str], Path], tmp_path: Path) -> None:
    out = Path(shutil.copytree(run("mgi"), tmp_path / "run"))
    card = json.loads((out / "method.json").read_text())
    card["options"]["image"] |= {"init": "file", "init_file": str(tmp_path / "gone.pth")}
    (out / "method.json").write_text(json.dumps(card))
    stated = Stated(licence=["gone.pth=CC0-1.0"], commercial=["gone.pth=yes"], citation=["gone.pth=nobody"])
    folder, _ = export(out, "timm", stated=stated)
    assert folder == out / "export" / "timm"
    assert "gone.pth" in (folder / "README.md").read_text()
    assert str(tmp_path) not in (folder / "README.md").read_text() + (folder / "config.json").read_text()


# -------------------------------------------------------------------------------------------------------------------- card


def test_the_card_says_data_licence_and_held_back_values(run: Callable[[str], Path], tmp_path: Path) -> None:
    folder, _ = export(run("record"), "timm", tmp_path / "out")
    text, opened = (folder / "README.md").read_text(), open_finished(run("record"))
    last = [json.loads(line) for line in (run("record") / "metrics.jsonl").read_text().splitlines()][-1]
    assert validation_row(opened) == last
    assert f"| loss/report | {last['val/loss/report']:.4f} | {last['chance/report']:.4f} |" in text
    for words in (opened.method.paper, "CC0-1.0", "Weights inherit the terms", opened.run.fingerprint, opened.sha256):
        assert words in text


def result(sha256: str) -> dict[str, Any]:
    return {
        "format": 1, "task": "severe", "kind": "binary", "method": "gimp", "mode": "linear", "inputs": ["image"],
        "init": {"kind": "pretrained", "path": "runs/x", "sha256": sha256}, "first_line": "no test patient was seen",
        "fraction": 0.1, "shots": None, "seeds": [0, 1, 2], "n": {"train": 3, "val": 4, "test": 40, "test_patients": 38},
        "primary": "auc", "metrics": {"auc": {"value": 0.8125, "interval": [0.7, 0.9]}},
    }  # fmt: skip


def test_results_of_this_run_stand_in_the_card_and_others_are_refused(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = open_run(run("gimp")).sha256()
    mine, other = tmp_path / "mine" / "result.json", tmp_path / "other.json"
    mine.parent.mkdir()
    mine.write_text(json.dumps(result(sha256)))
    other.write_text(json.dumps(result("0" * 64)))
    (tmp_path / "torn.json").write_text('{"task": "x"}')
    folder, _ = export(run("gimp"), "safetensors", tmp_path / "out", [tmp_path / "mine"])
    line = "| severe | linear | 10 % | auc * | 0.8125 | 0.7000 to 0.9000 | 40 samples of 38 patients, 3 seeds | no test patient was seen |"
    assert line in (folder / "README.md").read_text()
    words = [str(run("gimp")), "--to", "safetensors", "--out", str(tmp_path / "no"), "--results", str(other)]
    assert main([*words, str(tmp_path / "torn.json"), str(tmp_path / "none.json")]) == 2
    said = capsys.readouterr().err
    assert f"it started from weights {'0' * 12}, not from this run's {sha256[:12]}" in said
    assert "torn.json: not a result (it lacks mode, init" in said
    assert "none.json: cannot be read" in said
    assert not (tmp_path / "no").exists()
    assert read_results([], sha256) == []


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_ino) for p in folder.iterdir()}


@pytest.mark.parametrize("to", ["timm", "safetensors"])
def test_a_second_export_knows_its_own(run: Callable[[str], Path], tmp_path: Path, to: Any) -> None:
    out = tmp_path / "out"
    export(run("mgi"), to, out)
    first = contents(out)
    assert export(run("mgi"), to, out) == (
        out,
        "the export of these weights stands there already, whole: nothing was written",
    )
    assert contents(out) == first
    (tmp_path / "result.json").write_text(json.dumps(result(open_run(run("mgi")).sha256())))
    assert "only its model card was written anew" in export(run("mgi"), to, out, [tmp_path / "result.json"])[1]
    assert "| severe |" in (out / "README.md").read_text()
    assert {n for n, v in contents(out).items() if v != first[n]} == {"README.md"}
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds an export of these weights in which notes.txt is not what"):
        export(run("mgi"), to, out)
    (out / "notes.txt").unlink()
    torn = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(torn[:-1] + b"x")
    with pytest.raises(UserError, match=r"holds an export of other weights than those of the run"):
        export(run("mgi"), to, out)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


# --------------------------------------------------------------------------------------------------------------- bad input


def test_wrong_folders_are_refused(
    run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: str) -> str:
        assert main([*words]) == 2
        return capsys.readouterr().err

    assert "no such folder" in refused(str(tmp_path / "none"), "--to", "timm")
    assert "is no run of pre-training" in refused(str(tmp_path), "--to", "timm")
    unfinished = Path(shutil.copytree(run("mgi"), tmp_path / "unfinished"))
    (unfinished / "weights.safetensors").unlink()
    assert "is no finished run (weights.safetensors missing)" in refused(str(unfinished), "--to", "timm")
    (unfinished / "weights.safetensors").write_bytes(b"torn")
    assert "not a readable safetensors file" in refused(str(unfinished), "--to", "timm")
    save_file({"a": torch.zeros(1)}, unfinished / "weights.safetensors")
    assert "has 1 tensors that the model does not: a" in refused(str(unfinished), "--to", "timm")
    (unfinished / "result.json").write_text("{}")
    assert "holds no whole fine-tuned result" in refused(str(unfinished), "--to", "timm")
    said = refused(str(run("gimp")), "--to", "timm", "--out", str(tmp_path / "new"))
    assert "gimp has no image encoder that timm knows" in said
    assert "--to safetensors gives all of its encoder" in said
    assert not (tmp_path / "new").exists()
    assert "exists and is no export: give another --out" in refused(
        str(run("mgi")), "--to", "timm", "--out", str(tmp_path)
    )
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "nothing half-written is left"
    with pytest.raises(ValueError, match="holds no export of a method"):
        load_exported(tmp_path)
