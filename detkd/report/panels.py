"""Pictures in rows, side by side what is drawn on each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from detkd.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from detkd.report.gallery import Gallery, Shown

WIDTH = 3.8  # inches of a column
LONGEST = 28  # characters of a picture's name


def gallery_panels(gallery: Gallery, path: Path) -> None:
    """Draw a gallery as PNG: its pictures in rows, in columns the views of each.

    Args:
        gallery: The pictures.
        path: The PNG.
    """
    pictures = gallery.pictures
    heights = [_proportion(shown) for shown in pictures]
    columns = max(len(shown.views) for shown in pictures)
    figure = Figure(figsize=(WIDTH * columns, WIDTH * sum(heights) + 0.35 * len(pictures) + 0.9), layout="constrained")
    if gallery.note:
        figure.suptitle(gallery.note)
    grid = figure.subplots(len(pictures), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, shown in zip(grid, pictures, strict=True):
        row[0].set_ylabel(shown.title if len(shown.title) <= LONGEST else f"{shown.title[: LONGEST - 1]}…", fontsize=9)
        for axes in row[len(shown.views) :]:
            axes.set_axis_off()
        for axes, (role, pixels) in zip(row, shown.views.items(), strict=False):
            caption = shown.captions.get(role)
            axes.imshow(pixels)
            axes.set_title(f"{role}: {caption}" if caption else role, fontsize=11)
            axes.set_xticks([])
            axes.set_yticks([])
    # With an edge, or white would be nothing on white.
    meanings = gallery.legend.items()
    handles = [Patch(facecolor=colour, edgecolor="black", linewidth=0.5, label=meaning) for meaning, colour in meanings]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 2 * columns), fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _proportion(shown: Shown) -> float:
    height, width, _ = next(iter(shown.views.values())).shape
    return float(height / width)
