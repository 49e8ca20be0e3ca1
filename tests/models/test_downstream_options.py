"""Options of a task that reach the loss and the weights: each is flipped and its effect seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import build, record

from models.decoders.upernet import pyramid_blocks
from models.downstream import Downstream, Fit, Question, make_decoder
from models.losses_downstream import bce_dice, mask_bce, mask_focal, soft_dice


def segmenter(decoder: str = "linear", **fit) -> Downstream:
    torch.manual_seed(0)
    encoder = build("mgi")
    head = make_decoder(
        encoder, decoder, width=16, queries=1, mask_token=False, gene_dim=32, auxiliary=bool(fit.get("auxiliary"))
    )
    answer: Callable = lambda record: np.zeros(1)  # noqa: E731
    return Downstream(
        encoder, head, Question("segmentation", 1, ("object",)), Fit(("image",), mask="mask", **fit), answer
    )


@pytest.mark.parametrize(
    ("loss", "given", "weights"),
    [
        ("bce_dice", None, (1, 1)),
        ("bce_dice", (0.2, 0.8), (0.2, 0.8)),
        ("focal_dice", None, (2, 1)),
        ("focal_dice", (1.0, 0.0), (1, 0)),
    ],
)
def test_mask_losses_take_their_weights(loss, given, weights):
    method = segmenter(mask_loss=loss, mask_weights=given)
    batch = method.collate([method.sample(record(i), np.random.default_rng(i)) for i in range(2)])
    logits, mask, ones = method.logits(batch)[0], batch["target_mask"][:, None], torch.ones(2)
    focal = loss == "focal_dice"
    first = (mask_focal if focal else mask_bce)(logits, mask, ones)
    literal = weights[0] * first + weights[1] * soft_dice(logits, mask, ones, squared=focal)
    torch.testing.assert_close(method(batch).total, literal)


def test_an_auxiliary_head_learns_beside_upernet_in_training_only():
    method = segmenter("upernet", auxiliary=0.4)
    method.train()
    for m in method.modules():
        m.p = 0.0 if isinstance(m, torch.nn.Dropout2d) else getattr(m, "p", None)
    batch = method.collate([method.sample(record(i), np.random.default_rng(i)) for i in range(2)])
    out = method(batch)
    tower = method.encoder.tower()
    third = tower.features(method.encoder.tower_input(batch), pyramid_blocks(len(tower.blocks)))[2]
    drawn = F.interpolate(method.head.auxiliary(third, tower.grid), (method.side,) * 2, mode="bilinear")
    beside = bce_dice(drawn, batch["target_mask"][:, None], torch.ones(2))
    torch.testing.assert_close(out.losses["auxiliary"], beside)
    torch.testing.assert_close(out.total, out.losses["task"] + 0.4 * beside)
    out.total.backward()
    assert method.head.auxiliary.out.weight.grad.any()
    assert set(method.eval()(batch).losses) == {"task"}
    assert segmenter("upernet").head.auxiliary is None
