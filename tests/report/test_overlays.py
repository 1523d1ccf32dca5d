from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from PIL import Image

from detkd.data.masks import PixelLabels
from detkd.report.overlays import CONFUSED, EXTRA, IGNORED, MISSED, OverlayRow, overlay_panels


def labels(classes: np.ndarray) -> PixelLabels:
    """One object of each class that occurs."""
    found = np.unique(classes[classes > 0])
    instances = np.zeros(classes.shape, np.int32)
    for number, label in enumerate(found, start=1):
        instances[classes == label] = number
    return PixelLabels(classes.astype(np.int16), instances, found.astype(np.int64) - 1)


@pytest.fixture
def row() -> OverlayRow:
    truth, student = np.zeros((8, 16), int), np.zeros((8, 16), int)
    truth[0:4, 0:4], truth[4:8, 8:12], truth[7, 15] = 1, 2, -1
    student[0:4, 2:6], student[4:8, 8:12], student[7, 15] = 1, 1, 2
    return OverlayRow("a.png", np.full((8, 16, 3), 200, np.uint8), labels(truth), labels(student))


def test_panels_show_objects_and_where_student_and_labels_differ(
    row: OverlayRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[np.ndarray] = []
    titles: list[str] = []
    draw, name = Axes.imshow, Axes.set_title
    monkeypatch.setattr(Axes, "imshow", lambda self, pixels: (shown.append(np.asarray(pixels)), draw(self, pixels))[1])
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **how: (titles.append(text), name(self, text, **how))[1])
    overlay_panels([row, row._replace(teacher=row.truth)], tmp_path / "out.png", ("disc", "ring"))
    # 16 pixels of the second class are called the first, 8 are missed, 8 too many, of 127 that are known.
    own = ["a.png", "labels: 2 objects", "student: 2 objects", "student ≠ labels: 25.2% of pixels"]
    assert titles == [*own, *own[:2], "teacher: 2 objects", *own[2:]]
    image, truth, _, difference = shown[:4]
    assert image.shape == (8, 16, 3)
    times = truth.shape[0] // 8
    assert truth.shape == (8 * times, 16 * times, 3)
    outline, middle = truth[2 * times, 4 * times - 1], truth[2 * times, 2 * times]
    assert not np.allclose(outline, middle)
    assert not np.allclose(truth[2 * times, 2 * times], truth[6 * times, 10 * times])  # another class
    assert np.allclose(truth[0, -1], 200 / 255)
    for (y, x), colour in {(1, 1): MISSED, (1, 5): EXTRA, (5, 9): CONFUSED, (7, 15): IGNORED}.items():
        assert np.allclose(difference[y, x], to_rgb(colour))
    assert np.allclose(difference[1, 3], 100 / 255)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 1500


def test_pictures_without_objects_and_of_unlike_sizes(row: OverlayRow, tmp_path: Path) -> None:
    nothing = labels(np.zeros((30, 10), int))
    empty = OverlayRow("b.png", np.zeros((30, 10, 3), np.uint8), nothing, nothing, nothing)
    overlay_panels([row, empty], tmp_path / "out.png")
    assert (tmp_path / "out.png").is_file()
