"""Detections drawn on pixels."""

from __future__ import annotations

import math

import pytest
import torch

from detkd import rendering
from detkd.rendering import SMALLEST, PrototypeShapes, RegionShapes, render, whole_boxes
from detkd.types import Detections, MaskPredictions

SIZE = (4, 6)
# Two boxes of the first class overlap in columns 2 and 3; one of the second class lies over all of the first column.
BOXES = torch.tensor([[[0.0, 0, 4, 2], [2, 0, 6, 2], [0, 0, 1, 4]]])
SCORES = torch.tensor([[[0.8, 0.0], [0.5, 0.0], [0.0, 0.6]]])


def drawn(found: Detections, *, softmax: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and weights."""
    pixels = render(found, whole_boxes, SIZE, softmax=softmax)
    assert pixels.softmax == softmax
    assert pixels.weights is not None
    return pixels.logits.softmax(1) if softmax else pixels.logits.sigmoid(), pixels.weights


def test_overlapping_boxes_combine_as_probabilities() -> None:
    found, weights = drawn(Detections(BOXES, SCORES[..., :1]), softmax=False)
    # 1 - (1 - .8)(1 - .5) where both lie; the third is of the other class and draws nothing.
    row = [0.8, 0.8, 0.9, 0.9, 0.5, 0.5]
    assert found[0, 0, 0].tolist() == pytest.approx(row, abs=1e-5)
    assert found[0, 0, 1].tolist() == pytest.approx(row, abs=1e-5)
    assert found[0, 0, 2:].max() < 2 * SMALLEST
    assert weights[0].tolist() == [[1.0] * 6] * 2 + [[0.0] * 6] * 2


def test_classes_and_background_sum_up_to_one() -> None:
    found, weights = drawn(Detections(BOXES, SCORES))
    torch.testing.assert_close(found.sum(1), torch.ones(1, *SIZE))
    # In the corner: classes .8 and .6, background .2 * .4, over their sum 1.48.
    assert found[0, :, 0, 0].tolist() == pytest.approx([0.08 / 1.48, 0.8 / 1.48, 0.6 / 1.48], abs=1e-5)
    assert found[0, :, 0, 3].tolist() == pytest.approx([0.1, 0.9, 0], abs=1e-5)
    assert found[0, :, 3, 0].tolist() == pytest.approx([0.4, 0, 0.6], abs=1e-5)
    assert weights[0, 3].tolist() == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("softmax", [True, False])
def test_nothing_detected_weighs_nothing_and_a_certain_detection_stays_finite(softmax: bool) -> None:
    nothing = Detections(torch.zeros(2, 1, 4), torch.zeros(2, 1, 1))
    found, weights = drawn(nothing, softmax=softmax)
    assert found[:, -1].max() < 2 * SMALLEST
    assert not weights.any()
    certain = render(Detections(BOXES, torch.ones(1, 3, 1)), whole_boxes, SIZE, softmax=softmax).logits
    assert certain.isfinite().all()
    assert certain.abs().max() == pytest.approx(-math.log(SMALLEST), abs=0.2)


def test_images_of_a_batch_are_drawn_apart_and_in_chunks_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = torch.rand(3, 7, 4).cumsum(2) * 2, torch.rand(3, 7, 2)
    whole, _ = drawn(Detections(boxes, scores))
    for image in range(3):
        alone, _ = drawn(Detections(boxes[image : image + 1], scores[image : image + 1]))
        torch.testing.assert_close(alone[0], whole[image])
    monkeypatch.setattr(rendering, "CHUNK", 5 * SIZE[0] * SIZE[1])
    torch.testing.assert_close(drawn(Detections(boxes, scores))[0], whole)


def test_a_mask_of_prototypes_is_cut_to_its_box() -> None:
    """Prototypes of the picture's own size; the mask of an anchor takes the coefficients at its place."""
    prototypes = torch.zeros(1, 2, *SIZE)
    prototypes[0, 0, 1:3] = 100.0  # two rows
    prototypes[0, 0, [0, 3]] = -100.0
    prototypes[0, 1] = -prototypes[0, 0]
    coefficients = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])  # anchor 1 takes the first, anchor 2 the second
    boxes = torch.tensor([[[0.0, 0, 3, 4], [3, 0, 6, 2]]])
    found = Detections(boxes, torch.tensor([[[0.8], [0.6]]]), torch.tensor([[1, 2]]))
    assert found.origins is not None
    pixels = render(found, PrototypeShapes(prototypes, coefficients, found.origins), SIZE, softmax=False).logits.sigmoid()
    expected = torch.zeros(SIZE)
    expected[1:3, :3] = 0.8
    expected[0, 3:] = 0.6  # its other row lies outside of the box
    torch.testing.assert_close(pixels[0, 0], expected, rtol=0, atol=1e-5)


def test_prototypes_of_a_coarser_grid_cover_the_picture() -> None:
    prototypes = torch.full((1, 1, 2, 3), 100.0)
    prototypes[..., 0] = -100.0
    shape = PrototypeShapes(prototypes, torch.ones(1, 1, 1), torch.zeros(1, 1, dtype=torch.long))
    found = Detections(torch.tensor([[[0.0, 0, 6, 4]]]), torch.tensor([[[0.9]]]))
    pixels = render(found, shape, SIZE, softmax=False).logits.sigmoid()
    assert pixels[0, 0, 0].tolist() == pytest.approx([0, 0, 0.9, 0.9, 0.9, 0.9], abs=1e-4)


def test_a_mask_of_a_region_is_stretched_over_its_box_for_its_class() -> None:
    half = torch.full((2, 2), 100.0)
    half[1] = -100.0  # the upper half
    logits = torch.stack((torch.stack((half, -half)), torch.full((2, 2, 2), -100.0), torch.stack((-half, half.T))))
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 6, 4]], [[2.0, 0, 6, 4], [0, 0, 0, 0]]])
    scores = torch.tensor([[[0.9, 0.0], [0.9, 0.9]], [[0.0, 0.7], [0.0, 0.0]]])
    shapes = RegionShapes(MaskPredictions((boxes[0], boxes[1, :1]), logits))
    probabilities = render(Detections(boxes, scores), shapes, SIZE, softmax=True).logits.softmax(1)
    # Between the centres of two cells, four pixels lie at 1, 3/4, 1/4 and 0 of the way.
    fading = torch.tensor([1.0, 0.75, 0.25, 0.0])
    expected = torch.zeros(2, 2, *SIZE)
    expected[0, 0, :, :4] = 0.9 * fading[:, None]
    expected[1, 1, :, 2:] = 0.7 * fading  # by the mask of the second class
    torch.testing.assert_close(probabilities[:, 1:], expected, rtol=0, atol=1e-4)
