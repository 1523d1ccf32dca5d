"""Labels pixel by pixel: what mask files and COCO's segments decode to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from detkd.data.pictures import BROKEN, FORMATS
from detkd.errors import DataError, one_line
from detkd.types import NOT_LEARNT, UNLABELLED

if TYPE_CHECKING:
    from pathlib import Path

    from detkd.data.annotations import AnnotatedImage, Segment

IGNORED = 255  # in semantic PNGs, as Pascal VOC and Cityscapes have it
MOST_INSTANCES = 32_767  # that a mask of 16 bits with a sign can number, which is what OpenCV warps
FINE = 4  # parts of a pixel's side that outlines are found in, and may miss a mask's edge by one of
_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # of Pillow, with one number a pixel


class PixelLabels(NamedTuple):
    """What a picture of H × W pixels shows, and where.

    Attributes:
        classes: 0 for the background, 1 + the index of the class, -1 where nothing is to be learnt, -2 where there is no
            label, [H, W].
        instances: 0 outside of objects, else the object's number from 1, [H, W].
        labels: Class index of each of the N objects, [N]; one that others cover has no pixel.
    """

    classes: npt.NDArray[np.int16]
    instances: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class InstanceMask:
    """A PNG of 8 or 16 bits, in which each object of the only class has a number of its own, and the background 0."""

    path: Path

    def decode(self) -> PixelLabels:
        """Read the labels.

        Raises:
            DataError: If the file is missing, broken, or no instance map.
        """
        mask = read_mask(self.path)
        values, numbers = _values(mask)
        instances = numbers.astype(np.int32) + int(values[0] != 0)
        count = int(np.count_nonzero(values))
        if count > MOST_INSTANCES:
            raise DataError(f"{self.path}: expected at most {MOST_INSTANCES} objects, but got {count}.")
        return PixelLabels((instances > 0).astype(np.int16), instances, np.zeros(count, np.int64))

    def label_bytes(self) -> bytes:
        """What is labelled, as bytes to take a digest of."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class SemanticMask:
    """A PNG of class indices: 0 is the background, 255 where it says nothing; objects are what hangs together.

    Attributes:
        path: The file.
        count: Number of classes without the background.
    """

    path: Path
    count: int

    def decode(self) -> PixelLabels:
        """Read the labels.

        Raises:
            DataError: If the file is missing, broken, or has an index of no class.
        """
        values = read_mask(self.path)
        known = values != IGNORED
        wrong = np.setdiff1d(_values(values)[0], (*range(self.count + 1), IGNORED))
        if wrong.size:
            raise DataError(
                f"{self.path}: expected indices from 0 (background) to {self.count}, or {IGNORED} for ignored pixels, "
                f"but got {wrong[0]}."
            )
        instances = np.zeros(values.shape, np.int32)
        labels: list[int] = []
        for label in range(self.count):
            found, count = components(values == label + 1)
            instances += np.where(found > 0, found + len(labels), 0)
            labels += [label] * count
        classes = np.where(known, values, NOT_LEARNT).astype(np.int16)
        return PixelLabels(classes, instances, np.array(labels, np.int64))

    def label_bytes(self) -> bytes:
        """What is labelled, as bytes to take a digest of."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class DrawnMasks:
    """Objects with a segment each, as COCO writes them; where several lie, the smallest is seen. Crowds are ignored."""

    image: AnnotatedImage

    def decode(self) -> PixelLabels:
        """Draw the labels.

        Raises:
            DataError: If an object has no mask.
        """
        image = self.image
        if None in image.segments:
            raise DataError(f"{image.path}: expected a mask for each object, but one has only a box.")
        packed = [compress_segment(segment, image.height, image.width) for segment in image.segments if segment is not None]
        classes = np.zeros((image.height, image.width), np.int16)
        instances = np.zeros(classes.shape, np.int32)
        for index in np.flatnonzero(image.crowd):
            classes[coco_mask.decode(packed[index]) > 0] = NOT_LEARNT
        own, labels = np.flatnonzero(~image.crowd), image.classes[~image.crowd]
        # One by one: thousands of objects, each a picture, are gigabytes, and pycocotools counts a list in 8 bits.
        areas = [int(coco_mask.area(packed[index])) for index in own]
        for number in np.argsort([-area for area in areas], kind="stable").tolist():
            pixels = coco_mask.decode(packed[own[number]]) > 0
            classes[pixels], instances[pixels] = labels[number] + 1, number + 1
        return PixelLabels(classes, instances, labels)

    def label_bytes(self) -> bytes:
        """What is labelled, as bytes to take a digest of."""
        return self.image.classes.tobytes() + self.image.crowd.tobytes() + repr(self.image.segments).encode()


@dataclass(frozen=True)
class Unlabelled:
    """A picture without labels, of which a teacher may speak."""

    height: int
    width: int

    def decode(self) -> PixelLabels:
        """Nowhere a label."""
        classes = np.full((self.height, self.width), UNLABELLED, np.int16)
        return PixelLabels(classes, np.zeros(classes.shape, np.int32), np.zeros(0, np.int64))

    def label_bytes(self) -> bytes:
        """What is labelled, as bytes to take a digest of."""
        return b""


def read_mask(path: Path) -> npt.NDArray[np.int64]:
    """Decode a mask, [H, W], without any change of its numbers.

    Raises:
        DataError: If the file is missing, broken, or has more than one number a pixel.
    """
    if not path.is_file():
        raise DataError(f"Expected a mask at {path}, but there is none.")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode not in _MODES:
                raise DataError(f"{path}: expected a mask with one number a pixel, but it is {image.mode}.")
            return np.asarray(image).astype(np.int64)
    except BROKEN as error:
        raise DataError(f"{path}: expected a readable mask, but: {one_line(error)}.") from error


def _values(mask: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The different numbers in a mask, sorted, and the place of each pixel's among them, [H, W]."""
    if mask.min() >= 0 and mask.max() < 2**16:
        # Counted: to sort a mask of 256 x 256 takes longer than all else that is done to such a picture.
        present = np.bincount(mask.ravel()) > 0
        return np.flatnonzero(present), (np.cumsum(present) - 1)[mask]
    values, places = np.unique(mask, return_inverse=True)
    return values, places.reshape(mask.shape)


