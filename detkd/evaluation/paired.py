"""What a method gained, judged by pairs of runs that differ in nothing but the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from detkd.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class PairedDifference:
    """Mean of paired differences, with its confidence interval.

    Attributes:
        mean: Mean difference.
        low: Lower end of the interval; None for fewer than two pairs, which say nothing about spread.
        high: Upper end.
        pairs: Number of pairs.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int


def paired_difference(values: Sequence[float], baseline: Sequence[float], *, confidence: float = 0.95) -> PairedDifference:
    """Mean of ``values - baseline`` with the interval of Student's t for paired samples.

    Args:
        values: Results of the method, one a seed.
        baseline: Results without it, for the same seeds in the same order.
        confidence: Coverage of the interval, between 0 and 1.

    Raises:
        ArgumentError: If the lengths differ or are 0.

    Source:
        Student: The Probable Error of a Mean, Biometrika 6, 1908.
    """
    if len(values) != len(baseline) or not values:
        raise ArgumentError(
            f"Expected argument `baseline` to pair with `values`, but got {len(baseline)} and {len(values)} results."
        )
    differences = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    mean, count = float(differences.mean()), len(differences)
    if count == 1:
        return PairedDifference(mean, None, None, 1)
    error = float(differences.std(ddof=1)) / count**0.5
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * error
    return PairedDifference(mean, mean - half, mean + half, count)
