"""Options of a task that reach the loss and the weights: each is flipped and its effect seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import build, record

from models.contract.masks import MaskField
from models.decoders.build import make_decoder
from models.decoders.setr_pup import SetrPupDecoder
from models.encoders.parts import add_parts
from models.encoders.vit import pyramid_blocks
from models.finetuned import FROZEN, STAGE, Downstream, FinetuneSettings, TargetSpec
from models.losses.finetune import bce_dice, mask_bce, mask_focal, soft_dice


def segmenter(decoder: str = "linear", **fit) -> Downstream:
    torch.manual_seed(0)
    encoder = build("mgi", image={"patch": 8})
    fit = {"masks": (MaskField("mask", "mask"),), **fit}
    head = make_decoder(
        encoder, decoder, width=16, queries=1, mask_token=False, gene_dim=32, auxiliary=bool(fit.get("auxiliary")),
        outputs=len(fit["masks"]),
    )  # fmt: skip
    answer: Callable = lambda record: np.zeros(1)  # noqa: E731
    return Downstream(
        encoder,
        head,
        TargetSpec("segmentation", len(fit["masks"]), ()),
        FinetuneSettings(("image",), **fit),
        answer,
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


@pytest.mark.parametrize("decoder", ["upernet", "setr_pup"])
def test_an_auxiliary_head_learns_beside_the_decoder_in_training_only(decoder):
    method = segmenter(decoder, auxiliary=0.4)
    method.train()
    for m in method.modules():
        m.p = 0.0 if isinstance(m, torch.nn.Dropout2d) else getattr(m, "p", None)
    batch = method.collate([method.sample(record(i), np.random.default_rng(i)) for i in range(2)])
    out = method(batch)
    image = method.encoder.image_encoder()
    third = image.features(method.encoder.pixels(batch), pyramid_blocks(len(image.blocks)))[2]
    drawn = F.interpolate(method.head.auxiliary(third, image.grid), (method.side,) * 2, mode="bilinear")
    beside = bce_dice(drawn, batch["target_mask"][:, None], torch.ones(2))
    torch.testing.assert_close(out.losses["auxiliary"], beside)
    torch.testing.assert_close(out.total, out.losses["task"] + 0.4 * beside)
    out.total.backward()
    assert method.head.auxiliary.out.weight.grad.any()
    assert set(method.eval()(batch).losses) == {"task"}
    assert segmenter(decoder).head.auxiliary is None


def test_setr_pup_draws_at_the_images_own_size(monkeypatch):
    method = segmenter("setr_pup").eval()
    batch = method.collate([method.sample(record(i), np.random.default_rng(i)) for i in range(2)])
    image = method.encoder.image_encoder()
    want = SetrPupDecoder.forward(method.head, image(method.encoder.pixels(batch)), image.grid)
    assert want.shape[2:] == image.img_size
    torch.testing.assert_close(method.logits(batch)[0], want)


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_new_parts_of_the_encoder_follow_their_block_and_do_not_decay(decay):
    """The bias is a matrix, yet takes no weight decay; rates fall with the block's depth, as those of its other weights."""
    method = segmenter(layer_decay=decay)
    new = add_parts(method.encoder, True, 1.0)
    method.enter("finetune")
    of = {id(p): g for g in method.param_groups() for p in g.params}
    own = {n: of[id(p)] for n, p in method.encoder.named_parameters() if id(p) in of}
    assert len(new) == 6
    assert set(new) <= own.keys()
    for name in new:
        assert own[name].decay_scale == 0, name
        block = name[: name.index("blocks.") + len("blocks.0")]
        assert own[name].lr_scale == own[f"{block}.mlp.fc1.weight"].lr_scale == decay ** (2 - int(block[-1]))
        assert own[f"{block}.mlp.fc1.weight"].decay_scale == 1


@pytest.mark.parametrize("decoder", ["linear", "upernet", "two_way", "setr_pup"])
def test_several_structures_have_a_channel_each(decoder):
    """The loss is the mean of the structures' own; the k-th channel is the k-th structure; a mask that is not there is empty."""
    structures = (MaskField("object", "mask"), MaskField("rest", "mask", (0,)), MaskField("other", "mask_other"))
    method = segmenter(decoder, masks=structures, mask_absent=True).eval()
    batch = method.collate([method.eval_sample(record(i), np.random.default_rng(i)) for i in range(2)])
    mask, ones = batch["target_mask"], torch.ones(2)
    assert mask.shape == (2, 3, method.side, method.side)
    assert (mask[:, 0] + mask[:, 1] == 1).all()
    assert mask[:, 0].any()
    assert not mask[:, 2].any()
    logits = method.logits(batch)[0]
    assert logits.shape == mask.shape
    alone = [bce_dice(logits[:, k : k + 1], mask[:, k : k + 1], ones, 0.3, 0.7) for k in range(3)]
    method.fit = replace(method.fit, mask_weights=(0.3, 0.7))
    torch.testing.assert_close(method(batch).total, torch.stack(alone).mean())
    torch.testing.assert_close(method.scores(batch)[0], logits.sigmoid())
    assert not logits[:, 0].allclose(logits[:, 1])


def test_the_encoder_learns_at_a_rate_of_its_own():
    method = segmenter(encoder_scale=0.1)
    of = {id(p): g.lr_scale for g in method.param_groups() for p in g.params}
    assert {of[id(p)] for p in method.encoder.parameters() if id(p) in of} == {0.1}
    assert {of[id(p)] for p in method.head.parameters()} == {1.0}


def test_an_encoder_that_thaws_is_in_evaluation_mode_until_then():
    method = segmenter(frozen_start=True)
    assert [s.name for s in method.stages()] == [FROZEN, STAGE]
    method.enter(FROZEN)
    assert not any(p.requires_grad for p in method.encoder.parameters())
    assert {g.name.split()[0] for g in method.param_groups()} == {"head"}
    method.train()
    assert method.head.training
    assert not any(m.training for m in method.encoder.modules())
    method.enter(STAGE)
    method.train()
    assert all(m.training for m in method.encoder.modules())
    assert {g.name.split()[0] for g in method.param_groups()} == {"head", "encoder"}
    assert [s.name for s in segmenter().stages()] == [STAGE]
