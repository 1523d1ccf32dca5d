"""Weights of the distillation terms over time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from detkd.errors import ArgumentError

DecayName = Literal["none", "linear", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """A factor from 0 to 1 by which a term's weight is multiplied, over the epochs of a run, and as the student learns.

    How the latter is measured: :class:`detkd.distances.Distances`.

    It rises linearly over the first `warmup` epochs, then stays at 1 or falls to `end` at the end of the run, and is 0
    from epoch `stop` on: a term that has stopped is not computed any more, and a teacher that no term needs does not run.

    Attributes:
        warmup: Epochs of the rise.
        decay: How the factor falls behind the rise: not at all, linearly, or by half a cosine.
        end: The factor that a decay arrives at.
        stop: Epoch (or fraction of one) from which on the factor is 0; None never stops.
        distance: Power to which the term's value, as a share of its value at the start, multiplies that factor, so that a
            term fades as the student nears the teacher; 0 looks at the epochs alone.
    """

    warmup: float = 0.0
    decay: DecayName = "none"
    end: float = 0.0
    stop: float | None = None
    distance: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no run can follow."""
        stops_early = self.stop is not None and self.stop <= self.warmup
        if self.warmup < 0 or not 0 <= self.end <= 1 or stops_early or self.distance < 0:
            raise ArgumentError(
                "Expected a schedule with warmup >= 0, 0 <= end <= 1, stop > warmup and distance >= 0, but got "
                f"warmup={self.warmup}, end={self.end}, stop={self.stop}, distance={self.distance}."
            )

    def factor(self, epoch: float, epochs: float) -> float:
        """Return the factor at a time, whatever the distance.

        Args:
            epoch: Epochs that have passed, with the fraction of the current one.
            epochs: Length of the run.
        """
        if self.stop is not None and epoch >= self.stop:
            return 0.0
        if epoch < self.warmup:
            return epoch / self.warmup
        if self.decay == "none":
            return 1.0
        passed = min((epoch - self.warmup) / max(epochs - self.warmup, 1e-9), 1.0)
        fall = passed if self.decay == "linear" else (1 - math.cos(math.pi * passed)) / 2
        return 1.0 + (self.end - 1.0) * fall
