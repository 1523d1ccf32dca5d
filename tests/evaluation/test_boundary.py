from __future__ import annotations

import numpy as np
import pytest

from detkd.evaluation.boundary import boundary_f1


def row(*spans: tuple[int, int], label: int = 1) -> np.ndarray:
    """One row of 20 pixels; a span's outline is its two ends, since there is nothing above and below it."""
    found = np.zeros((1, 20), np.int64)
    for start, stop in spans:
        found[0, start:stop] = label
    return found


def test_hand_worked_values() -> None:
    truth = row((4, 10))  # outline at 4 and 9
    assert boundary_f1(truth, truth, 1).tolist() == [1]
    # 4 and 9 are met, 14 and 16 are too many: P = 1/2, R = 1.
    assert boundary_f1(row((4, 10), (14, 17)), truth, 1)[0] == pytest.approx(2 / 3)
    # Of 7 and 15 the first is 2 from 9, and of 4 and 9 the second is met: P = R = 1/2.
    assert boundary_f1(row((7, 16)), truth, 1)[0] == pytest.approx(1 / 2)
    assert boundary_f1(row((7, 16)), truth, 1, tolerance=1)[0] == 0


def test_an_outline_along_the_pictures_edge_is_none() -> None:
    truth = row((0, 6))  # ends at 5 alone
    assert boundary_f1(row((0, 6)), truth, 1).tolist() == [1]
    assert np.isnan(boundary_f1(row((0, 20)), row((0, 20)), 1)[0])


def test_what_is_ignored_has_no_outline() -> None:
    truth = row((4, 10))
    truth[0, 12:] = -1
    assert boundary_f1(row((4, 10), (14, 17)), truth, 1).tolist() == [1]
    cut = row((4, 10))
    cut[0, 8:] = -1  # the object's own end too
    assert boundary_f1(row((4, 16)), cut, 1).tolist() == [1]
    known = row((4, 6))
    known[0, 12:] = -1
    # Found up to where nothing is known, it does not end there: of 4 and 5 the first is met, P = 1, R = 1/2.
    assert boundary_f1(row((4, 16)), known, 1, tolerance=0)[0] == pytest.approx(2 / 3)


def test_classes_that_occur_one_way_only_or_not_at_all() -> None:
    scores = boundary_f1(row((4, 10)), row((4, 10), label=2), 3)
    assert scores[:2].tolist() == [0, 0]
    assert np.isnan(scores[2])


def test_distance_is_euclidean() -> None:
    truth, found = np.zeros((12, 12), int), np.zeros((12, 12), int)
    truth[3, 3], found[5, 5] = 1, 1  # 2.83 pixels apart
    assert boundary_f1(found, truth, 1, tolerance=2).tolist() == [0]
    assert boundary_f1(found, truth, 1, tolerance=3).tolist() == [1]
