"""Hand-worked values of the distance of two answers."""

from __future__ import annotations

import math

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.losses import consistency

HALF, QUARTER = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]])  # (1/2, 1/2) and (1/4, 3/4)


def test_the_squared_difference_sums_over_classes() -> None:
    assert consistency(HALF, QUARTER).item() == pytest.approx(2 * 0.25**2)


def test_the_divergence_is_that_of_the_teacher_from_the_student() -> None:
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert consistency(HALF, QUARTER, distance="kl").item() == pytest.approx(expected)


def test_positions_of_maps_are_rows() -> None:
    student, teacher = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    by_row = consistency(*(x.movedim(1, -1).reshape(-1, 5) for x in (student, teacher)))
    torch.testing.assert_close(consistency(student, teacher), by_row)


def test_an_unknown_distance_is_refused() -> None:
    with pytest.raises(ArgumentError, match="mse or kl"):
        consistency(HALF, QUARTER, distance="l1")  # type: ignore[arg-type]
