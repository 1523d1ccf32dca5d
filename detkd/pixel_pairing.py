"""How a teacher's outputs are brought to a segmenter's: common levels and classes, one kind of probability, one size."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from detkd.adapters.base import ClassifierAdapter, SegmenterAdapter, TwoStageAdapter
from detkd.detections import candidates, detect
from detkd.errors import AdapterError
from detkd.matching import check_one_to_one, match_classes, match_levels, no_common_classes, pick_classes
from detkd.pairing import select
from detkd.rendering import PrototypeShapes, RegionShapes, as_predictions, draw, whole_boxes
from detkd.second_stage import mask, with_regions
from detkd.types import ClassifierOutputs, PixelPredictions, SegmenterOutputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from detkd.adapters.base import Adapter, DetectorAdapter
    from detkd.rendering import Shape
    from detkd.types import Detections, DetectorOutputs, MaskPredictions, Outputs


class PixelPairing:
    """Fits the outputs of a teacher, a segmenter or a detector, to those of a segmenter.

    Levels and classes meet as in :class:`detkd.pairing.Pairing`. What only one of the two knows is background to the other,
    so that the common classes and the background sum up to 1 in both.

    Args:
        student: Adapter of the student.
        teacher: Adapter of the teacher.
        classes: Teacher's class for a student's class, by name, for those whose names differ. If given, classes that
            the teacher lacks are not distilled; else every class of the student must be one of the teacher's.
        scale: Side of the teacher's input as a multiple of the student's.

    Raises:
        AdapterError: If the teacher is a classifier, or `classes` names a class that is not there, or one of the teacher's
            for several of a softmax.
    """

    def __init__(
        self,
        student: SegmenterAdapter,
        teacher: Adapter,
        *,
        classes: Mapping[str, str] | None = None,
        scale: float = 1.0,
    ) -> None:
        if isinstance(teacher, ClassifierAdapter):
            raise AdapterError(
                f"Expected a segmenter or a detector as teacher of a segmenter, but {type(teacher.model).__name__} is a "
                "classifier. Classifiers teach classifiers."
            )
        self.scale = scale
        self._student = student
        self._teacher: DetectorAdapter | SegmenterAdapter = teacher
        self._classes = match_classes(student.class_names, teacher.class_names, classes)
        if student.softmax and self._classes is not None:
            check_one_to_one(self._classes[1], teacher.class_names)

    @cached_property
    def levels(self) -> list[tuple[int, int]]:
        """Index in the student's levels and in the teacher's of every pair that meets.

        Raises:
            AdapterError: If none does; terms on pixels need none.
        """
        return match_levels(self._student.strides, self._teacher.strides, self.scale)

    def check_classes(self, term: str) -> None:
        """Refuse a term that needs common classes where there are none.

        Raises:
            AdapterError: Listing the classes of both.
        """
        if self._classes is None:
            names = self._student.class_names, self._teacher.class_names
            raise no_common_classes(*names, term, "distil features, which need no classes (`pkd`, `at`)")

    def student_heads(self, heads: tuple[PixelPredictions, ...]) -> tuple[PixelPredictions, ...]:
        """The student's heads over the common classes; that of boundaries as it is."""
        own = None if self._classes is None else self._classes[0]
        return (_fold(heads[0], own), *heads[1:])

    def teacher_heads(self, teacher: Outputs, size: tuple[int, int]) -> tuple[PixelPredictions, ...]:
        """What the teacher says at every pixel, in the form of :meth:`student_heads`.

        Args:
            teacher: Its outputs, in its own frame.
            size: Height and width of the student's input in pixels.

        Returns:
            Logits in float32, first of the classes; then of boundaries, where both know them.
        """
        if not isinstance(teacher, SegmenterOutputs):
            assert not isinstance(teacher, ClassifierOutputs), "refused when the two were paired"
            drawn = self.draw(teacher, size) if teacher.drawn is None else teacher.drawn
            return (as_predictions(drawn, softmax=self._student.softmax),)
        other = None if self._classes is None else self._classes[1]
        heads = (_as_kind(_fold(teacher.heads[0], other), softmax=self._student.softmax), *teacher.heads[1:])
        return tuple(_resize(head, size) for head in heads[: 1 + self._student.boundary])

    def labels(self, classes: Tensor) -> Tensor:
        """Labels [B, H, W] as counted by :meth:`student_heads`: classes that the teacher lacks are background."""
        own = None if self._classes is None else self._classes[0]
        if own is None:
            return classes
        channels = torch.zeros(2 + len(self._student.class_names), dtype=torch.long, device=classes.device)
        channels[-1] = -1  # ignored pixels count from behind
        channels[1 + torch.tensor(own, device=classes.device)] = 1 + torch.arange(len(own), device=classes.device)
        return channels[classes]

    @property
    def common_names(self) -> list[str]:
        """The teacher's names of the common classes, in the student's order."""
        names, chosen = self._teacher.class_names, None if self._classes is None else self._classes[1]
        return list(names) if chosen is None else [names[index] for index in chosen]

    def draw(self, teacher: DetectorOutputs, size: tuple[int, int]) -> Tensor:
        """A detector's detections of the common classes, drawn on the student's pixels; see :func:`detkd.rendering.draw`.

        Args:
            teacher: Its outputs, in its own frame.
            size: Height and width of the student's input in pixels.
        """
        assert not isinstance(self._teacher, SegmenterAdapter), "a detector's outputs come from a detector"
        classes = None if self._classes is None else self._classes[1]
        whole = with_regions(self._teacher, teacher, self._teacher_size(size))
        found = detect(candidates(select(whole, range(len(whole.features)), classes, self.scale)))
        return draw(found, self._shape(self._teacher, whole, found, size), size)

    def _shape(self, adapter: DetectorAdapter, whole: DetectorOutputs, found: Detections, size: tuple[int, int]) -> Shape:
        """The masks of what was found, where the detector draws any."""
        if whole.prototypes is not None and whole.dense[0].coefficients is not None and found.origins is not None:
            return PrototypeShapes(whole.prototypes, whole.dense[0].coefficients, found.origins)
        if isinstance(adapter, TwoStageAdapter) and adapter.draws_masks:
            return RegionShapes(self._draw(adapter, whole, found, size))
        return whole_boxes

    def _draw(
        self, adapter: TwoStageAdapter, whole: DetectorOutputs, found: Detections, size: tuple[int, int]
    ) -> MaskPredictions:
        """What a mask head says of the detected boxes, with the common classes."""
        counts = (found.scores.amax(2) > 0).sum(1).tolist()  # the rest is padding
        proposals = [image[:count] * self.scale for image, count in zip(found.boxes, counts, strict=True)]
        drawn = mask(adapter, whole, proposals, self._teacher_size(size))
        classes = None if self._classes is None else self._classes[1]
        return replace(drawn, logits=pick_classes(drawn.logits, classes, background=False))

    def _teacher_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return round(size[0] * self.scale), round(size[1] * self.scale)


def _fold(head: PixelPredictions, classes: list[int] | None) -> PixelPredictions:
    """A head over some classes; a sigmoid head has one, which stays."""
    if classes is None or not head.softmax:
        return head
    return replace(head, logits=pick_classes(head.logits.float(), classes, background=True))


def _as_kind(head: PixelPredictions, *, softmax: bool) -> PixelPredictions:
    r"""A head of one class as a sigmoid, :math:`\log p - \log(1 - p)`, or as a softmax with its background; others stay."""
    if head.softmax == softmax:
        return head
    logits = head.logits.float()
    if softmax:
        return replace(head, logits=torch.cat((torch.zeros_like(logits), logits), 1), softmax=True)
    return replace(head, logits=logits[:, 1:] - logits[:, :1], softmax=False)


def _resize(head: PixelPredictions, size: tuple[int, int]) -> PixelPredictions:
    """A head on a picture of another size."""
    logits = head.logits.float()
    if logits.shape[2:] != size:
        smaller = logits.shape[2] > size[0]
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=False, antialias=smaller)
    return replace(head, logits=logits)
