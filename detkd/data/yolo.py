"""YOLO labels: one text file a picture, a line an object."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from detkd.data.annotations import AnnotatedImage, AnnotatedObject
from detkd.data.description import beside_images
from detkd.data.pictures import read_size
from detkd.errors import DataError, one_line, shorten

if TYPE_CHECKING:
    from pathlib import Path

BOX_COLUMNS = 5
TOLERANCE = 1e-3  # labels are written with few digits


def label_path(image: Path) -> Path:
    """Where ultralytics looks for an image's labels: the last ``images`` folder becomes ``labels``."""
    return (beside_images(image.parent, "labels") / image.name).with_suffix(".txt")


def read_image(image: Path, classes: int) -> AnnotatedImage:
    """Read the labels of a picture.

    Args:
        image: The picture.
        classes: Number of classes.

    Raises:
        DataError: If the picture or a label is broken.
    """
    width, height = read_size(image)
    rows = read_labels(label_path(image), classes)
    return AnnotatedImage.of(image, width, height, [_object(label, values, width, height) for label, values in rows])


def read_labels(path: Path, classes: int) -> list[tuple[int, list[float]]]:
    """Read YOLO labels: class and normalised centre box, or class and polygon; none where the file is missing.

    Raises:
        DataError: At the first line that is not one of these, with its number.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path}: expected a file of labels, but: {one_line(error)}.") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError as error:
            raise DataError(f"{where}: expected numbers, but got {shorten(line.strip())}.") from error
        polygon = len(values) >= BOX_COLUMNS + 1 and len(values) % 2 == 0
        if len(values) != BOX_COLUMNS - 1 and not polygon:
            raise DataError(f"{where}: expected class x y width height, or a polygon, but got {len(values) + 1} numbers.")
        if not label.is_integer() or not 0 <= label < classes:
            raise DataError(f"{where}: expected a class from 0 to {classes - 1}, but got {label:g}.")
        if not all(math.isfinite(v) and -TOLERANCE <= v <= 1 + TOLERANCE for v in values):
            raise DataError(
                f"{where}: expected coordinates from 0 to 1 (divided by the image's size), but got {shorten(values)}."
            )
        rows.append((int(label), values))
    return rows


def _object(label: int, values: list[float], width: int, height: int) -> AnnotatedObject:
    if len(values) == BOX_COLUMNS - 1:
        x, y, w, h = values
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        return AnnotatedObject(label, box)
    xs, ys = [x * width for x in values[0::2]], [y * height for y in values[1::2]]
    polygon = [value for point in zip(xs, ys, strict=True) for value in point]
    return AnnotatedObject(label, (min(xs), min(ys), max(xs), max(ys)), [polygon])
