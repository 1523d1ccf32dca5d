"""What is drawn on pictures, and what is kept of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from detkd.report.attention import draw_attention
from detkd.report.gallery import COLOURS, MOST, Attention, Gallery, Shown, fitted, read_index, write_gallery
from detkd.report.panels import gallery_panels
from detkd.report.pictures import draw_boxes, draw_detections

if TYPE_CHECKING:
    from pathlib import Path

ORIENTATION = 0x0112


def test_a_turned_picture_is_drawn_upright_as_its_boxes_are_meant(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a quarter turn clockwise, when it is shown
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=exif)
    truth = {
        "images": [{"id": 1, "file_name": "turned.jpg", "width": 20, "height": 40}],
        "categories": [{"id": 1, "name": "disc"}],
    }
    sure = {"image_id": 1, "category_id": 1, "bbox": [2.0, 20.0, 10.0, 15.0], "score": 0.25}
    found = {"ground truth": [], "student": [sure, {**sure, "score": 0.24}, {**sure, "image_id": 2}]}
    gallery = draw_detections([tmp_path / "turned.jpg"], found, truth)
    (shown,) = gallery.pictures
    assert shown.captions == {"ground truth": "0 boxes", "student": "1 box"}
    assert shown.views["student"].shape == (640, 320, 3)
    assert gallery.legend == {"disc": COLOURS[0]}
    gallery_panels(gallery, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 800


def test_a_box_is_outlined_in_the_colour_of_its_class_where_it_is() -> None:
    box = {"category_id": 7, "bbox": [10, 20, 40, 30]}
    drawn = draw_boxes(np.zeros((100, 100, 3), np.uint8), [box], {7: "#E69F00"})
    assert drawn.shape == (640, 640, 3)
    painted = (drawn == np.round(np.array(to_rgb("#E69F00")) * 255)).all(2)
    rows, columns = painted.nonzero()
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (64, 128, 320, 320)
    assert not painted[200, 200]


def test_pictures_keep_their_proportions_when_they_are_fitted() -> None:
    assert fitted(np.zeros((3000, 1500, 3), np.uint8)).shape == (MOST, MOST // 2, 3)
    assert fitted(np.zeros((700, 800, 3), np.uint8)).shape == (700, 800, 3)


def test_attention_is_bright_where_the_features_are_active() -> None:
    activity = np.zeros((4, 8), np.float32)
    activity[3, 0] = 9
    drawn = draw_attention(np.zeros((50, 100, 3), np.uint8), activity)
    assert drawn.shape == (200, 400, 3)
    assert drawn[-1, 0].sum() > 300 > drawn[0, -1].sum()
    assert draw_attention(np.zeros((5, 5, 3), np.uint8), np.ones((2, 2), np.float32)).max() < 10  # alike everywhere


def test_a_gallery_is_kept_whole(tmp_path: Path) -> None:
    views = {"student": np.full((40, 40, 3), 200, np.uint8)}
    shown = Shown("a<b", views, {"student": "1 box"}, (Attention("stride 8", views),))
    write_gallery(Gallery((shown,), {"disc": "#E69F00"}, "note"), tmp_path)
    index = read_index(tmp_path)
    assert index is not None
    (entry,) = index["pictures"]
    assert (index["legend"], index["note"], entry["title"]) == ({"disc": "#E69F00"}, "note", "a<b")
    for name in (entry["views"]["student"], entry["attention"][0]["views"]["student"]):
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert picture.size == (40, 40)
            assert abs(picture.convert("RGB").getpixel((20, 20))[0] - 200) < 4
    assert read_index(tmp_path / "elsewhere") is None
