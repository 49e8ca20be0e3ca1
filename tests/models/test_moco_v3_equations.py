"""MoCo v3 against a few literal lines: keys of the other view, momentum along a cosine; and the published code's numbers."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import batch, build, records

from models.contract import Batch, MethodError
from models.encoders.vit import ViT
from models.registry import get_method

CNN = {"kind": "resnet", "name": "resnet18", "image_size": 32}


def started(**options):
    method = build("moco_v3", **options)
    method.enter("pretrain")
    return method.train()


@pytest.mark.parametrize("image", [{}, CNN], ids=["vit", "resnet"])
def test_the_loss_is_algorithm_1(image):
    """Queries of each view among all keys of the other one, times 2 tau; a pass for each view, of queries as of keys."""
    method, again = (started(temperature=0.3, same_patient="negative", image=image) for _ in range(2))
    data = batch(method, records(6))
    found = method(data).total
    tau, loss = 0.3, 0.0
    x1, x2 = (again.pixels(data["views"][:, v]) for v in range(2))
    q1, q2 = (again._query(x)[0] for x in (x1, x2))
    k1, k2 = (again._key(x) for x in (x1, x2))
    for q, k in ((q1, k2), (q2, k1)):
        for i in range(6):
            cosines = [torch.cosine_similarity(q[i], k[j], 0) / tau for j in range(6)]
            loss -= 2 * tau * (cosines[i] - torch.stack(cosines).logsumexp(0)) / 6
    torch.testing.assert_close(found, loss, rtol=1e-4, atol=1e-5)
    assert not k1.requires_grad, "no gradient reaches a key"


def test_chance():
    method = started()
    tau = method.options.temperature
    assert method.chance(32) == {"contrastive": pytest.approx(4 * tau * math.log(32))}
    data = batch(method, records(5))
    assert method(data).diagnostics["contrastive_chance"].item() == pytest.approx(4 * tau * math.log(5), rel=1e-5)


def test_momentum_grows_to_one_along_half_a_cosine():
    method = started(momentum=0.9)
    for done, m in ((0.0, 0.9), (0.5, 0.95), (0.75, 1 - 0.1 * (1 - math.sqrt(0.5)) / 2), (1.0, 1.0)):
        assert method.teachers(done)["momentum_image"] == ("image", pytest.approx(m))
        method.at(done)
        assert method(batch(method, records(4))).diagnostics["momentum"].item() == pytest.approx(m)
    assert method.teachers(0.0).keys() == {"momentum_image", "momentum_projector"}
    assert started(momentum=0.9, momentum_schedule=False).teachers(0.7)["momentum_projector"] == ("projector", 0.9)


def test_keys_start_as_queries_and_are_not_trained():
    method = started()
    for name, p in method.named_parameters():
        if name.startswith("momentum_"):
            assert torch.equal(p, method.get_parameter(name.removeprefix("momentum_")))
            assert not p.requires_grad


@pytest.mark.parametrize(
    ("options", "frozen"),
    [({}, True), ({"freeze_patch": False}, False), ({"image": {"init": "file"}}, False)],
    ids=["from nothing", "asked for", "from a file"],
)
def test_the_patch_embedding_stays_random(options, frozen, tmp_path):
    if "image" in options:
        torch.save(build("moco_v3").image.state_dict(), tmp_path / "vit.pth")
        options = {"image": {"init": "file", "init_file": str(tmp_path / "vit.pth")}}
    method = started(**options)
    assert method.image.patch_embed.proj.weight.requires_grad != frozen
    assert method.image.blocks[0].attn.qkv.weight.requires_grad
    method.enter("")
    assert method.image.patch_embed.proj.weight.requires_grad, "a task trains it"
    assert not method.projector.layers[0].weight.requires_grad


def test_the_start_of_the_transformer():
    torch.manual_seed(0)
    image = build("moco_v3", image={"cls_token": True}).image
    assert isinstance(image, ViT)
    D, qkv = image.dim, image.blocks[0].attn.qkv.weight
    assert 0.98 * math.sqrt(6 / (2 * D)) < qkv.abs().max() <= math.sqrt(6 / (2 * D)), "three matrices, not one"
    assert image.patch_embed.proj.weight.abs().max() <= math.sqrt(6 / (3 * image.patch**2 + D))
    assert image.cls_token.abs().max() < 1e-5


def test_heads_of_both_kinds_of_encoder():
    vit, cnn = build("moco_v3"), build("moco_v3", image=CNN)
    shapes = [
        [tuple(m.weight.shape) for m in h.layers if isinstance(m, torch.nn.Linear)]
        for h in (vit.projector, vit.predictor)
    ]
    o, D = vit.options, vit.image.width
    assert shapes == [
        [(o.mlp_dim, D), (o.mlp_dim, o.mlp_dim), (o.dim, o.mlp_dim)],
        [(o.mlp_dim, o.dim), (o.dim, o.mlp_dim)],
    ]
    assert vit.projector.layers[-1].weight is None, "the last norm has no scale"
    assert sum(isinstance(m, torch.nn.Linear) for m in cnn.projector.layers) == 2
    last = cnn.predictor.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    assert last.bias is None


def test_weight_decay_on_everything_where_asked_for():
    assert [g.decay_scale for g in started(decay_all=True).param_groups()] == [1.0]
    assert [g.decay_scale for g in started().param_groups()] == [1.0, 0.0]


def test_what_a_network_lacks_is_refused():
    cls = get_method("moco_v3")
    with pytest.raises(MethodError, match=r"freeze_patch: method.image.kind=resnet has no patch embedding"):
        cls.Options.parse({"image": CNN, "freeze_patch": True})
    assert cls.Options.parse({"image": CNN}).freeze_patch is None


# ------------------------------------------------------------------------------------------------------ the published code


@pytest.mark.real
def test_published_code_on_the_same_weights(real_data: Path):
    folder = real_data.parent / "parity" / "self_supervised"
    if not folder.is_dir():
        pytest.skip("the published code's numbers are not part of the repository")
    spec = importlib.util.spec_from_file_location("rule_of_views", folder / "rule.py")
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    gold = np.load(folder / "moco_v3.npz")
    method = started(
        image={"cls_token": True, "image_size": 64, "patch": 16, "dim": 64, "depth": 2, "heads": 4, "mlp_ratio": 4.0},
        dim=32, mlp_dim=96, temperature=0.2, momentum=0.9, same_patient="negative",
    )  # fmt: skip
    ours = {
        n: n.replace("momentum_encoder.head", "momentum_projector.layers")
        .replace("momentum_encoder", "momentum_image")
        .replace("base_encoder.head", "projector.layers")
        .replace("base_encoder", "image")
        .replace("predictor.", "predictor.layers.")
        for n, _, _ in json.loads((folder / "moco_v3.names.json").read_text())["state_dict"]
    }
    places = torch.from_numpy(gold["pos_embed"])
    state = {
        ours[n]: places if how == "kept" else torch.from_numpy(rule.weights(n, tuple(s)))
        for n, s, how in json.loads((folder / "moco_v3.names.json").read_text())["state_dict"]
    }
    method.load_state_dict(state)
    with torch.no_grad():  # the published forward moves the keys' encoder first
        for prefix, (source, m) in method.teachers(0.0).items():
            for name, p in method.get_submodule(prefix).named_parameters():
                p.lerp_(method.get_parameter(f"{source}.{name}"), 1 - m)
    x1, x2 = (torch.from_numpy(rule.image(f"input.view{v}", (6, 3, 64, 64))) for v in (1, 2))
    method.pixels = lambda x: x
    data = Batch(
        {"views": torch.stack([x1, x2], 1), "patient": torch.arange(6)}, {"image": torch.ones(6, dtype=torch.bool)}
    )
    out = method(data)
    out.total.backward()
    torch.testing.assert_close(out.total, torch.from_numpy(gold["loss"]), rtol=5e-4, atol=1e-5)
    for n, place in ours.items():
        if f"grad:{n}" in gold:
            p = method.get_parameter(place)
            torch.testing.assert_close(p.grad.norm(), torch.from_numpy(gold[f"grad:{n}"]), rtol=5e-4, atol=2e-5)
        if f"after:{n}" in gold:
            value = method.state_dict()[place]
            value = value if gold[f"after:{n}"].ndim else value.norm()
            torch.testing.assert_close(value, torch.from_numpy(gold[f"after:{n}"]), rtol=5e-4, atol=1e-5)
    with torch.no_grad():
        for name, x, y in (("q1", x1, None), ("q2", x2, None), ("k1", None, x1), ("k2", None, x2)):
            raw = method._query(x)[0] if y is None else method._key(y)
            torch.testing.assert_close(raw, torch.from_numpy(gold[name]), rtol=5e-4, atol=1e-4)
        features = method.eval().pooled(method.image.tokens(x1))
        torch.testing.assert_close(features, torch.from_numpy(gold["features_eval"]), rtol=1e-4, atol=1e-5)
        for e, m in zip(range(0, 51, 10), gold["momentum_schedule"], strict=True):
            plain = build("moco_v3", momentum=0.99)
            assert plain.teachers(e / 50)["momentum_image"][1] == pytest.approx(float(m), abs=1e-6)
