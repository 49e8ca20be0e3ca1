"""DSMIL's two streams: the highest instance of each output, and attention of all instances to it (Li et al., CVPR 2021, section 3.2).

Shape letters: B bags, N instances, F patch feature width, Q width of a query, V width of a value, K outputs, T numbers of a target.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.contract import Encoded, Head, HeadOutput, TargetSpec
from models.layers.pooling import bag_softmax
from models.losses import finetune as losses


class DualStreamHead(Head):
    """Tokens [x ; q(x) ; v(x)] [B, N, F + Q + V] (V = 0: values are x) -> K outputs.

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
        self.bag = nn.Linear(K * (widths[2] or widths[0]), K)  # the published Conv1d over all of its input

    def streams(self, encoded: Encoded) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Outputs of the bag [B, K], of the critical instances [B, K], attention [B, N, K] and critical instances [B, K]."""
        x_BNF, q_BNQ, v_BNV = encoded["tokens_BLD"].split(self.widths, -1)
        if not self.widths[2]:
            v_BNV = x_BNF
        mask_BN1 = encoded["mask_BL"][..., None]
        c_BNK = self.instance(x_BNF).float()
        # Padding must not become the critical instance.
        critical_BK = c_BNK.detach().masked_fill(~mask_BN1, -torch.inf).argmax(1)
        max_BK = c_BNK.gather(1, critical_BK[:, None])[:, 0]
        led_BKQ = q_BNQ.gather(1, critical_BK[..., None].expand(-1, -1, q_BNQ.shape[-1]))
        score_BNK = torch.einsum("bnq,bkq->bnk", q_BNQ.float(), led_BKQ.float()) / self.widths[1] ** 0.5
        weight_BNK = bag_softmax(score_BNK, mask_BN1)
        bag_BKV = torch.einsum("bnk,bnv->bkv", weight_BNK.to(v_BNV.dtype), v_BNV)
        return self.bag(bag_BKV.flatten(1)), max_BK, weight_BNK, critical_BK

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
