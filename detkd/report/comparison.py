"""The table of a comparison, for the terminal and as Markdown."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping


LESS_IS_BETTER = ("NLL", "ECE")


def headings(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Headings of the table: the task's first metric by seed, and what was gained in each."""
    first = report["metrics"][0]
    gained = [f"{told_as(metric)} (95 %)" for metric in _gained(report)]
    return ("recipe", f"{first} by seed", f"mean {first}", *gained, "gap closed", "s/epoch", "MiB")


def comparison_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of text for the teacher and for each recipe, under :func:`headings`."""
    first, gained = report["metrics"][0], _gained(report)
    rows: list[tuple[str, ...]] = []
    if report["teacher"] is not None:
        rows.append(("teacher", "", f"{report['teacher'][first]:.3f}", *("" for _ in gained), "", "", ""))
    for name, recipe in report["recipes"].items():
        gap = recipe.get("gap_closed")
        rows.append(
            (
                name,
                " ".join(f"{value:.3f}" for value in recipe[first]),
                f"{statistics.mean(recipe[first]):.3f}",
                *(_difference(recipe, metric) for metric in gained),
                "" if gap is None else f"{gap:.0%}",
                f"{recipe['seconds_per_epoch']:.1f}",
                f"{recipe['peak_memory_mib']:.0f}",
            )
        )
    return rows


def comparison_markdown(report: Mapping[str, Any]) -> str:
    """The table as Markdown, with what it means."""
    lines = [
        f"Metrics on {report['split']}, seeds {', '.join(map(str, report['seeds']))}; gained over "
        f"`{report['baseline']}` with the same seed, mean and 95 % interval (paired t).",
        "",
        "| " + " | ".join(headings(report)) + " |",
        "|" + "---|" * len(headings(report)),
        *("| " + " | ".join(row) + " |" for row in comparison_rows(report)),
    ]
    return "\n".join(lines) + "\n"


def comparison_table(report: Mapping[str, Any]) -> Table:
    """The table for the terminal."""
    table = Table(title=f"Metrics on {report['split']}; gained over {report['baseline']} with the same seed")
    for heading in headings(report):
        table.add_column(heading, justify="left" if heading == "recipe" else "right")
    for row in comparison_rows(report):
        table.add_row(*row)
    return table


def _difference(recipe: Mapping[str, Any], metric: str) -> str:
    difference = recipe.get("difference", {}).get(metric)
    if difference is None:
        return ""
    if difference["low"] is None:
        return f"{difference['mean']:+.3f} (one pair)"
    return f"{difference['mean']:+.3f} ({difference['low']:+.3f} … {difference['high']:+.3f})"


def told_as(metric: str) -> str:
    """What a difference of a metric is called."""
    return f"{metric} gained, less is better" if metric in LESS_IS_BETTER else f"{metric} gained"


def _gained(report: Mapping[str, Any]) -> list[str]:
    """The metrics whose gains are shown: AP75 adds little to AP and AP50."""
    return [metric for metric in report["metrics"] if metric != "AP75"]
