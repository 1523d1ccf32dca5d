"""The distillation terms of a segmenter and one teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from detkd.adapters.base import SegmenterAdapter, TwoStageAdapter
from detkd.errors import AdapterError
from detkd.losses import LOSSES
from detkd.matching import check_grids
from detkd.pixel_pairing import PixelPairing
from detkd.places import loss_inputs
from detkd.teachers.ensemble import pixel_label_loss, scale_pixel_gradients
from detkd.teachers.packing import Kept
from detkd.terms import level_aligners, level_losses, level_parts
from detkd.types import NOT_LEARNT, UNLABELLED, PixelTargets, SegmenterOutputs
from detkd.vocabulary import PIXEL_NAMES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from detkd.teachers.base import Teacher
    from detkd.teachers.ensemble import EnsembleName
    from detkd.terms import Term
    from detkd.types import Outputs, PixelPredictions

Place = Literal["levels", "pixels"]
OFFERED: dict[Place, set[str]] = {"levels": {"student_feature", "teacher_feature"}, "pixels": set(PIXEL_NAMES)}


class PixelTerms(nn.Module):
    """Aligners and losses between a segmenter and one teacher, a segmenter or a detector; see :class:`detkd.terms.Terms`.

    Args:
        student: Adapter of the student.
        teacher: The teacher.
        terms: The losses.

    Attributes:
        pairing: How the teacher's outputs are brought to the student's.
        places: Where each loss works, by its name.

    Raises:
        AdapterError: If teacher and student do not fit each other in what a term needs.
    """

    def __init__(self, student: SegmenterAdapter, teacher: Teacher, terms: Sequence[Term]) -> None:
        super().__init__()
        self.pairing = PixelPairing(student, teacher.adapter, classes=teacher.classes, scale=teacher.scale)
        self._inputs = {term.name: loss_inputs(term.name) for term in terms}
        self.places = {name: find_pixel_place(name) for name in self._inputs}
        for name, place in self.places.items():
            if place == "pixels":
                self.pairing.check_classes(name)
        self._levels = self.pairing.levels if "levels" in self.places.values() else []
        channels = [teacher.adapter.feature_channels[level] for _, level in self._levels]
        self.losses, self.aligners = nn.ModuleDict(), nn.ModuleDict()
        for term in terms:
            if self.places[term.name] == "levels":
                self.losses[term.name] = level_losses(term, channels)
                self.aligners[term.name] = level_aligners(term.name, student, teacher.adapter, self._levels)
            else:
                self.losses[term.name] = LOSSES[term.name](**dict(term.arguments or {}))

    def check_confidence(self) -> None:
        """Refuse to judge the teacher by the labels where they share no classes; see :class:`detkd.terms.Terms`."""
        self.pairing.check_classes("ca_mkd")

    def no_labels(self, images: Tensor) -> PixelTargets:
        """The labels of a batch of background."""
        classes = torch.zeros(len(images), *images.shape[2:], dtype=torch.long, device=images.device)
        return PixelTargets(classes, torch.zeros_like(classes, dtype=torch.bool))

    def prepare(self, teacher: Outputs, size: tuple[int, int], names: Collection[str], *, judged: bool) -> SegmenterOutputs:
        """The teacher's features as they are, and where needed what it says at every pixel of the student's input."""
        needed = judged or any(self.places[name] == "pixels" for name in names)
        return SegmenterOutputs(teacher.features, self.pairing.teacher_heads(teacher, size) if needed else ())

    def confidence_loss(self, teacher: SegmenterOutputs, targets: PixelTargets, size: tuple[int, int]) -> Tensor:
        """How badly the teacher says the labelled classes of each image, [B]."""
        del size
        return pixel_label_loss(teacher.heads[0], self.pairing.labels(targets.classes.clamp(min=NOT_LEARNT)))

    def weighed_at(self, names: Collection[str], student: SegmenterOutputs) -> dict[str, tuple[Tensor, ...]]:
        """The decoder's finest level for what compares pixels, all levels for others; see :class:`detkd.terms.Terms`."""
        return {name: student.features if self.places[name] == "levels" else student.features[:1] for name in names}

    def forward(
        self,
        names: Collection[str],
        student: SegmenterOutputs,
        teacher: SegmenterOutputs,
        targets: PixelTargets,
        size: tuple[int, int],
        factors: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the unweighted scalar of each named term; see :class:`detkd.terms.Terms`."""
        del size
        if factors is not None:
            student = scale_pixel_gradients(student, factors)
        places = {self.places[name] for name in names}
        heads = self._heads(student, teacher, targets) if "pixels" in places else []
        if "levels" in places:
            check_grids(student.features, teacher.features, self._levels)
        own = [student.features[s] for s, _ in self._levels]
        others = [{"teacher_feature": teacher.features[t]} for _, t in self._levels]
        terms = {}
        for name in names:
            loss, wanted = self.losses[name], self._inputs[name]
            if self.places[name] == "levels":
                terms[name] = torch.stack(level_parts(loss, self.aligners[name], own, others, wanted)).sum()
            else:
                terms[name] = torch.stack([loss(*(head[key] for key in wanted)) for head in heads]).mean()
        return terms

    def _heads(self, student: SegmenterOutputs, teacher: SegmenterOutputs, targets: PixelTargets) -> list[dict[str, Any]]:
        """What is offered under ``PIXEL_NAMES`` for each head that both have."""
        known, unlabelled = targets.classes != NOT_LEARNT, targets.classes == UNLABELLED
        boundary = known.new_zeros(()) if targets.boundary is None else targets.boundary
        labelled = targets.classes >= 0 if targets.boundary is not None else torch.zeros_like(known)
        labels = self.pairing.labels(targets.classes.clamp(min=NOT_LEARNT)), torch.where(labelled, boundary.long(), -1)
        heads = zip(self.pairing.student_heads(student.heads), teacher.heads, labels, strict=False)
        return [_pixel_tensors(own, other, label, known, unlabelled) for own, other, label in heads]


def find_pixel_place(name: str) -> Place:
    """Where a loss works on a segmenter, by the names that it asks for.

    Raises:
        AdapterError: If a segmenter does not offer all of them in one place.
    """
    inputs = loss_inputs(name)
    place = _place_of(name)
    if place is None:
        unknown = [key for key in inputs if key not in set().union(*OFFERED.values())]
        usable = ", ".join(f"`{other}`" for other in LOSSES if _place_of(other))
        raise AdapterError(
            f"Expected loss `{name}` to need only what a segmenter offers, but it needs {unknown or list(inputs)}. "
            f"A segmenter learns by {usable}."
        )
    return place


def kept_for(
    student: SegmenterAdapter, teacher: Teacher, terms: Sequence[Term], anchors: int, ensemble: EnsembleName = "mean"
) -> Kept:
    """What a cache must keep of a segmenter's teacher; see :func:`detkd.kinds.kept_for`."""
    pairing = PixelPairing(student, teacher.adapter, classes=teacher.classes, scale=teacher.scale)
    places = {find_pixel_place(term.name) for term in terms}
    levels: Sequence[int] = [level for _, level in pairing.levels] if "levels" in places else []
    pixels = "pixels" in places or ensemble == "ca_mkd"
    if isinstance(teacher.adapter, SegmenterAdapter):
        return Kept(0, levels=tuple(levels), pixels=pixels)
    if pixels and isinstance(teacher.adapter, TwoStageAdapter):
        return Kept(anchors, levels=tuple(levels), drawn=True)  # its second stage takes far longer than its first
    return Kept(anchors, coefficients=pixels, prototypes=pixels, levels=tuple(levels))


def _place_of(name: str) -> Place | None:
    inputs = set(loss_inputs(name))
    return next((place for place, offered in OFFERED.items() if inputs <= offered), None)


def _pixel_tensors(
    student: PixelPredictions, teacher: PixelPredictions, labels: Tensor, known: Tensor, unlabelled: Tensor
) -> dict[str, Tensor]:
    """What is offered under ``PIXEL_NAMES`` for one pair of heads.

    Where a detector finds nothing the labels know better; where there are none, it is the only one to say background.
    """
    weights = known.float()
    if teacher.weights is not None:
        weights = weights * torch.where(unlabelled, 1.0, teacher.weights)
    return {
        "student_pixels": student.logits,
        "teacher_pixels": teacher.logits,
        "pixel_weights": weights,
        "pixel_labels": labels,
    }
