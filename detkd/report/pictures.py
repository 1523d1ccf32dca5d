"""Detections drawn on pictures, beside the ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from detkd.data.pictures import read_picture
from detkd.report.gallery import COLOURS, Gallery, Shown, fitted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from detkd.report.gallery import Pixels

LINES, LETTERS = 240, 46  # a line and a letter are such parts of the picture's longer side


def draw_detections(
    images: Sequence[Path],
    columns: Mapping[str, Sequence[dict[str, Any]]],
    ground_truth: dict[str, Any],
    score_threshold: float = 0.25,
) -> Gallery:
    """Draw on each picture the boxes of the ground truth and of each model.

    Args:
        images: The pictures; each is found in the ground truth by its name.
        columns: Title to COCO annotations or results (``image_id``, ``category_id``, ``bbox`` and, of models, ``score``).
        ground_truth: COCO ground truth with the ids of images and categories.
        score_threshold: Detections below it are left out; the gallery says so.
    """
    ids = {image["file_name"].rsplit("/", 1)[-1]: image["id"] for image in ground_truth["images"]}
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    colours = {key: COLOURS[index % len(COLOURS)] for index, key in enumerate(names)}
    pictures = []
    for file in images:
        pixels, views, captions = read_picture(file), {}, {}
        for title, boxes in columns.items():
            shown = [box for box in boxes if box["image_id"] == ids[file.name] and box.get("score", 1.0) >= score_threshold]
            views[title] = draw_boxes(pixels, shown, colours)
            captions[title] = f"{len(shown)} box{'' if len(shown) == 1 else 'es'}"
        pictures.append(Shown(file.stem, views, captions))
    legend = {name: colours[key] for key, name in names.items()}
    return Gallery(tuple(pictures), legend, f"detections with a score of at least {score_threshold:g}")


def draw_boxes(pixels: Pixels, boxes: Sequence[Mapping[str, Any]], colours: Mapping[Any, str]) -> Pixels:
    """A picture with boxes, and scores where they have any, enlarged until both can be read; [H, W, 3].

    Args:
        pixels: RGB of 8 bits.
        boxes: COCO annotations or results, in the picture's pixels.
        colours: Of each category, by its id.
    """
    large = fitted(pixels)
    times, longer = large.shape[1] / pixels.shape[1], max(large.shape)
    line = max(2, round(longer / LINES))
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), round(longer / LETTERS))
    image = Image.fromarray(large)
    pen = ImageDraw.Draw(image, "RGBA")
    for box in boxes:
        x, y, width, height = (value * times for value in box["bbox"])
        pen.rectangle((x, y, x + max(width, 1), y + max(height, 1)), outline=colours[box["category_id"]], width=line)
    for box in boxes:  # above all lines
        if "score" in box:
            place = (box["bbox"][0] * times + line + 2, box["bbox"][1] * times + line + 1)
            text = f"{box['score']:.2f}"
            pen.rectangle(pen.textbbox(place, text, font=font), fill="#000000a0")
            pen.text(place, text, fill="white", font=font)
    return np.asarray(image)
