"""Shallow heads on a classifier's inner layers that learn from its deepest one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import nn

from detkd.losses.soft_kl import soft_kl
from detkd.ops._common import accumulate, check_pair

if TYPE_CHECKING:
    from torch import Tensor


def byot(
    shallow_logits: Tensor,
    shallow_embedding: Tensor,
    deep_logits: Tensor,
    deep_embedding: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.3,
    temperature: float = 3.0,
    hint: float = 0.03,
) -> Tensor:
    r"""What a shallow head learns from the labels, and from the head behind the last layer of the same network.

    .. math:: (1 - \alpha) \, \mathrm{CE}(q, y) + \alpha T^2 \, \mathrm{KL}(q_C^T \| q^T)
        + \lambda \, \mathrm{mean} (e - e_C)^2

    with the shallow head's q and e, the deepest one's :math:`q_C` and :math:`e_C`.

    Args:
        shallow_logits: Class logits of the shallow head, [N, C].
        shallow_embedding: What its last linear layer sees, [N, D].
        deep_logits: Class logits of the deepest head, [N, C]; receive no gradient.
        deep_embedding: What its last linear layer sees, [N, D]; receives no gradient.
        labels: Index of the class, [N].
        alpha: Share α of the deepest head's word against the labels', from 0 to 1.
        temperature: Softening T > 0.
        hint: Weight λ of the embeddings' mean squared distance.

    Returns:
        A float32 scalar; 0 for an empty batch.

    Raises:
        ArgumentError: If the shapes do not fit each other.

    Source:
        Zhang et al.: Be Your Own Teacher, ICCV 2019, arXiv:1905.08094, equation 7. Here the divergence has the factor T²,
        features are compared behind their pooling, and their distance is a mean, which does not grow with their number.
    """
    check_pair(shallow_logits, deep_logits)
    check_pair(shallow_embedding, deep_embedding)
    if not shallow_logits.numel():
        return accumulate(shallow_logits).sum() + accumulate(shallow_embedding).sum()
    own = F.cross_entropy(accumulate(shallow_logits), labels)
    deep = soft_kl(shallow_logits, deep_logits, temperature=temperature)
    away = F.mse_loss(accumulate(shallow_embedding), accumulate(deep_embedding.detach()))
    return (1 - alpha) * own + alpha * deep + hint * away


class BYOT(nn.Module):
    """A shallow head, and the module form of :func:`byot`: the student needs no other teacher than its own deepest head.

    The head is a bottleneck of convolutions, pooling, and a linear layer; it is dropped after training.

    Args:
        channels: Channels of the layer that it stands on.
        classes: Number of classes.
        embedding: Numbers that the deepest head's last linear layer sees.
        alpha: See :func:`byot`.
        temperature: See :func:`byot`.
        hint: See :func:`byot`.
    """

    default_weight: ClassVar[float] = 1.0
    of_itself: ClassVar[bool] = True  # what it learns from is the student

    def __init__(
        self,
        channels: int,
        classes: int,
        embedding: int,
        alpha: float = 0.3,
        temperature: float = 3.0,
        hint: float = 0.03,
    ) -> None:
        super().__init__()
        self.alpha, self.temperature, self.hint = alpha, temperature, hint
        narrow = max(channels // 2, 8)
        self.bottleneck = nn.Sequential(
            nn.Conv2d(channels, narrow, 1, bias=False),
            nn.GroupNorm(1, narrow),  # of each sample alone: trials and held-out batches leave nothing behind
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, stride=2, padding=1, bias=False),
            nn.GroupNorm(1, narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, embedding, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(1),
        )
        self.classes = nn.Linear(embedding, classes)

    def forward(
        self, student_feature: Tensor, student_softmax_logits: Tensor, student_embedding: Tensor, labels: Tensor
    ) -> Tensor:
        """Return the scalar loss; see :func:`byot`."""
        embedding = self.bottleneck(accumulate(student_feature))
        logits = self.classes(embedding)
        how = {"alpha": self.alpha, "temperature": self.temperature, "hint": self.hint}
        return byot(logits, embedding, student_softmax_logits, student_embedding, labels, **how)
