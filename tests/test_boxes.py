from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection import _utils as detection_utils

from detkd.boxes import contains, encode_boxes


def some_boxes(count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    corner = torch.rand(count, 2, dtype=dtype) * 50
    return torch.cat((corner, corner + 2 + torch.rand(count, 2, dtype=dtype) * 40), -1)


def test_offsets_by_hand() -> None:
    # Centre (3, 2) from (2, 2), 6 × 4 from 4 × 4.
    found = encode_boxes(torch.tensor([0.0, 0, 6, 4]), torch.tensor([0.0, 0, 4, 4]))
    torch.testing.assert_close(found, torch.tensor([10 * 1 / 4, 0, 5 * math.log(6 / 4), 0]))


def test_offsets_are_those_of_torchvision() -> None:
    boxes, references = some_boxes(20), some_boxes(20)
    coder = detection_utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
    torch.testing.assert_close(encode_boxes(boxes, references), coder.encode_single(boxes, references))
    weights = (1.0, 2.0, 3.0, 4.0)
    coder = detection_utils.BoxCoder(weights)
    torch.testing.assert_close(encode_boxes(boxes, references, weights), coder.encode_single(boxes, references))


def test_offsets_broadcast() -> None:
    boxes, references = some_boxes(3), some_boxes(2)
    found = encode_boxes(boxes[:, None], references)
    assert found.shape == (3, 2, 4)
    torch.testing.assert_close(found[2, 1], encode_boxes(boxes[2], references[1]))


@pytest.mark.parametrize("references", [torch.zeros(2, 4), torch.tensor([[0.0, 0, 8, 8]]).repeat(2, 1)])
def test_offsets_of_boxes_without_area_are_finite_and_so_are_their_slopes(references: torch.Tensor) -> None:
    boxes = torch.tensor([[0.0, 0, 0, 0], [5, 5, 3, 2]], requires_grad=True)
    offsets = encode_boxes(boxes, references)
    offsets.sum().backward()
    assert offsets.isfinite().all()
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()


def test_a_point_on_the_border_lies_outside() -> None:
    points = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 3.0], [5.0, 1.0], [1.0, 2.9]])
    boxes = torch.tensor([[0.0, 0, 2, 3], [0, 0, 0, 0]])
    found = contains(boxes[:, None], points)
    assert found.tolist() == [[True, False, False, False, True], [False] * 5]
