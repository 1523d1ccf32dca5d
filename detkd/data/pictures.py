"""Picture files as everybody sees them: turned as their EXIF orientation says, in RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from detkd.errors import DataError, one_line

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    import numpy.typing as npt

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
# What is read, whatever a file is called: Pillow would hand PostScript to a program that runs it.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_DEEP = ("I", "F")  # modes of Pillow that it would clip at 255
_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap width and height
# ImportError: once imported, ultralytics makes Pillow look for a HEIF plugin where a file is no picture.
BROKEN = (OSError, SyntaxError, ValueError, ImportError, Image.DecompressionBombError)


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Decode a picture, [H, W, 3].

    Raises:
        DataError: If the file is no whole picture.
    """
    return decode_picture(path, str(path))


def decode_picture(file: Path | BinaryIO, name: str) -> npt.NDArray[np.uint8]:
    """Decode a picture, [H, W, 3].

    Args:
        file: Where it is.
        name: What it is called in an error.

    Raises:
        DataError: If the file is no whole picture.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.mode.startswith(_DEEP):
                raise DataError(
                    f"{name}: expected 8 bits a channel, but it has more ({image.mode}). Convert it first: how its range "
                    "becomes 8 bits decides what is seen."
                )
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except BROKEN as error:
        raise DataError(f"{name}: expected a readable image, but: {_reason(error)}.") from error


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from the head of its file alone.

    Raises:
        DataError: If the file is no picture.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            # Of a TIFF Pillow has swapped them already.
            lying = image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _LYING
    except BROKEN as error:
        raise DataError(f"{path}: expected a readable image, but: {_reason(error)}.") from error
    return (height, width) if lying else (width, height)


def _reason(error: Exception) -> str:
    return f"it is no {', '.join(FORMATS)}" if isinstance(error, ImportError | UnidentifiedImageError) else one_line(error)
