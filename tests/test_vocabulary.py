"""Where a cache has no box of the teacher, no loss may take one."""

from __future__ import annotations

import torch

from detkd.losses import LOSSES
from detkd.places import loss_inputs
from detkd.types import DensePredictions, DetectorOutputs
from detkd.vocabulary import dense_tensors

BATCH, ANCHORS, CLASSES = 2, 6, 3
POINTS = torch.rand(ANCHORS, 2) * 64


def outputs(known: torch.Tensor | None = None) -> DetectorOutputs:
    head = DensePredictions(
        logits=torch.randn(BATCH, CLASSES, ANCHORS, requires_grad=True),
        boxes=(POINTS.repeat(1, 2) + torch.rand(BATCH, ANCHORS, 4) * torch.tensor([-9, -9, 9, 9])).requires_grad_(),
        bins=torch.randn(BATCH, 4, 16, ANCHORS, requires_grad=True),
        known=known,
    )
    return DetectorOutputs(features=(), heads=(head,), anchor_points=POINTS)


def test_an_unknown_anchor_pulls_at_no_box() -> None:
    known = torch.tensor([[True, False, True, False, True, False]]).expand(BATCH, -1)
    student, teacher = outputs(), outputs(known)
    own = student.heads[0]
    targets = torch.tensor([[[0.0, 0.0, 64.0, 64.0]]]).expand(BATCH, -1, -1)
    offered = dense_tensors(student, teacher, (own, teacher.heads[0]), targets, (64, 64))
    for name in ("bckd", "ld", "hard_label"):
        loss = LOSSES[name]()(*(offered[key] for key in loss_inputs(name)))
        gradients = torch.autograd.grad(loss, [own.boxes, own.bins], allow_unused=True)
        for gradient, axis in zip(gradients, (1, -1), strict=True):
            if gradient is not None:
                by_anchor = gradient.movedim(axis, 1).flatten(2).abs().sum(-1)
                assert by_anchor[known].min() > 0 or name == "hard_label", name
                assert by_anchor[~known].max() < 1e-6, name
