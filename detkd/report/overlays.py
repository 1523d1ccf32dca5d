"""Segmentations side by side with the labels, and where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from detkd.files import replacing
from detkd.report.pictures import COLOURS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from detkd.data.masks import PixelLabels

    Value = TypeVar("Value", bound=np.generic)
    Pixels = npt.NDArray[np.float64]

MISSED, EXTRA, CONFUSED, IGNORED = COLOURS[4], COLOURS[1], COLOURS[3], "#808080"
MEANINGS = {"missed": MISSED, "not in the labels": EXTRA, "another class": CONFUSED, "ignored": IGNORED}
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


def overlay_panels(rows: Sequence[OverlayRow], path: Path, names: Sequence[str] = ()) -> None:
    """Draw pictures in rows: the picture, its labels, teacher, student, and where student and labels differ; as PNG.

    Each object is outlined. Where there are several classes its colour is its class's, else one of its own.

    Args:
        rows: The pictures.
        path: The PNG.
        names: Class names, for the legend; of one class the colours mean nothing.
    """
    teacher = any(row.teacher is not None for row in rows)
    columns = ("image", "labels", *(["teacher"] if teacher else []), "student", "student ≠ labels")
    figure = Figure(figsize=(3.2 * len(columns), 3.2 * sum(map(_proportion, rows)) + 0.9), layout="constrained")
    grid = figure.subplots(
        len(rows), len(columns), squeeze=False, gridspec_kw={"height_ratios": [_proportion(row) for row in rows]}
    )
    for axes_of_row, row in zip(grid, rows, strict=True):
        shown = {"labels": row.truth, "teacher": row.teacher, "student": row.student}
        for axes, column in zip(axes_of_row, columns, strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            labels = shown.get(column)
            if column == "image":
                axes.imshow(row.pixels)
                axes.set_title(row.title if len(row.title) <= 28 else f"{row.title[:27]}…", fontsize=11)
            elif column == "student ≠ labels":
                picture, share = _disagreement(row)
                axes.imshow(picture)
                axes.set_title(f"{column}: {share:.1%} of pixels", fontsize=11)
            elif labels is not None:
                axes.imshow(_overlay(row.pixels, labels, by_class=len(names) > 1))
                count = len(np.unique(labels.instances[labels.instances > 0]))
                axes.set_title(f"{column}: {count} object{'' if count == 1 else 's'}", fontsize=11)
    meanings = MEANINGS
    if len(names) > 1:
        meanings = {**{name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}, **MEANINGS}
    handles = [Patch(facecolor=colour, label=meaning) for meaning, colour in meanings.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * len(columns)), fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _proportion(row: OverlayRow) -> float:
    height, width, _ = row.pixels.shape
    return float(height / width)


def _overlay(pixels: npt.NDArray[np.uint8], labels: PixelLabels, *, by_class: bool) -> Pixels:
    """A picture with coloured and outlined objects, enlarged until the outlines are thin."""
    times = max(1, round(SHARP / max(pixels.shape[:2])))
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
