"""Paired differences against values worked by hand."""

from __future__ import annotations

import pytest

from detkd.errors import ArgumentError
from detkd.evaluation.paired import paired_difference


def test_the_interval_is_students_t() -> None:
    # Differences 1, 2, 3: mean 2, standard error 1/sqrt(3); t with 2 degrees of freedom reaches 4.3027 at 97.5 %.
    found = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (found.mean, found.pairs) == (2.0, 3)
    assert found.low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4)
    assert found.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)


def test_what_all_seeds_share_cancels() -> None:
    found = paired_difference([0.1, 0.9, 0.5], [0.0, 0.8, 0.4])
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)


def test_one_pair_has_no_interval() -> None:
    found = paired_difference([0.5], [0.25])
    assert (found.mean, found.low, found.high) == (0.25, None, None)


@pytest.mark.parametrize(("values", "baseline"), [([], []), ([1.0], [1.0, 2.0])])
def test_results_that_do_not_pair_are_refused(values: list[float], baseline: list[float]) -> None:
    with pytest.raises(ArgumentError, match="to pair with `values`"):
        paired_difference(values, baseline)
