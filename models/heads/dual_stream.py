"""DSMIL's two streams: the highest instance of each output, and attention of all instances to it (Li et al., CVPR 2021, section 3.2).

Shape letters: B bags, N instances of a bag, P of all bags, F patch feature width, Q width of a query, V width of a value, K outputs, T
numbers of a target.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Encoded, Head, HeadOutput, TargetSpec
from models.losses import finetune as losses


class DualStreamHead(Head):
    """Tokens [x ; q(x) ; v(x)] of bags, F + Q + V wide (V = 0: values are x) -> K outputs.

    Each output j is led by its critical instance, the one of highest c_j = Linear(x); the weights of instance i for it are the softmax of
    q_i . q_critical / sqrt(Q), and the K weighted means together make all K outputs. Gradients flow through the critical instance's query,
    not through its choice.

    Args:
        max_weight: of the term `max`, the loss of the critical instances' own outputs; the rest is that of the bag's.
        sigmoids: exclusive classes are learned as K separate yes-or-no questions (terms `bag` and `max`), as published.
    """

    def __init__(self, asked: TargetSpec, widths: tuple[int, int, int], max_weight: float, sigmoids: bool):
        super().__init__()
        self.asked, self.max_weight = asked, max_weight
        self.sigmoids = sigmoids and asked.kind == "multiclass"
        self.widths, K = widths, asked.outputs
        self.instance = nn.Linear(widths[0], K)
        self.scored = nn.Identity()  # what may be asked for, or changed, between score and softmax
        self.bag = nn.Linear(K * (widths[2] or widths[0]), K)  # the published Conv1d over all of its input

    def streams(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Outputs of the bag [B, K], of the critical instances [B, K], attention [B, N, K] and critical instances [B, K]."""
        bags = encoded.bags()
        x_PF, q_PQ, v_PV = bags.rows_PD.split(self.widths, -1)
        parts = (self.instance(x_PF).float(), q_PQ, v_PV if self.widths[2] else x_PF)
        each = zip(*(bags.of(part).each() for part in parts), strict=True)
        bag, highest, weight, critical = zip(*(self._stream(*one) for one in each), strict=True)
        weight_BNK = bags.of(torch.cat(weight)).padded()
        return self.bag(torch.stack(bag).flatten(1)), torch.stack(highest), weight_BNK, torch.stack(critical)

    def _stream(self, c_NK: Tensor, q_NQ: Tensor, v_NV: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of one bag: means [K, V], the critical instances' own outputs [K], attention [N, K] and critical instances [K]."""
        if len(c_NK):
            critical_K = c_NK.detach().argmax(0)
            led_KQ, highest_K = q_NQ[critical_K], c_NK.gather(0, critical_K[None])[0]
        else:
            # Sums over nothing: zeros that keep every parameter in the graph, as ZeRO needs.
            critical_K = torch.zeros(c_NK.shape[1], dtype=torch.int64, device=c_NK.device)
            led_KQ, highest_K = q_NQ.sum(0, keepdim=True), c_NK.sum(0)
        score_NK = (q_NQ.float() @ led_KQ.float().mT / self.widths[1] ** 0.5).expand_as(c_NK)
        weight_NK = self.scored(score_NK).softmax(0)
        return weight_NK.to(v_NV.dtype).mT @ v_NV, highest_K, weight_NK, critical_K

    def forward(self, encoded: Encoded, target_BT: Tensor | None = None, weight_B: Tensor | None = None) -> HeadOutput:
        logits_BK, max_BK, weight_BNK, critical_BK = self.streams(encoded)
        if target_BT is None:
            return HeadOutput(logits_BK)
        # Near 1 the bag is its critical instances alone, near 1 / N attention tells nothing apart.
        led_B = weight_BNK.gather(1, critical_BK[:, None])[:, 0].mean(1)
        watched = {"critical_attention": led_B.masked_fill(~encoded["mask_BL"].any(1), torch.nan)}
        assert weight_B is not None, "targets come with their weights"
        # A bag without instances has no critical one.
        real_B = weight_B * encoded["mask_BL"].any(1)
        rest = 1 - self.max_weight
        if self.sigmoids:
            hot_BK = _one_hot(target_BT[:, 0], self.asked.outputs)
            terms = {"bag": losses.bce(logits_BK, hot_BK, weight_B), "max": losses.bce(max_BK, hot_BK, real_B)}
            return HeadOutput(logits_BK, terms, {"bag": rest, "max": self.max_weight}, 0.0, watched)
        max_loss = losses.of_kind(self.asked, max_BK, self._standardised(target_BT), real_B)
        return HeadOutput(logits_BK, {"max": max_loss}, {"max": self.max_weight}, rest, watched)

    def attention_maps(self, encoded: Encoded) -> dict[str, Tensor]:
        """Of each output, by how alike patches are to its critical instance."""
        weight_BNK = self.streams(encoded)[2]
        return {name: weight_BNK[..., k] for k, name in enumerate(self.asked.names)}

    def patch_scores(self) -> tuple[nn.Module, ...]:
        return (self.scored,)

    def _standardised(self, target_BT: Tensor) -> Tensor:
        if self.asked.kind != "regression":
            return target_BT
        assert self.asked.mean_K is not None
        assert self.asked.std_K is not None
        return (target_BT - target_BT.new_tensor(self.asked.mean_K)) / target_BT.new_tensor(self.asked.std_K)


def _one_hot(class_B: Tensor, K: int) -> Tensor:
    """[B, K], NaN where the class is unknown."""
    known_B = ~class_B.isnan()
    hot_BK = F.one_hot(torch.where(known_B, class_B, 0.0).long(), K).float()
    return hot_BK.masked_fill(~known_B[:, None], torch.nan)


def orthogonal(module: nn.Module) -> None:
    """Orthogonal weights and zero biases for every linear layer of a module, as the official code starts since 2024."""
    for m in module.modules():
        if isinstance(m, nn.Linear):
            nn.init.orthogonal_(m.weight)
            nn.init.zeros_(m.bias)
