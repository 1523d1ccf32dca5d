"""Focal and global distillation."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from detkd.errors import ArgumentError
from detkd.ops import attention_mse
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from torch import Tensor


def object_weights(target_boxes: Tensor, size: tuple[int, int], stride: float) -> tuple[Tensor, Tensor]:
    """Weights of the positions inside and outside of labelled boxes.

    A position inside weighs one over the positions of its box (of the smallest one where boxes overlap), so that small
    objects count as much as large ones; the positions outside share the weight 1 equally.

    Args:
        target_boxes: Labelled boxes (x1, y1, x2, y2) in pixels, padded with zeros, [N, M, 4].
        size: Height and width of the feature map.
        stride: Pixels of one step on the map.

    Returns:
        The weights of the foreground and of the background, each [N, H, W], without gradient.
    """
    height, width = size
    boxes = target_boxes.detach().float() / stride
    y = torch.arange(height, device=boxes.device)[:, None]
    x = torch.arange(width, device=boxes.device)
    left, top = boxes[..., :2].floor()[..., None, None].unbind(2)  # [N, M, 1, 1]
    right, bottom = boxes[..., 2:].ceil()[..., None, None].unbind(2)
    inside = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    real = ((boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1]))[..., None, None]
    share = inside * real / ((right - left + 1) * (bottom - top + 1))
    foreground = share.amax(1) if share.shape[1] else share.sum(1)
    outside = foreground == 0
    background = outside / outside.sum((1, 2), keepdim=True).clamp(min=1)
    return foreground, background


class GlobalContext(nn.Module):
    """Adds to every position one vector that sums up the relations of all positions (GcBlock).

    Source:
        Cao et al.: GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, 2019, arXiv:1904.11492.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.attention = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.LayerNorm([inner, 1, 1]), nn.ReLU(), nn.Conv2d(inner, channels, 1)
        )

    def forward(self, feature: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        weights = self.attention(feature).flatten(2).softmax(2)  # [N, 1, HW]
        context = (feature.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)  # [N, C, 1, 1]
        added: Tensor = self.transform(context)
        return feature + added


class FGD(nn.Module):
    r"""Squared error where objects are and where the teacher looks, and the relations between all positions.

    .. math::
        \frac{1}{N} \sum_{n,c,i} (\alpha M^f_{n,i} + \beta M^b_{n,i}) \, S^t_{n,i} \, C^t_{n,c} \, (s - t)^2
        + \gamma \, L_{att} + \frac{\lambda}{N} \sum (R_s(s) - R_t(t))^2

    with the foreground and background weights M of :func:`object_weights`, the attention S, C and its loss of
    :func:`detkd.ops.attention_mse`, and a :class:`GlobalContext` R for each of the two, which train with the student. It is
    a module only, because R has parameters.

    Args:
        channels: Channels of the teacher's feature map, to which an aligner has brought the student's.
        foreground_gain: Weight α.
        background_gain: Weight β.
        attention_gain: Weight γ.
        relation_gain: Weight λ.
        temperature: Softening T > 0 of the attention.

    Source:
        Yang et al.: Focal and Global Knowledge Distillation for Detectors, CVPR 2022, arXiv:2111.11837. Defaults for
        one-stage detectors; 5e-5, 2.5e-5, 5e-5 and 5e-7 for two-stage ones.
    """

    default_weight: ClassVar[float] = 1.0
    aligner: ClassVar[str] = "linear"

    def __init__(
        self,
        channels: int,
        foreground_gain: float = 1e-3,
        background_gain: float = 5e-4,
        attention_gain: float = 5e-4,
        relation_gain: float = 5e-6,
        temperature: float = 0.5,
    ) -> None:
        super().__init__()
        self.foreground_gain = foreground_gain
        self.background_gain = background_gain
        self.attention_gain = attention_gain
        self.relation_gain = relation_gain
        self.temperature = temperature
        self.student_relations = GlobalContext(channels)
        self.teacher_relations = GlobalContext(channels)

    def forward(self, student_feature: Tensor, teacher_feature: Tensor, target_boxes: Tensor, stride: float) -> Tensor:
        """Return the scalar loss.

        Args:
            student_feature: Feature map of the student behind its aligner, [N, channels, H, W].
            teacher_feature: Feature map of the teacher, same shape; receives no gradient.
            target_boxes: Labelled boxes (x1, y1, x2, y2) in pixels, padded with zeros, [N, M, 4].
            stride: Pixels of one step on the map.

        Raises:
            ArgumentError: If the shapes do not fit each other.
        """
        n, _, h, w = student_feature.shape if student_feature.ndim == 4 else (0, 0, 0, 0)
        if target_boxes.ndim != 3 or target_boxes.shape[0] != n or target_boxes.shape[2] != 4:
            raise ArgumentError(
                f"Expected argument `target_boxes` to be [N, M, 4] for features {tuple(student_feature.shape)}, but got "
                f"{tuple(target_boxes.shape)}."
            )
        teacher_feature = teacher_feature.detach()
        foreground, background = object_weights(target_boxes, (h, w), stride)
        weight = self.foreground_gain * foreground + self.background_gain * background
        focal = attention_mse(student_feature, teacher_feature, weight, self.temperature, self.attention_gain)
        student = self.student_relations(accumulate(student_feature))
        teacher = self.teacher_relations(accumulate(teacher_feature))
        return focal + self.relation_gain * F.mse_loss(student, teacher, reduction="sum") / max(n, 1)
