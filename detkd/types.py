"""Types shared by all parts of detkd; this file imports nothing of detkd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["none", "sum", "mean", "batchmean"]
Backend = Literal["auto", "fused", "reference"]
Mode = Literal["fit", "tiles"]  # whether a U-Net is shown whole pictures that are scaled, or pieces of them


@dataclass(frozen=True)
class DensePredictions:
    """What one head says at every anchor.

    B images, A anchors (all levels one after another, finest first), C classes, R bins of a box side's distribution,
    M mask prototypes.

    Attributes:
        logits: Class logits before the sigmoid, [B, C, A]; of a softmax head [B, 1 + C, A], background first.
        boxes: Decoded boxes (x1, y1, x2, y2) in pixels of the network's input, [B, A, 4].
        bins: Logits of the distribution of each box side, [B, 4, R, A]; None for heads that regress sides directly.
        coefficients: Factors of the mask prototypes, [B, M, A]; None for detectors without masks.
        known: Where all of this is what the head said, [B, A]; elsewhere the logits are an average, the boxes and the rest
            mean nothing. None where everything is known.
        softmax: Whether the classes exclude each other.
    """

    logits: Tensor
    boxes: Tensor
    bins: Tensor | None = None
    coefficients: Tensor | None = None
    known: Tensor | None = None
    softmax: bool = False


@dataclass(frozen=True)
class RegionPredictions:
    """What the second stage of a detector says of proposed regions.

    R regions, those of all images one after another, C classes.

    Attributes:
        proposals: The regions of each image, (x1, y1, x2, y2) in pixels of the network's input, [R_i, 4] each.
        logits: Class logits of a softmax, background first, [R, 1 + C].
        boxes: The regions as refined for each class, [R, C, 4]; C is 1 for a head that refines all classes alike.
    """

    proposals: tuple[Tensor, ...]
    logits: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class MaskPredictions:
    """What the mask head of a two-stage detector says of some regions.

    Attributes:
        proposals: The regions of each image, (x1, y1, x2, y2) in pixels of the network's input, [R_i, 4] each.
        logits: Mask of each class before the sigmoid, over the region, [R, C, S, S].
    """

    proposals: tuple[Tensor, ...]
    logits: Tensor


@dataclass(frozen=True)
class DetectorOutputs:
    """What a detector computed for one batch, in a form that no family owns.

    Attributes:
        features: Feature maps that enter the head, one a level, each [B, C_l, H_l, W_l].
        heads: The predictions of each dense head of classes: the one-to-many head, and behind it the one-to-one head of an
            end-to-end detector. None of them in a two-stage detector.
        anchor_points: Centres (x, y) of the anchors in pixels of the network's input, [A, 2]; the anchors of one position
            follow each other.
        stages: For each level the feature maps behind the first layer of the one-to-many head's box and class branches.
        prototypes: Mask prototypes, [B, M, H, W]; None for detectors without masks.
        objectness: What a region proposal network says at every anchor, its only class being any object; None for
            detectors of one stage.
        regions: What the second stage says of the regions that it was shown; None where it has not run.
        masks: What a mask head says of those that lie on objects; None where there is none, or it has not run.
        head_weights: How the task loss weighs each of `heads`; empty where it weighs them alike.
        drawn: What it finds, drawn on the pixels of a segmenter that learns from it, [B, C, H, W] of
            :func:`detkd.rendering.draw`; None where that is still to be done.
    """

    features: tuple[Tensor, ...]
    heads: tuple[DensePredictions, ...]
    anchor_points: Tensor
    stages: tuple[tuple[Tensor, Tensor], ...] = ()
    prototypes: Tensor | None = None
    objectness: DensePredictions | None = None
    regions: RegionPredictions | None = None
    masks: MaskPredictions | None = None
    head_weights: tuple[float, ...] = ()
    drawn: Tensor | None = None

    @property
    def dense(self) -> tuple[DensePredictions, ...]:
        """What is said at every anchor: the heads of classes, or of a two-stage detector its objectness."""
        return (self.objectness,) if self.objectness is not None else self.heads


@dataclass(frozen=True)
class Targets:
    """The labels of a batch, padded to the largest count M.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels of the student's input, zeros where padded, [B, M, 4].
        classes: Indices of the student's classes, -1 where padded, [B, M].
    """

    boxes: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Detections:
    """What a detector finds in a batch, N boxes an image at most.

    Attributes:
        boxes: (x1, y1, x2, y2) in pixels of the network's input, zeros where there are fewer, [B, N, 4].
        scores: Probability of every class, zeros where there are fewer boxes, [B, N, C].
        origins: Index of the anchor, or of the image's region, that each was found at, zeros where there are fewer boxes,
            [B, N]; None where they stand in that order.
    """

    boxes: Tensor
    scores: Tensor
    origins: Tensor | None = None


@dataclass(frozen=True)
class PixelPredictions:
    """What one head of a segmenter says at every pixel.

    Attributes:
        logits: [B, K, H, W] at the size of the network's input. Of a softmax head K is 1 + the number of classes,
            background first; else K is 1, the logit of its only class, or of a boundary.
        softmax: Whether the channels exclude each other.
        weights: How much each pixel says, from 0 to 1, [B, H, W]; None where all say the same. A detector rendered as
            pixels says nothing where it found nothing.
    """

    logits: Tensor
    softmax: bool
    weights: Tensor | None = None


@dataclass(frozen=True)
class SegmenterOutputs:
    """What a segmenter computed for one batch.

    Attributes:
        features: Feature maps, finest first, each [B, C_l, H_l, W_l].
        heads: What is said of the classes, and behind it of the boundaries between objects where the model knows them.
    """

    features: tuple[Tensor, ...]
    heads: tuple[PixelPredictions, ...]


# Labels of pixels that are no class.
BACKGROUND = "background"  # beside the classes, where they are named
NOT_LEARNT = -1  # margins, crowds, what a label says to ignore
UNLABELLED = -2  # there is no label, but a teacher may speak


class PixelTargets(NamedTuple):
    """The labels of a batch of pictures, pixel by pixel.

    Attributes:
        classes: 0 for the background, 1 + the index of the class, ``NOT_LEARNT`` or ``UNLABELLED``, [B, H, W] of int64.
        boundary: Whether a pixel lies where an object ends, [B, H, W] of bool; None where no boundaries are learnt.
    """

    classes: Tensor
    boundary: Tensor | None = None


@dataclass(frozen=True)
class ClassifierOutputs:
    """What a classifier computed for one batch of pictures or sentences.

    Attributes:
        features: Feature maps, finest first, each [B, C_l, H_l, W_l]; of sentences the hidden states behind the embedding
            and behind each layer, [B, C_l, L, 1].
        logits: Class logits before the softmax, [B, C].
        embedding: What the last linear layer sees, [B, D].
        attentions: Attention probabilities of each layer, [B, H_l, L, L]; none of models without attention.
        tokens: Which of a sentence's tokens are no padding, [B, L]; None for pictures.
        hidden: Of a sentence's hidden states the layers' own tensors [B, L, C_l], of which `features` are views: only they
            lie on the way to the logits, where a gradient can be measured.
    """

    features: tuple[Tensor, ...]
    logits: Tensor
    embedding: Tensor
    attentions: tuple[Tensor, ...] = ()
    tokens: Tensor | None = None
    hidden: tuple[Tensor, ...] = ()


class ClassTargets(NamedTuple):
    """The labels of a batch, one for each picture or sentence.

    Attributes:
        classes: Index of the student's class, [B].
    """

    classes: Tensor


# What a model of any kind computed, and what the labels of its pictures say.
Outputs = DetectorOutputs | SegmenterOutputs | ClassifierOutputs
Labels = Targets | PixelTargets | ClassTargets
