"""Elements of SVG, and the frame of a plot: scales, ticks, axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LETTER = 6.8  # pixels of a letter's mean width, at the size in which rows are named


def element(name: str, *children: str, **attributes: object) -> Markup:
    """An element of SVG with all that comes from outside escaped.

    Args:
        name: Of the element.
        children: Elements, which stay as they are, or text, which is escaped.
        attributes: ``class_`` is written ``class``, ``stroke_width`` ``stroke-width``; floats to a tenth of a pixel.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value)) for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, Markup("").join(map(escape, children)))


def text(words: str, x: float, y: float, anchor: str = "middle", class_: str = "tick", **attributes: object) -> Markup:
    """Words in a plot."""
    return element("text", words, x=x, y=y, text_anchor=anchor, class_=class_, **attributes)


@dataclass(frozen=True)
class Scale:
    """A linear scale from values to pixels.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Pixel.
        end: Pixel.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 5, *, whole: bool = False) -> list[float]:
        """Round values, about as many as asked for; whole numbers if wanted."""
        step = _round_step((self.high - self.low) / count)
        step = max(round(step), 1) if whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def scale_for(values: Iterable[float], start: float, end: float, *, zero: bool = False, margin: float = 0.06) -> Scale:
    """A scale that holds all values, with some room on both sides.

    Args:
        values: What is to be shown.
        start: Pixel of the lowest.
        end: Pixel of the highest.
        zero: Whether it begins at 0.
        margin: Share of the range that is left free on a side.
    """
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    if zero:
        low = min(low, 0.0)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return Scale(low if zero and low == 0 else low - room, high + room, start, end)


def ticked(value: float) -> str:
    """A value at an axis: as short as it can be."""
    return f"{value:.6g}" if abs(value) < 1e-9 or abs(value) >= 1e-3 else f"{value:.0e}"


def told_apart(names: Iterable[str], pixels: float) -> dict[str, str]:
    """Labels that fit into some pixels, no two of them alike.

    Args:
        names: What is labelled. A long one is cut in its middle, as names of a grid begin alike and end in values;
            elsewhere where another name has the same ends, or a number would be parted.
        pixels: Width of a label.

    Returns:
        The label of each name.
    """
    every = list(dict.fromkeys(names))
    most = max(4, int(pixels / LETTER))
    return {name: name if len(name) <= most else _cut(name, place, every, most) for place, name in enumerate(every)}


def _cut(name: str, place: int, every: Sequence[str], most: int) -> str:
    """A name without as much of it as makes it of `most` letters; see :func:`told_apart`."""
    others = [other for other in every if other != name]
    cuts = [(start, len(name) - most + 1 + start) for start in range(most)]
    for start, end in sorted(cuts, key=lambda cut: (any(_is_in_number(name, at) for at in cut), abs(cut[0] - most // 2))):
        head, tail = name[:start], name[end:]
        if not any(other.startswith(head) and other.endswith(tail) for other in others):
            return f"{head}…{tail}"
    number = f"…#{place + 1}"
    return name[: most - len(number)] + number


def _is_in_number(name: str, at: int) -> bool:
    pair = name[max(at - 1, 0) : at + 1]
    return len(pair) == 2 and all(letter.isdigit() or letter == "." for letter in pair)


def _round_step(step: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next(times * power for times in (1, 2, 2.5, 5, 10) if times * power >= step * 0.999) if step > 0 else 1.0


def _plain(value: object) -> object:
    return f"{value:.1f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
