"""Pictures with what is said of them drawn in, one by one: what grids of panels and the HTML report are laid out from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from detkd.files import replacing, write_json
from detkd.report.records import Pictures, read_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2")
FOLDER, INDEX = "pictures", "index.json"  # in the folder of a run
QUALITY = 85
LEAST, MOST = 640, 1024  # pixels of a drawn picture's longer side


@dataclass(frozen=True)
class Attention:
    """Where models are active on a level of their features.

    Attributes:
        level: Which one, in words.
        views: The picture with the activity laid over it, of each model by its role; RGB of 8 bits, [H, W, 3].
    """

    level: str
    views: dict[str, Pixels]


@dataclass(frozen=True)
class Shown:
    """A picture and what is said of it.

    Attributes:
        title: Its name.
        views: Drawn by each role, all of one shape; RGB of 8 bits, [H, W, 3].
        captions: What there is to say of a view, by its role.
        attention: Where models look.
    """

    title: str
    views: dict[str, Pixels]
    captions: dict[str, str] = field(default_factory=dict)
    attention: tuple[Attention, ...] = ()


@dataclass(frozen=True)
class Gallery:
    """Pictures, and what their colours mean.

    Attributes:
        pictures: The pictures.
        legend: Meaning to colour, ``#RRGGBB``.
        note: What holds of all of them.
    """

    pictures: tuple[Shown, ...]
    legend: dict[str, str] = field(default_factory=dict)
    note: str = ""


def write_gallery(gallery: Gallery, folder: Path) -> None:
    """Keep a gallery in the folder of a run, as WebP files beside an index that is written last."""
    entries = []
    for number, shown in enumerate(gallery.pictures):
        attention = [
            {"level": one.level, "views": _write(one.views, folder, f"{number}-attention-{level}")}
            for level, one in enumerate(shown.attention)
        ]
        entries.append(
            {
                "title": shown.title,
                "views": _write(shown.views, folder, str(number)),
                "captions": shown.captions,
                "attention": attention,
            }
        )
    write_json(folder / FOLDER / INDEX, {"note": gallery.note, "legend": gallery.legend, "pictures": entries})


def read_index(folder: Path) -> dict[str, Any] | None:
    """The index of the gallery of a run, whose views name files beside it; None where a run has none.

    Raises:
        DataError: If the file is broken or of something else.
    """
    path = folder / FOLDER / INDEX
    return read_record(path, Pictures, "Delete it; the report then has no pictures.") if path.is_file() else None


def fitted(pixels: Pixels) -> Pixels:
    """A picture of 640 to 1024 pixels on its longer side, on which thin lines and small letters can be read."""
    height, width, _ = pixels.shape
    longer = max(height, width)
    if LEAST <= longer <= MOST:
        return pixels
    times = min(max(longer, LEAST), MOST) / longer
    size = max(1, round(width * times)), max(1, round(height * times))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _write(views: Mapping[str, Pixels], folder: Path, stem: str) -> dict[str, str]:
    names = {}
    for number, (role, pixels) in enumerate(views.items()):
        names[role] = f"{stem}-{number}.webp"
        with replacing(folder / FOLDER / names[role]) as temporary:
            kept = fitted(pixels) if max(pixels.shape) > MOST else pixels  # a WebP has 16,383 pixels a side at most
            Image.fromarray(kept).save(temporary, "WEBP", quality=QUALITY)
    return names
