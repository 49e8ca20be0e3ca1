"""Attention maps of an encoder with a head: the head's where it weighs the patches of a slide, else the encoder's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.contract.batch import Batch
from models.contract.head import Head
from models.contract.method import Method


def own_maps(part: nn.Module) -> bool:
    """Whether an encoder or a head weighs patches itself."""
    if isinstance(part, Head):
        return type(part).attention_maps is not Head.attention_maps
    return isinstance(part, Method) and type(part).attention_maps is not Method.attention_maps


def scorers(encoder: Method, head: nn.Module) -> tuple[nn.Module, ...]:
    """`patch_scores` of the part that `maps_of` asks."""
    return head.patch_scores() if isinstance(head, Head) and own_maps(head) else encoder.patch_scores()


@torch.no_grad()
def maps_of(whole: nn.Module, encoder: Method, head: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """`Method.attention_maps` of what `whole` answers from, in eval mode; it is left in the mode that it was in."""
    was = whole.training
    whole.eval()
    if isinstance(head, Head) and own_maps(head):
        maps = head.attention_maps(encoder.encode(batch))
    else:
        maps = encoder.attention_maps(batch)
    whole.train(was)
    return maps
