"""Weights over time."""

from __future__ import annotations

import pytest

from detkd.errors import ArgumentError
from detkd.schedules import Schedule


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(), [1, 1, 1, 1, 1]),
        (Schedule(warmup=5), [0, 0.5, 1, 1, 1]),
        (Schedule(decay="linear"), [1, 0.75, 0.5, 0.25, 0]),
        (Schedule(decay="cosine", end=0.2), [1, 0.882843, 0.6, 0.317157, 0.2]),
        (Schedule(warmup=5, decay="linear", end=0.5), [0, 0.5, 1, 0.75, 0.5]),
        (Schedule(stop=5), [1, 1, 0, 0, 0]),
    ],
)
def test_factors_by_hand(schedule: Schedule, expected: list[float]) -> None:
    assert [schedule.factor(epoch, 10) for epoch in (0, 2.5, 5, 7.5, 10)] == pytest.approx(expected, abs=1e-6)


def test_a_decay_stays_at_its_end_beyond_the_run() -> None:
    assert Schedule(decay="cosine", end=0.1).factor(12, 10) == pytest.approx(0.1)


@pytest.mark.parametrize("given", [{"warmup": -1}, {"end": 1.5}, {"stop": 2, "warmup": 2}, {"distance": -1}])
def test_what_no_run_can_follow_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match="Expected a schedule"):
        Schedule(**given)
