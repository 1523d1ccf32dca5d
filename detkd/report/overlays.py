"""Segmentations side by side with the labels, and where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from matplotlib.colors import hsv_to_rgb, to_rgb
from PIL import Image

from detkd.report.gallery import COLOURS, MOST, Gallery, Shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from detkd.data.masks import PixelLabels

    Value = TypeVar("Value", bound=np.generic)
    Pixels = npt.NDArray[np.float64]

# None of them is a class's colour; they differ in brightness too, for who tells few colours apart.
MISSED, EXTRA, CONFUSED, IGNORED = "#FFFFFF", "#FF00FF", "#00FFFF", "#808080"
MEANINGS = {"missed": MISSED, "not in the labels": EXTRA, "another class": CONFUSED, "ignored": IGNORED}
DIFFERENCE = "student ≠ labels"
SHARP = 480  # pixels of a panel's side from which outlines are thin lines
FILL = 0.4  # of a colour over the picture
GOLDEN = 0.618034  # steps around the colour circle by which neighbours in number differ most


class OverlayRow(NamedTuple):
    """One picture and what is said of it.

    Attributes:
        title: Its name.
        pixels: RGB of 8 bits, [H, W, 3].
        truth: Its labels.
        student: What the student says, see :func:`detkd.evaluation.segmentation.as_labels`.
        teacher: What the teacher says; None where there is none to show.
    """

    title: str
    pixels: npt.NDArray[np.uint8]
    truth: PixelLabels
    student: PixelLabels
    teacher: PixelLabels | None = None


def draw_overlays(rows: Sequence[OverlayRow], names: Sequence[str] = ()) -> Gallery:
    """Draw the picture, its labels, teacher, student, and where student and labels differ.

    Each object is outlined. Where there are several classes its colour is its class's, else one of its own.

    Args:
        rows: The pictures.
        names: Class names, for the legend; of one class the colours mean nothing.
    """
    meanings = MEANINGS
    if len(names) > 1:
        meanings = {**{name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}, **MEANINGS}
    return Gallery(tuple(_draw(_reduced(row), by_class=len(names) > 1) for row in rows), meanings)


def _draw(row: OverlayRow, *, by_class: bool) -> Shown:
    times = max(1, round(SHARP / max(row.pixels.shape[:2])))
    views, captions = {"image": _enlarged(row.pixels, times)}, {}
    for role, labels in {"labels": row.truth, "teacher": row.teacher, "student": row.student}.items():
        if labels is not None:
            count = len(np.unique(labels.instances[labels.instances > 0]))
            views[role] = _bytes(_overlay(row.pixels, labels, times, by_class=by_class))
            captions[role] = f"{count} object{'' if count == 1 else 's'}"
    picture, share = _disagreement(row)
    views[DIFFERENCE], captions[DIFFERENCE] = _bytes(_enlarged(picture, times)), f"{share:.1%} of pixels"
    return Shown(row.title, views, captions)


def _reduced(row: OverlayRow) -> OverlayRow:
    """A picture no larger than it is kept: of a whole slide, all that follows would be gigabytes."""
    step = -(-max(row.pixels.shape[:2]) // MOST)
    if step == 1:
        return row
    return row._replace(
        pixels=np.asarray(Image.fromarray(row.pixels).reduce(step)),
        truth=_every(row.truth, step),
        student=_every(row.student, step),
        teacher=None if row.teacher is None else _every(row.teacher, step),
    )


def _every(labels: PixelLabels, step: int) -> PixelLabels:
    return labels._replace(classes=labels.classes[::step, ::step], instances=labels.instances[::step, ::step])


def _bytes(picture: Pixels) -> npt.NDArray[np.uint8]:
    return np.asarray((picture * 255).round(), np.uint8)


def _overlay(pixels: npt.NDArray[np.uint8], labels: PixelLabels, times: int, *, by_class: bool) -> Pixels:
    """A picture with coloured and outlined objects, so many times enlarged that the outlines are thin."""
    numbers, picture = _enlarged(labels.instances, times), _enlarged(pixels / 255, times)
    own = labels.labels if by_class else np.arange(len(labels.labels))
    colours = np.array([to_rgb(COLOURS[i % len(COLOURS)]) if by_class else _colour(i) for i in own.tolist()]).reshape(-1, 3)
    colours = np.concatenate((np.zeros((1, 3)), colours))[numbers]
    inside, edge = numbers > 0, _edges(numbers)
    picture[inside] = (1 - FILL) * picture[inside] + FILL * colours[inside]
    picture[edge] = colours[edge]
    ignored = _enlarged(labels.classes, times) < 0
    picture[ignored] = (1 - FILL) * picture[ignored] + FILL * np.array(to_rgb(IGNORED))
    return picture


def _colour(number: int) -> npt.NDArray[np.float64]:
    return np.asarray(hsv_to_rgb((number * GOLDEN % 1.0, 0.85, 1.0)))


def _edges(numbers: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Pixels of objects beside which another label is."""
    padded = np.pad(numbers, 1, mode="edge")
    shifted = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(np.any([numbers != other for other in shifted], axis=0) & (numbers > 0))


def _enlarged(pixels: npt.NDArray[Value], times: int) -> npt.NDArray[Value]:
    return pixels.repeat(times, 0).repeat(times, 1)


def _disagreement(row: OverlayRow) -> tuple[Pixels, float]:
    """The dimmed picture with the pixels whose class differs coloured by how, and their share of what is known."""
    grey = np.repeat(row.pixels.mean(-1, keepdims=True) / 255, 3, -1) * 0.5
    truth, student = row.truth.classes, row.student.classes
    known = truth >= 0
    differs = known & (truth != student)
    for where, colour in (
        (differs & (student == 0), MISSED),
        (differs & (truth == 0), EXTRA),
        (differs & (truth > 0) & (student > 0), CONFUSED),
        (~known, IGNORED),
    ):
        grey[where] = to_rgb(colour)
    return grey, float(differs.sum() / max(known.sum(), 1))
