"""The weights that the terms had while a student trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class WeightLog:
    """Mean of the terms' weights over each epoch, without reading the device in between.

    Attributes:
        epochs: One mapping an epoch, from the term's name to its mean weight.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def add(self, weights: Mapping[str, Tensor]) -> None:
        """Count one step."""
        self._sums = {name: self._sums.get(name, 0.0) + weight.detach() for name, weight in weights.items()}
        self._steps += 1

    def close_epoch(self) -> None:
        """End an epoch."""
        self.epochs.append({name: float(total) / self._steps for name, total in self._sums.items()})
        self._sums, self._steps = {}, 0