def components(mask: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], int]:
    """What hangs together in a mask [H, W], over corners too: numbers from 1, and how many they are."""
    found, count = ndimage.label(mask, structure=np.ones((3, 3), bool), output=np.int32)
    return found, int(count)


def encode_mask(mask: npt.NDArray[Any]) -> dict[str, Any]:
    """COCO's run lengths of a mask [H, W], as JSON takes them."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def decode_segment(segment: Segment, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The mask [H, W] of polygons or run lengths."""
    decoded: npt.NDArray[np.uint8] = coco_mask.decode(compress_segment(segment, height, width))
    return decoded


def compress_segment(segment: Segment, height: int, width: int) -> dict[str, Any]:
    """The packed run lengths of polygons or run lengths, the only form that COCO's results have."""
    runs: Any = segment
    if isinstance(segment, list):
        runs = coco_mask.merge(coco_mask.frPyObjects(segment, height, width))
    elif isinstance(segment["counts"], list):
        runs = coco_mask.frPyObjects(segment, height, width)
    packed: dict[str, Any] = runs
    return packed


def disc(radius: int) -> npt.NDArray[np.uint8]:
    """1 where a pixel is at most `radius` pixels from the middle one, [2 · radius + 1, 2 · radius + 1]."""
    x = np.arange(-radius, radius + 1)
    return (x**2 + x[:, None] ** 2 <= radius**2).astype(np.uint8)


def find_outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Corners of one polygon around what a mask [H, W] shows, x and y in pixels, [K, 2].

    Pieces and the edges of holes are joined by lines without width, as a YOLO label is one polygon: where it is even how
    often the polygon goes around a point, the point is outside.

    Args:
        mask: With a pixel at least.
    """
    import cv2

    fine = mask.astype(np.uint8).repeat(FINE, 0).repeat(FINE, 1)  # OpenCV's corners are middles of pixels, not their edges
    contours, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outline, *others = ((cv2.approxPolyDP(contour, 1, True)[:, 0] + 0.5) / FINE for contour in contours)
    for piece in others:
        distances = np.square(outline[:, None] - piece).sum(-1)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        loop = np.roll(piece, -int(there), 0)
        outline = np.concatenate((outline[: here + 1], loop, loop[:1], outline[here:]))
    return np.asarray(outline)


def find_boundary(labels: npt.NDArray[Any], known: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """Pixels with another label within `radius` pixels, on both sides of where two labels meet, [H, W].

    Where an object is cut by the picture's edge, or by pixels that are not known, it does not end.

    Args:
        labels: Numbers of objects below 32,767, 0 between them, [H, W].
        known: Whether a pixel's label is known, [H, W].
        radius: Pixels.
    """
    import cv2

    low, high = np.where(known, labels, np.iinfo(np.int16).max), np.where(known, labels, -1)
    shape = disc(radius)
    smallest, largest = cv2.erode(low.astype(np.int16), shape), cv2.dilate(high.astype(np.int16), shape)
    return np.asarray((smallest != largest) & known)
