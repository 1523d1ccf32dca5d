"""What a comparison found over the values of one key, or of two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from detkd.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BLUE, GREY = "#0072B2", "#999999"


def grid_plot(report: Mapping[str, Any], path: Path) -> None:
    """Draw what each value gained over the baseline, as PNG: a line with 95 % intervals, or a table of two keys.

    Args:
        report: What comparison.json holds, with a ``grid`` of one axis or two.
        path: The PNG.
    """
    metric, axes = report["metrics"][0], report["grid"]
    count = 1
    for axis in axes:
        count *= len(axis["values"])
    # The cells stand behind the recipes that were named beside them, in the order of their values.
    gains = [recipe["difference"][metric] for recipe in list(report["recipes"].values())[-count:]]
    columns = len(axes[-1]["values"])
    figure = Figure(
        figsize=(2.4 + 1.1 * columns, 3.4 if len(axes) == 1 else 2.2 + 0.7 * (count // columns)), layout="constrained"
    )
    if len(axes) == 1:
        _draw_line(figure, gains, axes[0]["values"])
    else:
        _draw_table(figure, [gains[start : start + columns] for start in range(0, count, columns)], axes)
    (drawn,) = figure.axes[:1]
    drawn.set_xlabel(axes[-1]["key"], fontsize=8)
    drawn.set_title(f"{metric} gained over {report['baseline']} on {report['split']}", fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _draw_line(figure: Figure, gains: Sequence[Mapping[str, Any]], values: Sequence[str]) -> None:
    """The mean of each value, with its interval where several seeds give one."""
    axes = figure.add_subplot()
    places = range(len(values))
    means = [gain["mean"] for gain in gains]
    axes.axhline(0, color=GREY, linestyle="--", linewidth=1)
    axes.plot(places, means, color=BLUE, marker="o")
    for place, gain in zip(places, gains, strict=True):
        if gain["low"] is not None:
            axes.plot([place, place], [gain["low"], gain["high"]], color=BLUE, linewidth=2, alpha=0.5)
    axes.set_xticks(places, list(values))
    axes.grid(alpha=0.3)


def _draw_table(figure: Figure, rows: Sequence[Sequence[Mapping[str, Any]]], keys: Sequence[Mapping[str, Any]]) -> None:
    """The mean of each pair of values as a colour, and in words with its interval."""
    axes = figure.add_subplot()
    means = [[gain["mean"] for gain in row] for row in rows]
    most = max(abs(mean) for row in means for mean in row) or 1.0
    axes.imshow(means, vmin=-most, vmax=most, cmap="RdBu", aspect="auto")
    for row, gains in enumerate(rows):
        for column, gain in enumerate(gains):
            interval = "" if gain["low"] is None else f"\n{gain['low']:+.3f} … {gain['high']:+.3f}"
            colour = "white" if abs(gain["mean"]) > 0.6 * most else "black"
            text = f"{gain['mean']:+.3f}{interval}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(keys[1]["values"])), list(keys[1]["values"]))
    axes.set_yticks(range(len(keys[0]["values"])), list(keys[0]["values"]))
    axes.set_ylabel(keys[0]["key"], fontsize=8)
