"""Values in rows as SVG: AP of classes and of seeds, differences with their intervals; and tables as colours."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup

from detkd.report.html.svg import LETTER, Scale, element, scale_for, text, ticked, told_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, ROW = 360, 24
LEFT, RIGHT, TOP, BOTTOM = 124, 14, 8, 38
WIDEST = WIDTH / 2  # that names of rows may take
ROOM = 12  # pixels beside a name
SIZE = 4.5  # pixels from the middle of a mark to its rim
CELL = 46
HALF = 0.55  # share of the full colour from which letters on it are light


@dataclass(frozen=True)
class Mark:
    """A value in a row.

    Attributes:
        value: The value.
        style: Its class in the style sheet, which gives the colour; ``teacher`` and ``student`` have shapes of their own.
        words: What it says when the pointer rests on it.
        interval: Ends of a line through it.
        bar: Whether it is a stroke across the row, as a mean among its values is.
    """

    value: float
    style: str
    words: str
    interval: tuple[float, float] | None = None
    bar: bool = False


@dataclass(frozen=True)
class Row:
    """A row of values.

    Attributes:
        name: What they are of.
        marks: The values; those that are not finite are left out.
    """

    name: str
    marks: list[Mark] = field(default_factory=list)


def row_chart(
    rows: Sequence[Row],
    *,
    label: str,
    x: str,
    references: Sequence[tuple[float, str, str]] = (),
    x_range: tuple[float, float] | None = None,
) -> Markup:
    """Draw rows of values above one axis.

    Args:
        rows: The rows, from the top.
        label: What the plot shows, for those who do not see it.
        x: What runs to the right, with its unit.
        references: Upright lines through all rows: value, style, and what it says.
        x_range: Ends of the axis; those of all values if None.
    """
    kept = [Row(row.name, [mark for mark in row.marks if math.isfinite(mark.value)]) for row in rows]
    values = [value for row in kept for mark in row.marks for value in (mark.value, *(mark.interval or ()))]
    values += [value for value, _, _ in references]
    left = min(max(LEFT, LETTER * max((len(row.name) for row in kept), default=0) + ROOM), WIDEST)
    labels = told_apart((row.name for row in kept), left - ROOM)
    ends = left, WIDTH - RIGHT
    across = scale_for(values, *ends) if x_range is None else Scale(*x_range, *ends)
    bottom = TOP + ROW * len(kept)
    parts = []
    for value in across.ticks(4):
        parts.append(element("line", x1=across(value), y1=TOP, x2=across(value), y2=bottom, class_="grid"))
        parts.append(text(ticked(value), across(value), bottom + 16))
    for value, style, words in references:
        line = element("line", x1=across(value), y1=TOP, x2=across(value), y2=bottom, class_=f"mark reference {style}")
        parts.append(element("g", element("title", words), line))
    parts += [_row(row, labels[row.name], across, TOP + ROW * (index + 0.5)) for index, row in enumerate(kept)]
    parts.append(element("line", x1=left, y1=bottom, x2=WIDTH - RIGHT, y2=bottom, class_="axis"))
    # Below the axis, unless it is too long for that.
    middle = max(WIDTH / 2, min((left + WIDTH - RIGHT) / 2, WIDTH - LETTER * len(x) / 2))
    parts.append(text(x, middle, bottom + BOTTOM - 6, class_="name"))
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {bottom + BOTTOM}", role="img", aria_label=label, class_="plot")


def heat_map(table: Sequence[Sequence[float]], *, label: str, x: str, y: str) -> Markup:
    """Draw a table of values from 0 to 1 as colours.

    Args:
        table: Rows of columns.
        label: What the plot shows.
        x: What the columns are.
        y: What the rows are.
    """
    left, top = 46, 8
    parts = []
    for row, values in enumerate(table):
        parts.append(text(str(row + 1), left - 8, top + CELL * (row + 0.5) + 4, "end"))
        for column, value in enumerate(values):
            place = left + CELL * column, top + CELL * row
            shade = min(max(value, 0.0), 1.0)
            tone = "light" if value > HALF else "tick"
            parts.append(
                element(
                    "g",
                    element("title", f"{y} {row + 1}, {x} {column + 1}: {value:.3f}"),
                    element(
                        "rect",
                        x=place[0] + 1,
                        y=place[1] + 1,
                        width=CELL - 2,
                        height=CELL - 2,
                        fill_opacity=f"{0.06 + 0.94 * shade:.2f}",
                        class_="mark heat",
                    ),
                    text(f"{value:.2f}", place[0] + CELL / 2, place[1] + CELL / 2 + 4, class_=tone),
                )
            )
    columns, bottom = max(map(len, table)), top + CELL * len(table)
    parts += [text(str(column + 1), left + CELL * (column + 0.5), bottom + 14) for column in range(columns)]
    middle = (top + bottom) / 2
    parts.append(text(x, left + CELL * columns / 2, bottom + 32, class_="name"))
    parts.append(text(y, 11, middle, class_="name", transform=f"rotate(-90 11 {middle:.1f})"))
    width = max(left + CELL * columns + 8, 200)
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {width} {bottom + 40}",
        width=width,
        role="img",
        aria_label=label,
        class_="plot own-size",
    )


def _row(row: Row, label: str, across: Scale, y: float) -> Markup:
    name = element("g", element("title", row.name), text(label, across.start - 10, y + 4, "end", "label"))
    line = element("line", x1=across.start, y1=y, x2=across.end, y2=y, class_="grid")
    return Markup("").join((line, name, *(_mark(mark, across, y) for mark in row.marks)))


def _mark(mark: Mark, across: Scale, y: float) -> Markup:
    x = across(mark.value)
    parts = [element("title", mark.words)]
    if mark.interval is not None and all(map(math.isfinite, mark.interval)):
        low, high = map(across, mark.interval)
        parts.append(element("line", x1=low, y1=y, x2=high, y2=y, class_=f"span {mark.style}"))
        parts += [element("line", x1=end, y1=y - 4, x2=end, y2=y + 4, class_=f"span {mark.style}") for end in (low, high)]
    if mark.bar:
        parts.append(element("line", x1=x, y1=y - 8, x2=x, y2=y + 8, class_=f"mark mean {mark.style}"))
    elif mark.style == "teacher":
        rim = f"{x:.1f},{y - 6:.1f} {x + 6:.1f},{y:.1f} {x:.1f},{y + 6:.1f} {x - 6:.1f},{y:.1f}"
        parts.append(element("polygon", points=rim, class_="mark dot teacher"))
    elif mark.style == "baseline":
        parts.append(element("rect", x=x - 4, y=y - 4, width=8, height=8, class_="mark dot baseline"))
    else:
        parts.append(element("circle", cx=x, cy=y, r=SIZE, class_=f"mark dot {mark.style}"))
    return element("g", *parts)
