"""What each patch of a slide adds to the answer by the weight that attention gives it: attention times gradient.

A share says how much a patch is weighed, not whether it speaks for the answer or against it. The product of a share a_i with the slope
of the answer along it, g_i, says both (Serrano and Smith, Is Attention Interpretable?, ACL 2019, section 4; Chefer, Gur and Wolf, Generic
Attention-Model Explainability, ICCV 2021, equation 5). Shares sum to 1, so what one patch loses the others gain: along the score before the
softmax the slope is a_i (g_i - sum_j a_j g_j), the same product less what the other patches would give in this one's place. That is, to
first order, what the answer loses without the patch. Of several maps (branches, heads) it is summed: a patch that is taken out is
missing in all of them. Of a class token it is the sum over all layers, heads and tokens that look at the patch (Chefer, Gur and Wolf keep
of it what lies above 0, and add layer upon layer; the slope along a score that all layers share has both in it, signs included).

Shape letters: N patches of a slide, K maps, M answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from models.contract import Batch
from models.finetuned import Downstream
from trainer.downstream.maps.gradients import Contributions, asked_of, background, with_field
from trainer.downstream.maps.slides import PATCHES

NAME = "attention x gradient"


def weighed(method: Downstream, batch: Batch) -> Contributions | None:
    """Of the one slide of `batch`; None of a system that gives no `patch_scores`. The method is left in the mode that it was in.

    The background is the slide's mean patch at every place, as in gradients.py: towards which side of it a number or a risk lies.
    """
    layers = method.patch_scores()
    if not layers:
        return None
    was = method.training
    method.eval()
    with torch.no_grad():
        base_1K = method.logits(with_field(batch, PATCHES, background(batch[PATCHES], "patches")))[0].float()
    with torch.enable_grad(), shifted(layers) as shifts:
        whole_1K = method.logits(batch)[0].float()
        asked = asked_of(method, whole_1K[0].detach())
        slopes = [_slopes(said, shifts) for said in asked.of(whole_1K)[0]]
    method.train(was)
    with torch.no_grad():
        answer_M, base_M = (asked.of(x_1K)[0].double().cpu().numpy() for x_1K in (whole_1K, base_1K))
    return Contributions(asked.names, np.stack(slopes), answer_M, base_M, asked.of_classes)


@contextmanager
def shifted(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Adds a zero to each score that the layers give; the list gets these zeros, along which the answer can be differentiated."""
    zeros: list[Tensor] = []

    def add(layer: nn.Module, given: tuple[Tensor, ...], score: Tensor) -> Tensor:
        zeros.append(torch.zeros_like(score).requires_grad_())
        return score + zeros[-1]

    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        yield zeros
    finally:
        for hook in hooks:
            hook.remove()


def _slopes(said: Tensor, shifts: Sequence[Tensor]) -> np.ndarray:
    """Of one answer along the scores, summed over maps, [N]."""
    slopes = torch.autograd.grad(said, list(shifts), retain_graph=True, materialize_grads=True)
    return torch.stack([s.double().flatten(0, -2).sum(-1) for s in slopes]).sum(0).cpu().numpy()


Losses = Callable[[Tensor, Tensor], Sequence[float]]


def losses_of(method: Downstream, found: Contributions) -> Losses:
    """By how much each answer falls from whole to without; a number's, how far it comes towards its background's."""

    def losses(whole_K: Tensor, less_K: Tensor) -> list[float]:
        asked = asked_of(method, whole_K)
        fall_M = (asked.of(whole_K[None]) - asked.of(less_K[None]))[0].cpu().numpy()
        return list(fall_M * found.signs)

    return losses
