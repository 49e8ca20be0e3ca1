"""ContIG against a few literal lines: InfoNCE of each modality, its two ways, who is compared with whom; and the published numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import batch, build, records, schema
from views_packs import Pack

from models.contract import Batch, Field, MethodError, Schema
from models.registry import get_method


def started(**options):
    method = build("contig", **options)
    method.enter("pretrain")
    return method.train()


def by_hand(image, gene, tau, alpha):
    """Of vectors [n, C] that belong together row by row."""
    n, loss = len(image), 0.0
    cosine = torch.stack([torch.stack([torch.cosine_similarity(a, c, 0) for c in gene]) for a in image]) / tau
    for i in range(n):
        loss -= alpha * (cosine[i, i] - cosine[i].logsumexp(0)) / n
        loss -= (1 - alpha) * (cosine[i, i] - cosine[:, i].logsumexp(0)) / n
    return loss


@pytest.mark.parametrize("missing", ["mask", "drop"])
def test_each_modality_is_compared_among_those_that_have_it(missing):
    method = started(temperature=0.3, alpha=0.8, missing=missing)
    data = batch(method, records(7, missing={1: ["snp"], 2: ["pgs", "rna"], 4: ["image"], 5: ["snp"]}))
    out, (compared, _) = method(data), method._compared(data)
    there = {"snp": [0, 2, 3, 6], "pgs": [0, 1, 3, 5, 6], "rna": [0, 1, 3, 5, 6]}
    for name, who in there.items():
        who = [0, 3, 6] if missing == "drop" else who
        image, gene = (x[who] for x in compared[name])
        torch.testing.assert_close(out.losses[name], by_hand(image, gene, 0.3, 0.8), rtol=1e-4, atol=1e-5)
        assert out.diagnostics[f"{name}_chance"].item() == pytest.approx(math.log(len(who)), rel=1e-5)
        assert out.counts[name] == out.counts[f"image_to_{name}"] == len(who)
    torch.testing.assert_close(out.total, sum(out.losses.values()) / 3)


def test_a_modality_that_nobody_has_counts_as_0_and_leaves_the_others():
    method = started()
    out = method(batch(method, records(4, missing={i: ["rna"] for i in range(4)})))
    assert out.losses["rna"] == 0
    torch.testing.assert_close(out.total, (out.losses["snp"] + out.losses["pgs"]) / 3)
    out.total.backward()
    assert not any(p.grad.any() for p in method.genes["rna"].parameters())
    assert all(p.grad.any() for p in method.genes["snp"].parameters())


def test_both_eyes_of_a_person_are_right_answers():
    first, second = records(2)[:2]
    other = records(3)[2]
    second.patient, second.fields = (
        first.patient,
        {**second.fields, **{n: first.fields[n] for n in ("snp", "pgs", "rna")}},
    )
    found = {}
    for same in ("positive", "ignore", "negative"):
        method = started(same_patient=same)
        out = method(batch(method, [first, second, other]))
        found[same] = out.losses["snp"].item()
    assert found["ignore"] < found["negative"]
    assert found["positive"] != pytest.approx(found["ignore"])


def test_norms_of_the_layers_in_front_of_a_gene_head():
    kinds = {}
    for conventions in ("recommended", "published"):
        method = started(conventions=conventions, genes={"layers": [8, 6]})
        kinds[conventions] = [type(m).__name__ for m in method.genes["pgs"][0].layers]
    assert kinds["recommended"] == ["Linear", "ReLU", "LayerNorm"] * 2
    assert kinds["published"] == ["Linear", "ReLU", "GlobalBatchNorm1d"] * 2
    assert not list(started(genes={"layers": []}).genes["pgs"][0].parameters())


def test_unknown_values():
    made = records(4, missing={3: ["snp"]})
    made[0].fields["snp"][:2] = -1
    for conventions, first in (("recommended", None), ("published", 0.0)):
        method = started(conventions=conventions, genes={"normalise": "none", "layers": []})
        values = method._values(batch(method, made))["snp"]
        mean = torch.from_numpy(np.asarray(schema().fields["snp"].mean[:2]))
        likely = (mean > 2 / 3).float() + (mean > 4 / 3).float()
        assert torch.equal(values[0, :2], likely if first is None else torch.zeros(2))
        assert torch.equal(values[1], torch.from_numpy(made[1].fields["snp"]).float())
        assert conventions == "recommended" or not values[3].any()


def test_heads_and_what_is_deployed():
    assert started().image_heads.keys() == {"snp", "pgs", "rna"}
    one = started(heads="shared")
    assert one.image_heads.keys() == {"shared"}
    one.enter("")
    assert not any(p.requires_grad for n, p in one.named_parameters() if not n.startswith("image."))
    assert set(batch(one, records(2))) == {"image", "patient"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"genetics": []}, "method.genetics: it is empty"),
        ({"genetics": ["snp", "snp"]}, "names a field twice"),
        ({"genetics": ["patches"]}, "is no vector of one width"),
        ({"genetics": ["gwas"]}, "set method.genetics=burden,cnv,mutation,pgs,rna,snp"),
        ({"genes": {"layers": [8, 0]}}, "holds a width below 1"),
        ({"genes": {"clip": 3, "normalise": "none"}, "genetics": ["rna"]}, "method.genes.clip"),
        ({"alpha": 1.5}, "method.alpha"),
    ],
)  # fmt: skip
def test_what_makes_no_system_is_told(given, said):
    cls = get_method("contig")
    with pytest.raises(MethodError) as raised:
        cls(cls.Options.parse(given), schema())
    assert said in str(raised.value)


# ---------------------------------------------------------------------------------------------------- the published code


class Vectors(torch.nn.Module):
    """Stands for the encoder: gives what it is shown, as one token."""

    extra = 1

    def tokens(self, x):
        return x.flatten(2).transpose(1, 2)


def published(made, layers):
    fields = {n: Field(n, "array", str(x.dtype), x.shape[1:]) for n, x in made.items()}
    fields["image"] = schema().fields["image"]
    cls = get_method("contig")
    options = {"genetics": list(made), "genes": {"normalise": "none", "layers": layers}, "dim": 16, "hidden": 64}
    small = {"image_size": 48, "patch": 16, "dim": 64, "depth": 1, "heads": 4}
    said = {"conventions": "published", "same_patient": "negative", "image": small}
    method = cls(cls.Options.parse(options | said), Schema(fields, {}, "the published inputs"))
    method.enter("pretrain")
    return method.train()


def ours(n):
    """models.0.imaging_l1.weight -> image_heads.snp.layers.0.weight"""
    _, i, part, *rest = n.split(".")
    name = ("snp", "pgs", "burden")[int(i)]
    place = {"l1": "0", "l2": "2"}
    if part == "genetics_model":
        at = {"hidden_1": 0, "bn1": 2, "hidden_2": 3, "bn2": 5}[rest[0]]
        return ".".join(("genes", name, "0.layers", str(at), *rest[1:]))
    side, layer = part.split("_")
    head = f"image_heads.{name}" if side == "imaging" else f"genes.{name}.1"
    return ".".join((head, "layers", place[layer], *rest))


@pytest.mark.real
@pytest.mark.parametrize(("part", "layers"), [("raw", []), ("h12", [48, 64])])
def test_published_code_on_the_same_weights(real_data: Path, monkeypatch, part, layers):
    pack = Pack(real_data, "contig")
    weights = pack.weights("state_dict" if part == "raw" else "state_dict_h12")
    made = {
        "snp": pack.rule.integers("input.snp", (8, 40), 3),
        "pgs": pack.rule.image("input.pgs", (8, 12)),
        "burden": pack.rule.integers("input.burden", (8, 24), 2),
    }
    missing = torch.from_numpy(pack.numbers["missing"]).bool()
    method = published(made, layers)
    state = dict(method.state_dict())
    for n, value in weights.items():
        state[ours(n)] = value
    method.load_state_dict(state)
    method.image = Vectors()
    monkeypatch.setattr(method, "pixels", lambda x: x)
    seen = pack.image("input.image_features", (8, 64))
    data = Batch(
        {"views": seen[:, None, :, None, None], "patient": torch.arange(8)}
        | {n: torch.from_numpy(np.asarray(x)).masked_fill(missing[:, i, None], 7) for i, (n, x) in enumerate(made.items())},
        {"image": torch.ones(8, dtype=torch.bool)} | {n: ~missing[:, i] for i, n in enumerate(made)},
    )  # fmt: skip
    compared, _ = method._compared(data)
    out = method(data)
    for name, (image, gene) in compared.items():
        pack.equal(image, f"{part}.z_image_{name}")
        pack.equal(gene, f"{part}.z_gene_{name}")
        pack.equal(out.losses[name], f"{part}.loss_{name}")
    pack.equal(out.total, f"{part}.loss")
    out.total.backward()
    checked = 0
    for n in weights:
        if f"{part}.grad:{n}" in pack.numbers:
            pack.equal(method.get_parameter(ours(n)).grad.norm(), f"{part}.grad:{n}")
            checked += 1
    assert checked >= 4
