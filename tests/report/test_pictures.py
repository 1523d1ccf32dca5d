"""What the side-by-side pictures show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from detkd.report.pictures import detection_panels

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ORIENTATION = 0x0112


def test_a_turned_picture_is_drawn_upright_as_its_boxes_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a quarter turn clockwise, when it is shown
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=exif)
    truth = {
        "images": [{"id": 1, "file_name": "turned.jpg", "width": 20, "height": 40}],
        "categories": [{"id": 1, "name": "disc"}],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": [2.0, 20.0, 10.0, 15.0]}]
    shown: list[tuple[int, ...]] = []
    draw = Axes.imshow
    monkeypatch.setattr(Axes, "imshow", lambda self, pixels: (shown.append(np.shape(pixels)), draw(self, pixels))[1])
    detection_panels([tmp_path / "turned.jpg"], {"ground truth": found}, truth, tmp_path / "out.png")
    assert shown == [(40, 20, 3)]
    assert (tmp_path / "out.png").is_file()
