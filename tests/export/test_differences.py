"""How far two models' outputs are apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from detkd.export.differences import detection_difference, difference


def test_differences_are_measured_against_what_is_large() -> None:
    boxes, scores = torch.tensor([[0.0, 100.0]]), torch.tensor([0.5])
    assert difference((boxes + 0.5, scores), (boxes, scores)) == pytest.approx(0.005)
    assert difference((boxes, scores + 0.125), (boxes, scores)) == 0.125
    assert difference((boxes[:0], scores), (boxes, scores)) == math.inf
    assert difference((boxes[:0],), (boxes[:0],)) == 0
    assert difference((boxes, scores), (boxes, torch.tensor([math.nan]))) == math.inf
    assert difference((boxes, torch.tensor([math.inf])), (boxes, scores)) == math.inf


def detections(count: int) -> list[Tensor]:
    """Boxes of 10 pixels in a row, of two labels in turn."""
    left = torch.arange(count) * 10.0
    boxes = torch.stack((left, torch.zeros(count), left + 10, torch.full((count,), 10.0)), 1)
    return [boxes, torch.arange(count) % 2 + 1, torch.linspace(0.9, 0.1, count)]


def test_detections_are_compared_whatever_their_order() -> None:
    wanted = detections(10)
    order = torch.randperm(10)
    found = [each[order] for each in wanted]
    assert detection_difference(found, wanted) == 0
    found[0] = found[0] + 0.5  # of 100 pixels
    assert detection_difference(found, wanted) == pytest.approx(0.005)
    other = [wanted[0], wanted[1].flip(0), wanted[2]]  # the labels of other places
    assert detection_difference(other, wanted) > 0.05


def test_one_detection_in_twenty_may_lack_a_partner() -> None:
    wanted = detections(20)
    assert detection_difference([each[:19] for each in wanted], wanted) == 0
    assert detection_difference([each[:16] for each in wanted], wanted) > 0.05
    few = detections(3)
    assert detection_difference([each[:2] for each in few], few) > 0.05


def test_masks_are_compared_with_their_detections() -> None:
    wanted = [*detections(2), torch.zeros(2, 1, 4, 4)]
    found = [*wanted[:3], torch.full((2, 1, 4, 4), 0.25)]
    assert detection_difference(found, wanted) == 0.25


def test_nothing_found_is_the_same_as_nothing_and_unlike_something() -> None:
    nothing, something = [each[:0] for each in detections(1)], detections(1)
    assert detection_difference(nothing, nothing) == 0
    assert detection_difference(nothing, something) == detection_difference(something, nothing) == math.inf


def test_detections_that_are_no_numbers_are_like_nothing() -> None:
    wanted = detections(4)
    assert detection_difference([wanted[0] * math.nan, *wanted[1:]], wanted) == math.inf
    assert detection_difference([*wanted[:2], wanted[2] * math.nan], wanted) == math.inf
