"""Every named alternative of what the papers leave open reaches a loss or a gradient, from the same weights and samples."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
from synthetic import batch, build, records

from models.contract import Method

RELATION: list[dict[str, Any]] = [
    {"missing": "drop"}, {"view": {"rotate": 0.0}}, {"view": {"flip": 0.0}}, {"genes": {"encoder": "snn_vec"}},
    {"genes": {"fragment": 48}}, {"genes": {"depth": 1}, "cross_attn_blocks": [0]},
    {"relations": "self"}, {"cascade": "self_then_cross"}, {"cross_attn_blocks": [0]}, {"tau_image": 0.25}, {"tau_genes": 0.9},
    {"renorm": True}, {"share_heads": True}, {"mask_cls": False}, {"reduction": "sum"}, {"norm_pix_loss": False},
    {"burden_loss": "bce"}, {"image_weight": 0.5}, {"gene_weight": 0.5}, {"match_weight": 0.5}, {"match": "self"}, {"match": "cross"},
    {"match_feature": "cls"}, {"match_n": 3}, {"match_mode": "index_pairs"}, {"match_stopgrad": "intact"},
    {"match_stopgrad": "masked"}, {"genes": {"normalise": "none"}}, {"image": {"positions": "learned"}},
]  # fmt: skip
RECORD: list[dict[str, Any]] = [
    {"mlm_mask": "token"}, {"mlm_ratio": 0.2}, {"mlm_loss_on": "all"}, {"target": "norm_patch"}, {"fuse": "gmp"}, {"fuse_to": "unmasked"},
    {"antialias": True}, {"super_resolution": 1}, {"report_positions": "sincos"}, {"hybrid_image": True}, {"image_weight": 0.5},
    {"report_weight": 0.5}, {"report_weight": 0.0}, {"view": {"grayscale": False}}, {"view": {"flip": 0.5}},
    {"view": {"crop_scale": [0.9, 1.0]}}, {"mask_ratio": 0.5}, {"image": {"positions": "learned"}}, {"view": {"pixel_mean": 0.2}},
    {"init_text": "xavier_tied"},
]  # fmt: skip
MGI: list[dict[str, Any]] = [
    {"view": {"channels": "all3"}}, {"view": {"rotate": 0.0}}, {"view": {"scale": 0.0}}, {"view": {"flip": 0.0}},
    {"image": {"cls_token": True}}, {"genes": {"tokens": "per_gene"}}, {"genes": {"bidirectional": True}},
    {"alpha": 0.9}, {"learn_alpha": True}, {"loss": "joint"}, {"temperature": 0.5},
    {"learn_temperature": True}, {"same_patient": "negative"}, {"same_patient": "ignore"}, {"genes": {"normalise": "none"}},
    {"genes": {"drop": 0.5}}, {"genes": {"clip": 0.5}}, {"image": {"positions": "learned"}},
]  # fmt: skip
CASES = [(m, o) for m, all_ in (("mrm_relation", RELATION), ("mrm_record", RECORD), ("mgi", MGI)) for o in all_]
BASE: dict[str, dict[str, Any]] = {
    "mrm_relation": {"genetics": ["snp", "pgs", "burden"], "norm_pix_loss": True},
    "mrm_record": {"target": "unit", "mlm_ratio": 0.5},
    "mgi": {},
}


def made(name: str, options: dict[str, Any]) -> Method:
    method = build(name, **{**BASE[name], **options})
    method.enter("pretrain")
    return method.eval()


def told(method: Method) -> tuple[float, float]:
    """The loss of six samples, one without genes, two of one patient, one with a report in pieces, and the norm of its gradient."""
    few = records(6, missing={4: ["snp"]})
    few[1].patient = few[0].patient
    few[2].fields["report"] = "effusionlobe upperlarge irregularopacity thereis"
    method.zero_grad()
    total = method(batch(method, few)).total
    total.backward()
    grads = [p.grad.square().sum() for p in method.parameters() if p.grad is not None]
    return total.item(), math.sqrt(sum(g.item() for g in grads))


@functools.cache
def base(name: str) -> tuple[Method, tuple[float, float]]:
    method = made(name, {})
    assert told(method) == told(made(name, {})), "the same twice, or this proves nothing"
    return method, told(method)


@pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{m}-{'-'.join(f'{k}={v}' for k, v in o.items())}" for m, o in CASES]
)
def test_an_alternative_changes_what_is_learned(name, options):
    default, values = base(name)
    method = made(name, options)
    if "init_text" not in options:
        own, theirs = method.state_dict(), default.state_dict()
        shared = {
            n: w for n, w in theirs.items() if n in own and own[n].shape == w.shape and n.split(".")[0] not in options
        }
        method.load_state_dict({**own, **shared})
    found = told(method)
    assert all(math.isfinite(v) for v in found)
    assert any(abs(a - b) > 1e-6 * abs(b) for a, b in zip(found, values, strict=True))
