"""What the kind of a student decides: a detector, a segmenter or a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd import class_terms, pixel_terms, teacher_terms
from detkd.adapters.base import ClassifierAdapter, SegmenterAdapter
from detkd.class_terms import ClassTerms
from detkd.pixel_pairing import PixelPairing
from detkd.pixel_terms import PixelTerms
from detkd.teacher_terms import TeacherTerms
from detkd.teachers.source import Drawing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detkd.adapters.base import Adapter
    from detkd.teachers.base import Teacher
    from detkd.teachers.ensemble import EnsembleName
    from detkd.teachers.packing import Kept
    from detkd.terms import Term


def make_terms(student: Adapter, teacher: Teacher, terms: Sequence[Term]) -> ClassTerms | PixelTerms | TeacherTerms:
    """Aligners and losses between a student and one teacher; see :class:`detkd.terms.Terms`.

    Args:
        student: Adapter of the student.
        teacher: The teacher.
        terms: The losses.

    Raises:
        AdapterError: If teacher and student do not fit each other in what a term needs.
    """
    if isinstance(student, ClassifierAdapter):
        return ClassTerms(student, teacher, terms)
    if isinstance(student, SegmenterAdapter):
        return PixelTerms(student, teacher, terms)
    return TeacherTerms(student, teacher, terms)


def kept_for(
    student: Adapter, teacher: Teacher, terms: Sequence[Term], anchors: int, ensemble: EnsembleName = "mean"
) -> Kept:
    """What a cache must keep of a teacher, so that a student can learn from it by these terms.

    Args:
        student: Adapter of the student.
        teacher: The teacher.
        terms: The losses.
        anchors: Most anchors of an image, of a detector.
        ensemble: How the teacher is mixed with others; ``ca_mkd`` asks what it finds.

    Raises:
        AdapterError: If teacher and student share no level, or no classes by the given names.
    """
    if isinstance(student, ClassifierAdapter):
        return class_terms.kept_for(student, teacher, terms)
    if isinstance(student, SegmenterAdapter):
        return pixel_terms.kept_for(student, teacher, terms, anchors, ensemble)
    return teacher_terms.kept_for(student, teacher, terms, anchors, ensemble)


def drawing_for(student: Adapter, teacher: Teacher) -> Drawing:
    """How a detector's detections are drawn for a segmenter, where a cache keeps them so.

    Args:
        student: Adapter of the segmenter.
        teacher: The detector.
    """
    assert isinstance(student, SegmenterAdapter), "nobody else learns from what is drawn"
    pairing = PixelPairing(student, teacher.adapter, classes=teacher.classes, scale=teacher.scale)
    return Drawing(pairing.draw, tuple(pairing.common_names))
