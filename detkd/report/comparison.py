"""The table of a comparison, for the terminal and as Markdown."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from rich.table import Table

from detkd.report.console import print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADINGS = ("recipe", "AP by seed", "mean AP", "AP gained (95 %)", "AP50 gained (95 %)", "gap closed", "s/epoch", "MiB")


def comparison_rows(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of text for the teacher and for each recipe, under ``HEADINGS``."""
    rows: list[tuple[str, ...]] = []
    if report["teacher"] is not None:
        rows.append(("teacher", "", f"{report['teacher']['AP']:.3f}", "", "", "", "", ""))
    for name, recipe in report["recipes"].items():
        gap = recipe.get("gap_closed")
        rows.append(
            (
                name,
                " ".join(f"{value:.3f}" for value in recipe["AP"]),
                f"{statistics.mean(recipe['AP']):.3f}",
                _difference(recipe, "AP"),
                _difference(recipe, "AP50"),
                "" if gap is None else f"{gap:.0%}",
                f"{recipe['seconds_per_epoch']:.1f}",
                f"{recipe['peak_memory_mib']:.0f}",
            )
        )
    return rows


def comparison_markdown(report: Mapping[str, Any]) -> str:
    """The table as Markdown, with what it means."""
    lines = [
        f"COCO metrics on {report['split']}, seeds {', '.join(map(str, report['seeds']))}; gained over "
        f"`{report['baseline']}` with the same seed, mean and 95 % interval (paired t).",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * len(HEADINGS),
        *("| " + " | ".join(row) + " |" for row in comparison_rows(report)),
    ]
    return "\n".join(lines) + "\n"


def print_comparison(report: Mapping[str, Any]) -> None:
    """Print the table."""
    table = Table(title=f"COCO metrics on {report['split']}; gained over {report['baseline']} with the same seed")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "recipe" else "right")
    for row in comparison_rows(report):
        table.add_row(*row)
    print_table(table)


def _difference(recipe: Mapping[str, Any], metric: str) -> str:
    difference = recipe.get("difference", {}).get(metric)
    if difference is None:
        return ""
    if difference["low"] is None:
        return f"{difference['mean']:+.3f} (one pair)"
    return f"{difference['mean']:+.3f} ({difference['low']:+.3f} … {difference['high']:+.3f})"
