"""Exports of fine-tuned encoders: plain timm gives the same features, with layer scale, without a last norm, and as BEiT."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from launch.export import main
from tests.trainer.downstream.conftest import Finetune
from trainer.export.opened import load_exported, open_finished

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
Pretrained = Callable[[str], Path]
ALL = ["encoder.relative_positions=true", "encoder.layer_scale=1.0"]


def tuned(finetune: Finetune, out: Path, method: str, run: Path, *words: str) -> Path:
    ended = finetune(out, "--task", "demo_subtype", "--method", method, "--init", str(run), "protocol.lr=1e-2", *words)
    assert ended.codes == [0], ended.text
    return out


@pytest.mark.parametrize(
    ("method", "words", "kind", "pool"),
    [
        ("mgi", ["encoder.layer_scale=1.0"], "VisionTransformer", "avgmax"),
        ("mrm_relation", ["encoder.last_norm=false", "method.image.image_size=60"], "VisionTransformer", "avg"),
        ("mrm_relation", ["encoder.relative_positions=true", "method.match_feature=cls"], "Beit", "token"),
        ("mrm_record", [*ALL, "method.image.image_size=60", "method.image.positions=learned"], "Beit", "avg"),
    ],
    ids=["layer scale", "no norm", "class token", "all"],
)
@torch.no_grad()
def test_timm_gives_what_was_fine_tuned(
    method: str, words: list[str], kind: str, pool: str, pretrained: Pretrained, finetune: Finetune, tmp_path: Path
) -> None:
    run = pretrained(method)
    out = tuned(finetune, tmp_path / "run", method, run, *words)
    assert main([str(out), "--to", "timm", "--out", str(tmp_path / "timm")]) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    assert type(model).__name__ == kind
    made = load_file(next(out.rglob("finetune.safetensors")))
    [ours] = [n for n in made if n.endswith("blocks.0.mlp.fc1.weight") and "decoder" not in n and "genes" not in n]
    assert torch.equal(model.blocks[0].mlp.fc1.weight, made[ours])
    assert not torch.equal(made[ours], load_file(run / "weights.safetensors")[ours.removeprefix("encoder.")])
    there = open_finished(out).method
    x = torch.randn(2, 3, *there.image_encoder().img_size, generator=torch.Generator().manual_seed(3))
    tokens = there.image_encoder()(x)
    torch.testing.assert_close(model.forward_features(x), tokens, rtol=1e-4, atol=1e-5)
    patches = tokens[:, there.image_encoder().extra :]
    pooled = {"avg": patches.mean(1), "token": tokens[:, 0], "avgmax": (patches.mean(1) + patches.amax(1)) / 2}[pool]
    torch.testing.assert_close(model(x), pooled, rtol=1e-4, atol=1e-5)

    card, config = (
        (tmp_path / "timm" / "README.md").read_text(),
        json.loads((tmp_path / "timm/config.json").read_text()),
    )
    result = json.loads((out / "result.json").read_bytes())
    assert f"Then fine-tuned on the task demo_subtype ({result['kind']}): seed 0, learning rate 0.01" in card
    assert card.count("| data set demo | CC0-1.0 | yes |") == 1, "tuned on the data set of the run"
    assert f"| demo_subtype | finetune | 100 % | {result['primary']} * |" in card
    assert config["medpair"]["finetuned"]["pretrained_sha256"] == result["init"]["sha256"]
    assert str(tmp_path) not in card + json.dumps(config)
    stored = json.loads((out / "config.json").read_text())
    stored["config"]["data"]["set"] |= {"name": "ours", "fingerprint": "another", "commercial": "no", "licence": ""}
    (out / "config.json").write_text(json.dumps(stored))
    words = [str(out), "--to", "timm", "--out", str(tmp_path / "other")]
    assert main(words) == 2, "the data of the fine-tune have terms of their own"
    assert main([*words, "--licence", "ours=internal"]) == 0
    assert "| data set ours | internal | no |" in (tmp_path / "other/README.md").read_text()


def test_a_fine_tuned_method_comes_back(pretrained: Pretrained, finetune: Finetune, tmp_path: Path) -> None:
    """With parts that timm does not combine: mgi has no class token."""
    out = tuned(finetune, tmp_path / "run", "mgi", pretrained("mgi"), *ALL, "encoder.last_norm=false")
    assert main([str(out), "--to", "safetensors", "--out", str(tmp_path / "whole")]) == 0
    made = load_file(next(out.rglob("finetune.safetensors")))
    back = load_exported(tmp_path / "whole").state_dict()
    assert {n for n in made if n.startswith("encoder.")} == {f"encoder.{n}" for n in back}
    assert all(torch.equal(w, made[f"encoder.{n}"]) for n, w in back.items())


def test_what_cannot_be_exported(
    pretrained: Pretrained, finetune: Finetune, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(out: Path) -> str:
        assert main([str(out), "--to", "timm", "--out", str(tmp_path / "no")]) == 2
        assert not (tmp_path / "no").exists()
        return capsys.readouterr().err

    run = Path(shutil.copytree(pretrained("mgi"), tmp_path / "pretraining"))
    out = tuned(finetune, tmp_path / "run", "mgi", run, *ALL)
    assert "no transformer with relative positions and without class token; use --to safetensors" in refused(out)
    probe = tuned(finetune, tmp_path / "probe", "mgi", run, "--mode", "knn")
    assert "mode knn from pretrained: only what was fine-tuned from a run is exported" in refused(probe)
    scratch = tuned(finetune, tmp_path / "scratch", "mgi", run, "--mode", "scratch")
    assert "mode finetune from scratch" in refused(scratch)
    next(out.rglob("finetune.safetensors")).unlink()
    assert "finetune.safetensors is gone: remove" in refused(out)
    (run / "weights.safetensors").write_bytes(b"another")
    assert "holds other weights than" in refused(out)
    shutil.rmtree(run)
    assert "which is not there: bring it back" in refused(out)
