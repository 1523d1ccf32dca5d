"""What a detector finds, as a segmenter would say it: a probability of every class at every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F

from detkd.types import PixelPredictions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from detkd.types import Detections, MaskPredictions

SILENT = 0.05  # a pixel at which every class is less probable is one that the detector says nothing about
NEGLIGIBLE = 0.01  # class scores below draw nothing
SMALLEST = 1e-6  # probability that a logit stands for at least
CHUNK = 2**24  # values of the maps that are drawn at a time


@dataclass(frozen=True)
class Marks:
    """Some pairs of a detection and a class that it may be of.

    Attributes:
        images: Index of each pair's image, [P].
        detections: Index of the detection in its image, [P].
        classes: The class, [P].
        boxes: Box of the detection in pixels of the picture, [P, 4].
        scores: Probability of the class, [P].
    """

    images: Tensor
    detections: Tensor
    classes: Tensor
    boxes: Tensor
    scores: Tensor

    def chunks(self, count: int) -> Iterator[Marks]:
        """So many pairs at a time."""
        fields = (self.images, self.detections, self.classes, self.boxes, self.scores)
        for parts in zip(*(field.split(count) for field in fields), strict=True):
            yield Marks(*parts)


class Shape(Protocol):
    """What a detection covers of the picture, before it is cropped to its box."""

    def __call__(self, marks: Marks, size: tuple[int, int]) -> Tensor | None:
        """Probability that each pixel of a picture of a height and width is the object's, [P, H, W]; None for all 1."""


def whole_boxes(marks: Marks, size: tuple[int, int]) -> None:
    """The shape of a detection without a mask: all of its box."""
    del marks, size


class PrototypeShapes:
    """Masks that coefficients and prototypes make together (YOLACT, Bolya et al. 2019, arXiv:1904.02689).

    Args:
        prototypes: [B, M, h, w].
        coefficients: Of each anchor, [B, M, A].
        origins: The anchors of the detections, [B, N].
    """

    def __init__(self, prototypes: Tensor, coefficients: Tensor, origins: Tensor) -> None:
        chosen = coefficients.float().gather(2, origins[:, None].expand(-1, coefficients.shape[1], -1))
        self._maps = torch.einsum("bmn,bmhw->bnhw", chosen, prototypes.float())

    def __call__(self, marks: Marks, size: tuple[int, int]) -> Tensor:
        """The masks, enlarged to the picture; see :class:`Shape`."""
        maps = self._maps[marks.images, marks.detections]
        return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0].sigmoid()


class RegionShapes:
    """Masks of a second stage, stretched over the boxes that they were drawn for.

    Args:
        masks: What the mask head says of the detected boxes of each image, with the classes of the detections.
    """

    def __init__(self, masks: MaskPredictions) -> None:
        counts = torch.tensor([len(boxes) for boxes in masks.proposals], device=masks.logits.device)
        self._first = counts.cumsum(0) - counts  # row of each image's first region
        self._logits = masks.logits.float()

    def __call__(self, marks: Marks, size: tuple[int, int]) -> Tensor:
        """The masks, pasted on the picture; see :class:`Shape`."""
        masks = self._logits[self._first[marks.images] + marks.detections, marks.classes].sigmoid()
        x, y = (_across(marks.boxes[:, [axis, axis + 2]], size[1 - axis]) for axis in (0, 1))
        grid = torch.stack((x[:, None].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])), -1)
        return F.grid_sample(masks[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def _across(sides: Tensor, count: int) -> Tensor:
    """Where centres of pixels lie between two sides [P, 2]: -1 is on the first, 1 on the second, [P, count]."""
    centres = torch.arange(count, device=sides.device) + 0.5
    first, second = sides[:, :1], sides[:, 1:]
    return 2 * (centres - first) / (second - first).clamp(min=1e-3) - 1


@torch.no_grad()
def draw(detections: Detections, shape: Shape, size: tuple[int, int]) -> Tensor:
    r"""Draw detections on the pixels of a picture.

    Several of one class are taken as independent: :math:`p_c = 1 - \prod_i (1 - s_{ic} m_i)` of the scores s and the shapes
    m.

    Args:
        detections: What was found, boxes in pixels of the picture.
        shape: What each covers within its box: :func:`whole_boxes`, :class:`PrototypeShapes` or :class:`RegionShapes`.
        size: Height and width of the picture.

    Returns:
        Probability p that an object of each class lies on each pixel, [B, C, H, W].
    """
    # Not by expm1, here and below not by log1p: on a CPU they take several times as long, and no score is so small.
    return 1 - _log_absence(detections, shape, size).exp()


@torch.no_grad()
def as_predictions(drawn: Tensor, *, softmax: bool) -> PixelPredictions:
    r"""What is drawn, as a segmenter would say it.

    Under a softmax the background has :math:`\prod_c (1 - p_c)`, and all are divided by their sum.

    Args:
        drawn: Probabilities of :func:`draw`.
        softmax: Whether the classes exclude each other; without, there must be one class.

    Returns:
        Log-probabilities of 1 + C channels, or the logit of the one class; the weights are 0 where no class is as probable
        as ``SILENT``.
    """
    present = drawn.clamp(SMALLEST, 1 - SMALLEST)
    absent = (1 - present).log()
    if softmax:
        logits = torch.cat((absent.sum(1, keepdim=True), present.log()), 1).log_softmax(1)
    else:
        logits = present.log() - absent
    return PixelPredictions(logits, softmax, (present.amax(1) >= SILENT).float())


def render(detections: Detections, shape: Shape, size: tuple[int, int], *, softmax: bool) -> PixelPredictions:
    """Draw detections as a segmenter would say them: :func:`draw` and :func:`as_predictions`."""
    return as_predictions(draw(detections, shape, size), softmax=softmax)


def _log_absence(detections: Detections, shape: Shape, size: tuple[int, int]) -> Tensor:
    r"""Logarithm of the probability that no detection of a class lies on a pixel, :math:`\sum_i \log(1 - s_{ic} m_i)`."""
    scores = detections.scores.float()
    batch, _, classes = scores.shape
    images, found, kinds = (scores >= NEGLIGIBLE).nonzero().unbind(1)
    marks = Marks(images, found, kinds, detections.boxes.float()[images, found], scores[images, found, kinds])
    total = scores.new_zeros(batch * classes, *size)
    for part in marks.chunks(max(1, CHUNK // (size[0] * size[1]))):
        drawn = part.scores.clamp(max=1 - SMALLEST)[:, None, None] * _inside(part.boxes, size)
        masks = shape(part, size)
        absent = 1 - (drawn if masks is None else drawn * masks)
        total.index_add_(0, part.images * classes + part.classes, absent.log())
    return total.view(batch, classes, *size)


def _inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether the centre of each pixel lies in each box [P, 4], [P, H, W]."""
    x, y = (_across(boxes[:, [axis, axis + 2]], size[1 - axis]).abs() <= 1 for axis in (0, 1))
    inside: Tensor = y[:, :, None] & x[:, None]
    return inside
