"""Curves of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from detkd.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

COLUMNS = 4


def plot_training(history: Sequence[dict[str, float]], path: Path, title: str, watched: str) -> None:
    """Draw every loss term and the validation metric over the epochs, one small panel each, as PNG.

    Args:
        history: One row an epoch, as in results.json: ``train/NAME`` for losses.
        path: The PNG.
        title: Headline of the picture.
        watched: Key of the validation metric.
    """
    terms = [key for key in history[0] if key.startswith("train/")]
    panels = [*terms, *([watched] if any(watched in row for row in history) else [])]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(3.2 * COLUMNS, 2.4 * rows), layout="constrained")
    figure.suptitle(title)
    for index, key in enumerate(panels):
        axes = figure.add_subplot(rows, COLUMNS, index + 1)
        points = [(epoch, row[key]) for epoch, row in enumerate(history, start=1) if key in row]
        axes.plot(*zip(*points, strict=True), color="#009E73" if key == watched else "#0072B2")
        axes.set_title(f"validation {_short(key)}" if key == watched else key.removeprefix("train/"), fontsize=10)
        axes.set_xlabel("epoch", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _short(metric: str) -> str:
    """A metric's name without where ultralytics files it: AP for its mAP50-95(B)."""
    return "AP" if "mAP50-95" in metric else metric.removeprefix("metrics/")
