"""Types shared by all parts of detkd; this file imports nothing of detkd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["none", "sum", "mean", "batchmean"]
Backend = Literal["auto", "fused", "reference"]


@dataclass(frozen=True)
class DetectorOutputs:
    """What a dense detector computed for one batch, in a form that no family owns.

    B images, A anchors (all levels one after another, finest first), C classes, R bins of a box side's distribution.

    Attributes:
        features: Feature maps that enter the head, one a level, each [B, C_l, H_l, W_l].
        logits: Class logits before the sigmoid, [B, C, A].
        boxes: Decoded boxes (x1, y1, x2, y2) in pixels of the network's input, [B, A, 4].
        bins: Logits of the distribution of each box side, [B, 4, R, A]; None for heads that regress sides directly.
        anchor_points: Centres (x, y) of the anchors in pixels of the network's input, [A, 2].
    """

    features: tuple[Tensor, ...]
    logits: Tensor
    boxes: Tensor
    bins: Tensor | None
    anchor_points: Tensor
