"""Types shared by all parts of detkd; this file imports nothing of detkd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["none", "sum", "mean", "batchmean"]
Backend = Literal["auto", "fused", "reference"]


@dataclass(frozen=True)
class DensePredictions:
    """What one head says at every anchor.

    B images, A anchors (all levels one after another, finest first), C classes, R bins of a box side's distribution,
    M mask prototypes.

    Attributes:
        logits: Class logits before the sigmoid, [B, C, A].
        boxes: Decoded boxes (x1, y1, x2, y2) in pixels of the network's input, [B, A, 4].
        bins: Logits of the distribution of each box side, [B, 4, R, A]; None for heads that regress sides directly.
        coefficients: Factors of the mask prototypes, [B, M, A]; None for detectors without masks.
        known: Where all of this is what the head said, [B, A]; elsewhere the logits are an average, the boxes and the rest
            mean nothing. None where everything is known.
    """

    logits: Tensor
    boxes: Tensor
    bins: Tensor | None = None
    coefficients: Tensor | None = None
    known: Tensor | None = None


@dataclass(frozen=True)
class DetectorOutputs:
    """What a dense detector computed for one batch, in a form that no family owns.

    Attributes:
        features: Feature maps that enter the head, one a level, each [B, C_l, H_l, W_l].
        heads: The predictions of each head: the one-to-many head, and behind it the one-to-one head of an end-to-end
            detector.
        anchor_points: Centres (x, y) of the anchors in pixels of the network's input, [A, 2].
        stages: For each level the feature maps behind the first layer of the one-to-many head's box and class branches.
        prototypes: Mask prototypes, [B, M, H, W]; None for detectors without masks.
    """

    features: tuple[Tensor, ...]
    heads: tuple[DensePredictions, ...]
    anchor_points: Tensor
    stages: tuple[tuple[Tensor, Tensor], ...] = ()
    prototypes: Tensor | None = None


@dataclass(frozen=True)
class Targets:
    """The labels of a batch, padded to the largest count M.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels of the student's input, zeros where padded, [B, M, 4].
        classes: Indices of the student's classes, -1 where padded, [B, M].
    """

    boxes: Tensor
    classes: Tensor
