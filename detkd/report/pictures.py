"""Detections side by side with the ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from detkd.data.pictures import read_picture
from detkd.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")


def detection_panels(
    images: Sequence[Path],
    columns: Mapping[str, Sequence[dict[str, Any]]],
    ground_truth: dict[str, Any],
    path: Path,
    score_threshold: float = 0.25,
) -> None:
    """Draw pictures in rows, and in columns the boxes of ground truth and of each model, as PNG.

    Args:
        images: The pictures; each is found in the ground truth by its name.
        columns: Title to COCO annotations or results (``image_id``, ``category_id``, ``bbox`` and, of models, ``score``).
        ground_truth: COCO ground truth with the ids of images and categories.
        path: The PNG.
        score_threshold: Detections below it are left out; the picture says so.
    """
    ids = {image["file_name"].rsplit("/", 1)[-1]: image["id"] for image in ground_truth["images"]}
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    colours = {key: COLOURS[index % len(COLOURS)] for index, key in enumerate(names)}
    figure = Figure(figsize=(4.6 * len(columns), 3.6 * len(images) + 0.8), layout="constrained")
    figure.suptitle(f"detections with a score of at least {score_threshold:g}")
    for row, file in enumerate(images):
        pixels = read_picture(file)
        for column, (title, boxes) in enumerate(columns.items()):
            axes = figure.add_subplot(len(images), len(columns), row * len(columns) + column + 1)
            axes.imshow(pixels)
            axes.set_axis_off()
            shown = [box for box in boxes if box["image_id"] == ids[file.name] and box.get("score", 1.0) >= score_threshold]
            axes.set_title(f"{title}: {len(shown)} boxes", fontsize=10)
            for box in shown:
                x, y, width, height = box["bbox"]
                colour = colours[box["category_id"]]
                axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.4))
                if "score" in box:
                    axes.text(
                        x + 2,
                        y + 2,
                        f"{box['score']:.2f}",
                        color="white",
                        fontsize=6,
                        va="top",
                        bbox={"facecolor": "#000000a0", "edgecolor": "none", "pad": 0.6},
                    )
    handles = [Patch(edgecolor=colours[key], facecolor="none", label=name) for key, name in names.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
