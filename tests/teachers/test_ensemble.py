"""Weights of several teachers."""

from __future__ import annotations

import math

import pytest
import torch

from detkd.detections import candidates
from detkd.losses import bckd
from detkd.teachers.ensemble import confidence_weights, label_loss, scale_gradients
from detkd.types import DensePredictions, Detections, DetectorOutputs, Targets


def outputs(logits: torch.Tensor, boxes: torch.Tensor) -> DetectorOutputs:
    head = DensePredictions(logits, boxes, bins=logits[:, None], coefficients=logits)
    feature = logits.unflatten(2, (1, -1))
    points = torch.zeros(boxes.shape[1], 2)
    return DetectorOutputs((feature,), (head,), points, stages=((feature, feature),), prototypes=feature)


def test_confidence_by_hand() -> None:
    weights = confidence_weights(torch.tensor([[0.0, 1.0], [0.0, 1.0], [math.log(2.0), 1.0]]))
    # exp: 1, 1 and 2 of 4: (1 - 1/4)/2 and (1 - 2/4)/2
    assert weights[:, 0].tolist() == pytest.approx([0.375, 0.375, 0.25])
    assert weights[:, 1].tolist() == pytest.approx([1 / 3] * 3)
    assert confidence_weights(torch.tensor([[3.0, 5.0]])).tolist() == [[1, 1]]
    assert confidence_weights(torch.tensor([[1e3], [0.0]])).tolist() == [[0], [1]]


def test_who_does_not_know_the_labels_is_not_confident() -> None:
    inf = math.inf
    losses = torch.tensor([[0.0, inf, inf, 0.0], [0.0, 2.0, inf, inf], [inf, inf, inf, math.log(3.0)]])
    # exp: 1 and 3 of 4
    assert confidence_weights(losses).T.tolist() == [
        pytest.approx([1 / 2, 1 / 2, 0]),
        [0, 1, 0],
        pytest.approx([1 / 3] * 3),
        pytest.approx([3 / 4, 0, 1 / 4]),
    ]


def test_label_loss_by_hand() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 20]], [[0, 0, 10, 10], [0, 0, 10, 20]]])
    logits = torch.tensor([[[0.0, -50.0], [-50.0, math.log(3)]], [[0.0, 0.0], [0.0, 0.0]]])
    targets = Targets(torch.zeros(2, 2, 4), torch.full((2, 2), -1))
    targets.boxes[0] = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 10]])
    targets.classes[0] = torch.tensor([0, 1])
    found = label_loss(candidates(outputs(logits, boxes)), targets)
    # class 0: score 1/2, IoU 1; class 1: score 3/4, IoU 1/2; of an image without objects nothing is known
    assert found.tolist() == pytest.approx([-(math.log(1 / 2) + math.log(3 / 8)) / 2, math.inf], abs=1e-5)
    nothing = Targets(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.long))
    assert label_loss(candidates(outputs(logits, boxes)), nothing).tolist() == [math.inf] * 2
    silent = Detections(torch.zeros(2, 0, 4), torch.zeros(2, 0, 2))
    assert label_loss(silent, targets).tolist() == pytest.approx([-math.log(1e-6), math.inf])


def test_scaled_gradients_weigh_any_loss_by_image() -> None:
    """BCKD of two images, its normaliser held, is the weighted sum of what each image gives alone."""
    logits, boxes = torch.randn(2, 3, 5), torch.rand(2, 5, 4).cumsum(-1)
    teacher, other = torch.randn(2, 3, 5), torch.rand(2, 5, 4).cumsum(-1)
    factors = torch.tensor([0.25, 3.0])

    def gradients(weighted: bool) -> list[torch.Tensor]:
        leaves = [logits.clone().requires_grad_(), boxes.clone().requires_grad_()]
        student = outputs(*leaves)
        if weighted:
            student = scale_gradients(student, factors)
        assert torch.equal(student.heads[0].logits, logits)
        bckd(student.heads[0].logits, teacher, student.heads[0].boxes, other).backward()
        return [leaf.grad for leaf in leaves]

    for plain, weighted in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(weighted, plain * factors.view(-1, 1, 1))


def test_scaled_gradients_reach_every_tensor() -> None:
    leaf = torch.randn(2, 3, 4, requires_grad=True)
    found = scale_gradients(outputs(leaf, torch.rand(2, 4, 4)), torch.tensor([2.0, 0.0]))
    head = found.heads[0]
    for tensor in (head.logits, head.bins, head.coefficients, *found.features, *found.stages[0], found.prototypes):
        (gradient,) = torch.autograd.grad(tensor.sum(), leaf, retain_graph=True)
        assert gradient[0].unique().tolist() == [2.0]
        assert not gradient[1].any()
