from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from detkd.data.masks import PixelLabels
from detkd.report.gallery import COLOURS, Gallery, Shown, write_gallery
from detkd.report.overlays import CONFUSED, EXTRA, IGNORED, MISSED, OverlayRow, draw_overlays
from detkd.report.panels import gallery_panels


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


def test_views_show_objects_and_where_student_and_labels_differ(row: OverlayRow) -> None:
    gallery = draw_overlays([row, row._replace(teacher=row.truth)], ("disc", "ring"))
    # 16 pixels of the second class are called the first, 8 are missed, 8 too many, of 127 that are known.
    own = {"labels": "2 objects", "student": "2 objects", "student ≠ labels": "25.2% of pixels"}
    assert [shown.captions for shown in gallery.pictures] == [own, own | {"teacher": "2 objects"}]
    assert list(gallery.pictures[1].views) == ["image", "labels", "teacher", "student", "student ≠ labels"]
    views = gallery.pictures[0].views
    assert len({view.shape for view in views.values()}) == 1
    truth, difference = views["labels"], views["student ≠ labels"]
    times = truth.shape[0] // 8
    assert truth.shape == (8 * times, 16 * times, 3)
    outline, middle = truth[2 * times, 4 * times - 1], truth[2 * times, 2 * times]
    assert (outline != middle).any()
    assert (truth[2 * times, 2 * times] != truth[6 * times, 10 * times]).any()  # another class
    assert (truth[0, -1] == 200).all()
    for (y, x), colour in {(1, 1): MISSED, (1, 5): EXTRA, (5, 9): CONFUSED, (7, 15): IGNORED}.items():
        assert np.allclose(difference[y * times, x * times] / 255, to_rgb(colour), atol=1 / 255)
    assert (difference[times, 3 * times] == 100).all()


def test_no_colour_of_the_legend_means_two_things(row: OverlayRow) -> None:
    names = [f"class {index}" for index in range(len(COLOURS))]
    legend = draw_overlays([row], names).legend
    assert len(set(legend.values())) == len(legend) == len(names) + 4


def test_pictures_without_objects_and_of_unlike_sizes(row: OverlayRow, tmp_path: Path) -> None:
    nothing = labels(np.zeros((30, 10), int))
    empty = OverlayRow("b.png", np.zeros((30, 10, 3), np.uint8), nothing, nothing, nothing)
    gallery_panels(draw_overlays([row, empty]), tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 1500


def test_large_pictures_are_drawn_as_large_as_they_are_kept(tmp_path: Path) -> None:
    classes = np.zeros((64, 16_500), int)
    classes[16:48, 4000:9000] = 1
    large = OverlayRow("slide", np.full((64, 16_500, 3), 200, np.uint8), labels(classes), labels(classes))
    gallery = draw_overlays([large])
    (shown,) = gallery.pictures
    assert {max(view.shape) for view in shown.views.values()} <= set(range(960, 1025))
    assert shown.captions["student"] == "1 object"
    write_gallery(Gallery((Shown("whole", {"image": large.pixels}),)), tmp_path)
    with Image.open(next((tmp_path / "pictures").glob("*.webp"))) as picture:
        assert max(picture.size) == 1024
