"""What a training run leaves behind, whichever engine ran it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class TrainingResult:
    """What a training run leaves behind.

    Attributes:
        checkpoint: The best student on the validation split, alone.
        seconds: Wall-clock time of all epochs, validation after each included, also of those before a resumption.
        history: One row an epoch: ``train/NAME`` for losses, ``metrics/mAP50-95(B)``, ``time``.
        weights: Mean weight of every distillation term in each epoch.
    """

    checkpoint: Path
    seconds: float
    history: list[dict[str, float]]
    weights: list[dict[str, float]]
