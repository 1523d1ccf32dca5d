"""A teacher's pixels brought to a segmenter's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from detkd.adapters.families import make_adapter
from detkd.adapters.ultralytics import UltralyticsAdapter
from detkd.errors import AdapterError
from detkd.pixel_pairing import PixelPairing
from detkd.types import PixelPredictions, SegmenterOutputs
from tests.adapters.families import build
from tests.adapters.tiny import faster_rcnn
from tests.pixels import TinyAdapter, TinySegmenter

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = (8, 8)


def segmenter(*names: str, boundary: bool = False) -> TinyAdapter:
    return TinyAdapter(TinySegmenter(names, boundary=boundary))


def said(channels: int, *, boundary: bool = False, size: tuple[int, int] = SIZE) -> SegmenterOutputs:
    draw = torch.Generator().manual_seed(channels)
    heads = [torch.randn(2, count, *size, generator=draw) * 3 for count in (channels, *([1] if boundary else []))]
    return SegmenterOutputs((), tuple(PixelPredictions(x, x.shape[1] > 1) for x in heads))


def pair(student: TinyAdapter, teacher: Any, classes: Mapping[str, str] | None = None, scale: float = 1.0) -> PixelPairing:
    return PixelPairing(student, teacher, classes=classes, scale=scale)


def test_levels_meet_by_stride_and_their_lack_is_refused_only_when_asked() -> None:
    assert pair(segmenter("a"), segmenter("a")).levels == [(0, 0), (1, 1)]
    assert pair(segmenter("a"), segmenter("a"), scale=2.0).levels == [(0, 1)]
    assert pair(segmenter("disc"), make_adapter(faster_rcnn())).levels == [(1, 0)]
    strangers = pair(segmenter("a"), segmenter("a"), scale=8.0)
    with pytest.raises(AdapterError, match="share a feature stride"):
        _ = strangers.levels


def test_classes_meet_by_name_and_stay_probabilities() -> None:
    teacher = said(4)
    (head,) = pair(segmenter("cat", "dog", "cow"), segmenter("cow", "cat", "dog")).teacher_heads(teacher, SIZE)
    torch.testing.assert_close(head.logits.softmax(1), teacher.heads[0].logits.softmax(1)[:, [0, 2, 3, 1]])


def test_what_one_of_them_does_not_know_is_background_to_the_other() -> None:
    """The student knows cats and dogs, the teacher felines and birds."""
    pairing = pair(segmenter("cat", "dog"), segmenter("bird", "feline"), {"cat": "feline"})
    student, teacher = said(3), said(3)
    (own,), (other,) = pairing.student_heads(student.heads), pairing.teacher_heads(teacher, SIZE)
    for found, whole, column in ((own, student, 1), (other, teacher, 2)):
        cat = whole.heads[0].logits.softmax(1)[:, column]
        torch.testing.assert_close(found.logits.softmax(1), torch.stack((1 - cat, cat), 1))
    assert pairing.labels(torch.tensor([[[0, 1, 2, -1]]])).tolist() == [[[0, 1, 0, -1]]]
    same = pair(segmenter("cat", "dog"), segmenter("cat", "dog"))
    assert same.labels(torch.tensor([[[0, 1, 2, -1]]])).tolist() == [[[0, 1, 2, -1]]]


def test_no_common_classes_are_refused_with_both_lists() -> None:
    pairing = pair(segmenter("cat", "dog"), segmenter("bird", "cow"))
    with pytest.raises(AdapterError, match=r"for `pixel_kl`.*\['cat', 'dog'\].*\['bird', 'cow'\].*`classes`"):
        pairing.check_classes("pixel_kl")


def test_one_class_of_the_teacher_for_several_that_exclude_each_other_is_refused() -> None:
    shared = {"cat": "animal", "dog": "animal"}
    for teacher in (segmenter("animal", "tree"), UltralyticsAdapter(build("yolov8n", ("animal", "tree")))):
        with pytest.raises(AdapterError, match=r"exclude each other, but \['animal'\] are given for several"):
            pair(segmenter("cat", "dog"), teacher, shared)
    with pytest.raises(AdapterError, match=r"\['cat'\] are given for several"):  # once by the map, once by its name
        pair(segmenter("cat", "dog"), segmenter("cat", "tree"), {"dog": "cat"})


def test_a_sigmoid_learns_from_a_softmax_the_same_probability() -> None:
    teacher = said(4)
    (head,) = pair(segmenter("cat"), segmenter("cow", "cat", "dog")).teacher_heads(teacher, SIZE)
    assert not head.softmax
    torch.testing.assert_close(head.logits.sigmoid()[:, 0], teacher.heads[0].logits.softmax(1)[:, 2])


def test_a_sure_softmax_gives_a_finite_logit() -> None:
    logits = torch.tensor([0.0, 500.0, 0.0])[None, :, None, None].expand(1, 3, 2, 2)
    teacher = SegmenterOutputs((), (PixelPredictions(logits, True),))
    (head,) = pair(segmenter("cat"), segmenter("cat", "dog")).teacher_heads(teacher, (2, 2))
    torch.testing.assert_close(head.logits, torch.full((1, 1, 2, 2), 500.0 - torch.tensor(2.0).log().item()))


def test_a_softmax_learns_from_a_sigmoid_the_same_probability() -> None:
    student, teacher = said(3), said(1)
    pairing = pair(segmenter("cat", "dog"), segmenter("dog"), {"dog": "dog"})
    (own,), (other,) = pairing.student_heads(student.heads), pairing.teacher_heads(teacher, SIZE)
    dog = teacher.heads[0].logits.sigmoid()[:, 0]
    torch.testing.assert_close(other.logits.softmax(1), torch.stack((1 - dog, dog), 1))
    torch.testing.assert_close(own.logits.softmax(1)[:, 1], student.heads[0].logits.softmax(1)[:, 2])


@pytest.mark.parametrize("student", [True, False])
@pytest.mark.parametrize("teacher", [True, False])
def test_boundaries_meet_boundaries_alone(student: bool, teacher: bool) -> None:
    pairing = pair(segmenter("a", boundary=student), segmenter("a", boundary=teacher))
    outputs = said(1, boundary=teacher)
    heads = pairing.teacher_heads(outputs, SIZE)
    assert len(heads) == 1 + (student and teacher)
    for head, other in zip(heads, outputs.heads, strict=False):
        assert torch.equal(head.logits, other.logits)


@pytest.mark.parametrize("scale", [2.0, 0.5])
def test_a_teacher_of_another_size_speaks_of_the_students_pixels(scale: float) -> None:
    outputs = said(3, size=(round(8 * scale), round(8 * scale)))
    (head,) = pair(segmenter("a", "b"), segmenter("a", "b"), scale=scale).teacher_heads(outputs, SIZE)
    assert head.logits.shape == (2, 3, *SIZE)
    ramp = torch.arange(8 * scale).add(0.5).div(scale).expand(1, 3, round(8 * scale), -1)  # in the student's pixels
    (found,) = pair(segmenter("a", "b"), segmenter("a", "b"), scale=scale).teacher_heads(
        SegmenterOutputs((), (PixelPredictions(ramp, True),)), SIZE
    )
    torch.testing.assert_close(found.logits[0, 0, 0, 2:6], torch.tensor([2.5, 3.5, 4.5, 5.5]))


def test_a_detector_of_a_larger_input_is_drawn_on_the_students_pixels() -> None:
    """One detection at a time is found where it lies, for the class that meets it by name."""
    adapter = UltralyticsAdapter(build("yolov8n", ("square", "disc")))
    adapter.attach()
    with torch.no_grad():
        adapter.model.eval()
        adapter.run(torch.rand(1, 3, 64, 64))
    outputs = adapter.take_outputs()
    adapter.detach()
    head = outputs.heads[0]
    head.logits.fill_(-20.0)
    head.logits[0, 1, 5] = torch.tensor(0.9).logit()
    head.boxes[0, 5] = torch.tensor([16.0, 8, 40, 64])
    pairing = pair(segmenter("disc", "square"), adapter, scale=2.0)
    (found,) = pairing.teacher_heads(outputs, (32, 32))
    expected = F.pad(torch.full((28, 12), 0.9), (8, 12, 4, 0))
    torch.testing.assert_close(found.logits.softmax(1)[0, 1], expected, rtol=0, atol=1e-4)
    assert found.weights is not None
    assert torch.equal(found.weights[0], (expected > 0).float())
