"""Weights that fall as the student nears the teacher."""

from __future__ import annotations

import pytest
import torch

from detkd.distances import MOMENTUM, START, Distances


def measure(distances: Distances, **values: float) -> dict[str, float]:
    found = distances({name: torch.tensor(value, requires_grad=True) for name, value in values.items()})
    return {name: float(factor) for name, factor in found.items()}


def test_a_factor_is_the_share_of_the_first_distance_that_is_left() -> None:
    distances = Distances({"a": 1.0, "b": 2.0})
    assert [measure(distances, a=4.0, b=1.0, c=9.0) for _ in range(START)] == [{"a": 1.0, "b": 1.0}] * START
    share = MOMENTUM + (1 - MOMENTUM) * 0.5  # a step at half of the first distance, in an average over many
    assert measure(distances, a=2.0, b=0.5) == pytest.approx({"a": share, "b": share**2})
    for _ in range(400):
        found = measure(distances, a=1.0, b=0.25)
    assert found == pytest.approx({"a": 0.25, "b": 0.0625}, rel=1e-3)


def test_the_start_is_the_mean_of_the_first_steps_of_each_term() -> None:
    distances = Distances({"early": 1.0, "late": 1.0})
    for step in range(START):
        measure(distances, early=float(step % 2) * 4)  # 2 in the mean
    for _ in range(START):
        found = measure(distances, early=2.0, late=6.0)
    assert found == pytest.approx({"early": 1.0, "late": 1.0})
    for _ in range(400):
        found = measure(distances, late=3.0)
    assert found == pytest.approx({"late": 0.5}, rel=1e-3)


def test_a_student_that_falls_back_is_taught_again_and_never_more_than_at_the_start() -> None:
    distances = Distances({"a": 1.0})
    found = [[measure(distances, a=value)["a"] for _ in range(200)][-1] for value in (2.0, 0.5, 1.0, 8.0)]
    assert found == pytest.approx([1.0, 0.25, 0.5, 1.0], rel=1e-3)


def test_a_term_that_has_nothing_to_say_and_an_overflow_keep_their_factor() -> None:
    distances = Distances({"a": 0.5, "b": 1.0})
    for _ in range(START):
        measure(distances, a=0.0, b=1.0)
    assert measure(distances, a=float("inf"), b=float("nan")) == {"a": 1.0, "b": 1.0}
    assert measure(distances, a=0.0, b=1.0) == pytest.approx({"a": 1.0, "b": 1.0})


def test_a_resumed_run_measures_from_the_same_start() -> None:
    distances, again = Distances({"a": 1.0}), Distances({"a": 1.0})
    for _ in range(START + 5):
        measure(distances, a=4.0)
    again.load_state_dict(distances.state_dict())
    assert measure(again, a=1.0) == measure(distances, a=1.0) == pytest.approx({"a": MOMENTUM + (1 - MOMENTUM) / 4})
    assert Distances({}).state_dict() == {}
