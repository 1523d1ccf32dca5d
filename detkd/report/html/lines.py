"""Curves as SVG: precision over recall, losses over epochs, accuracy over confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from detkd.report.html.svg import Scale, element, scale_for, text, ticked

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 38
EPOCH = "epoch"  # an axis of whole numbers
SPOTS = 60  # of a curve at most say their value when the pointer rests on them

Range = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A curve.

    Attributes:
        name: What it is of.
        style: Its class in the style sheet, which gives colour and dashes.
        points: x and y.
    """

    name: str
    style: str
    points: list[tuple[float, float]]


def line_chart(
    curves: Sequence[Curve],
    *,
    label: str,
    x: str,
    y: str,
    x_range: Range | None = None,
    y_range: Range | None = None,
) -> Markup:
    """Draw curves over common axes.

    Args:
        curves: The curves; points that are not finite are left out.
        label: What the plot shows, for those who do not see it.
        x: What runs to the right, with its unit.
        y: What runs upwards.
        x_range: Ends of the axis; those of the points if None.
        y_range: The same upwards, from 0 if None.
    """
    known = [
        Curve(curve.name, curve.style, [point for point in curve.points if all(map(math.isfinite, point))])
        for curve in curves
    ]
    points = [point for curve in known for point in curve.points]
    across = _scale(x_range, [value for value, _ in points], LEFT, WIDTH - RIGHT, margin=0.0)
    upwards = _scale(y_range, [value for _, value in points], HEIGHT - BOTTOM, TOP, margin=0.06)
    return element(
        "svg",
        axes(across, upwards, x, y),
        *(_curve(curve, across, upwards) for curve in known if curve.points),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label,
        class_="plot",
    )


def reliability_chart(edges: Sequence[float], accuracy: Sequence[float], counts: Sequence[int], *, label: str) -> Markup:
    """Draw how often a classifier is right in each bin of confidence, against the diagonal of a calibrated one.

    Args:
        edges: Bounds of the bins, [K + 1].
        accuracy: Share that is right in each bin, [K].
        counts: Samples in each bin, [K]; empty ones are not drawn.
        label: What the plot shows.
    """
    across, upwards = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, HEIGHT - BOTTOM, TOP)
    bars = [
        element(
            "rect",
            element("title", f"confidence {low:.2f} to {high:.2f}: {value:.1%} of {count} right"),
            x=across(low) + 0.5,
            y=upwards(value),
            width=across(high) - across(low) - 1,
            height=upwards(0) - upwards(value),
            class_="mark bar",
        )
        for low, high, value, count in zip(edges, edges[1:], accuracy, counts, strict=False)
        if count
    ]
    diagonal = element("line", x1=across(0), y1=upwards(0), x2=across(1), y2=upwards(1), class_="reference")
    return element(
        "svg",
        axes(across, upwards, "confidence", "accuracy"),
        *bars,
        diagonal,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label,
        class_="plot",
    )


def axes(across: Scale, upwards: Scale, x: str, y: str) -> Markup:
    """Grid, ticks and the names of both axes."""
    parts = []
    for value in upwards.ticks(4):
        at = upwards(value)
        parts.append(element("line", x1=across.start, y1=at, x2=across.end, y2=at, class_="grid"))
        parts.append(text(ticked(value), across.start - 6, at + 3.5, "end"))
    floor = upwards.start
    for value in across.ticks(5, whole=x == EPOCH):
        at = across(value)
        parts.append(element("line", x1=at, y1=floor, x2=at, y2=floor + 4, class_="axis"))
        parts.append(text(ticked(value), at, floor + 16))
    middle = (upwards.start + upwards.end) / 2
    parts += [
        element("line", x1=across.start, y1=floor, x2=across.end, y2=floor, class_="axis"),
        text(x, (across.start + across.end) / 2, HEIGHT - 5, class_="name"),
        text(y, 10, middle, class_="name", transform=f"rotate(-90 10 {middle:.1f})"),
    ]
    return Markup("").join(parts)


def _scale(ends: Range | None, values: Sequence[float], start: float, end: float, *, margin: float) -> Scale:
    if ends is not None:
        return Scale(*ends, start, end)
    if margin:
        return scale_for(values, start, end, zero=True, margin=margin)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return Scale(low, high if high > low else low + 1, start, end)


def _curve(curve: Curve, across: Scale, upwards: Scale) -> Markup:
    places = [(across(x), upwards(y)) for x, y in curve.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn = (
        element("polyline", points=path, class_=f"mark line {curve.style}")
        if len(places) > 1
        else element("circle", cx=places[0][0], cy=places[0][1], r=3, class_=f"mark dot {curve.style}")
    )
    step = -(-len(places) // SPOTS)
    spots = [
        element("circle", element("title", f"{curve.name}: {y:.4g} at {x:.4g}"), cx=px, cy=py, r=6, class_="spot")
        for (x, y), (px, py) in list(zip(curve.points, places, strict=True))[::step]
    ]
    return Markup("").join((drawn, *spots))
