"""What the discriminator descends, the student climbs."""

from __future__ import annotations

import math

import pytest
import torch

from detkd.losses import Adversarial, adversarial


def summed(features: torch.Tensor) -> torch.Tensor:
    return features.flatten(1).sum(1)


def test_the_loss_is_the_cross_entropy_of_the_discriminator() -> None:
    student, teacher = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.5, 0.0]])
    expected = (-math.log(1 - 1 / (1 + math.exp(-2.0))) - math.log(1 / (1 + math.exp(-0.5)))) / 2
    assert adversarial(student, teacher, summed).item() == pytest.approx(expected)


def test_a_discriminator_that_can_tell_nothing_costs_the_log_of_two() -> None:
    assert adversarial(torch.randn(4, 3), torch.randn(4, 3), lambda x: x.sum(1) * 0).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_the_student_climbs_by_its_strength_and_the_teacher_stays(strength: float) -> None:
    student, teacher = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    adversarial(student, teacher, summed, strength=strength).backward()
    slope = student.detach().sum(1).sigmoid()[:, None].expand(-1, 3) / (2 * 4)
    torch.testing.assert_close(student.grad, -strength * slope)
    assert teacher.grad is None


def test_one_optimizer_moves_the_student_to_where_the_teacher_is() -> None:
    student = torch.nn.Parameter(torch.zeros(64, 2, 1, 1))
    teacher = torch.randn(64, 2, 1, 1, generator=torch.Generator().manual_seed(1)) * 0.2 + 2
    loss = Adversarial(2, hidden=16)
    optimizer = torch.optim.Adam([{"params": loss.parameters(), "lr": 0.01}, {"params": [student], "lr": 0.02}])
    for _ in range(300):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    assert (student.detach().mean() - teacher.mean()).abs() < 0.6
