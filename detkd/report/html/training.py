"""How a training went, as plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.report.html.lines import EPOCH, Curve, line_chart
from detkd.report.watched import WATCHED_METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

History = list[dict[str, float | None]]


def training_charts(
    history: History, weights: Sequence[Mapping[str, float]], task: str
) -> tuple[list[tuple[str, Markup]], list[tuple[str, Markup]]]:
    """Validation metric and every loss term over the epochs, and the weights of distillation terms; with their titles."""
    key, name = WATCHED_METRICS[task]
    first = [(f"validation {name}", _chart(history, key, name, "watched"))] if any(key in row for row in history) else []
    terms = [term for term in history[0] if term.startswith("train/")] if history else []
    losses = [(_short(term), _chart(history, term, _short(term), "student")) for term in terms]
    rows: History = [dict(row) for row in weights]
    names = list(dict.fromkeys(term for row in rows for term in row))
    return first + losses, [(f"weight of {term}", _chart(rows, term, f"weight of {term}", "series-1")) for term in names]


def validation_chart(histories: Mapping[str, tuple[str, list[History]]], task: str) -> tuple[str, Markup] | None:
    """The validation metric over the epochs, mean of the seeds of each recipe; None where there is none.

    Args:
        histories: Style and the history of each seed, by the name of the recipe.
        task: Of the runs.
    """
    key, name = WATCHED_METRICS[task]
    curves = [
        Curve(recipe, style, points)
        for recipe, (style, seeds) in histories.items()
        if (points := _mean([_points(history, key) for history in seeds]))
    ]
    if not curves:
        return None
    return f"validation {name}", line_chart(curves, label=f"validation {name} over epochs", x=EPOCH, y=name)


def _chart(history: History, key: str, name: str, style: str) -> Markup:
    return line_chart([Curve(name, style, _points(history, key))], label=f"{name} over epochs", x=EPOCH, y=name)


def _points(history: History, key: str) -> list[tuple[float, float]]:
    points = []
    for epoch, row in enumerate(history, start=1):
        value = row.get(key)
        if value is not None:
            points.append((float(epoch), value))
    return points


def _mean(seeds: Sequence[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Mean at the epochs that all seeds have."""
    tables = [dict(points) for points in seeds]
    common = [epoch for epoch in tables[0] if all(epoch in table for table in tables)] if tables else []
    return [(epoch, sum(table[epoch] for table in tables) / len(tables)) for epoch in common]


def _short(term: str) -> str:
    return term.removeprefix("train/")
