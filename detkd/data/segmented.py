"""Pictures with masks, in one form for all formats."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from detkd.data.masks import DrawnMasks, InstanceMask, SemanticMask, Unlabelled, encode_mask
from detkd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from detkd.data.masks import PixelLabels

Masks = InstanceMask | SemanticMask | DrawnMasks | Unlabelled


@dataclass(frozen=True, eq=False)
class SegmentedImage:
    """A picture and where its masks are.

    Attributes:
        path: The file.
        width: Pixels across, as the picture is meant to be seen (EXIF orientation applied).
        height: Pixels down.
        classes: Class indices of its N objects, [N].
        crowd: What is left out of training, [N].
        masks: What its labels are decoded from.
    """

    path: Path
    width: int
    height: int
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    masks: Masks

    def decode(self) -> PixelLabels:
        """Read the labels, pixel by pixel.

        Raises:
            DataError: If they are missing, broken, or of another size than the picture.
        """
        labels = self.masks.decode()
        height, width = labels.classes.shape
        if (width, height) != (self.width, self.height):
            raise DataError(
                f"{self.path}: expected a mask of {self.width}x{self.height}, but it has {width}x{height} pixels."
            )
        return labels

    def void(self, labels: PixelLabels | None = None) -> npt.NDArray[np.bool_]:
        """Pixels that are no part of any object, whoever says so, [H, W]: those that a mask file ignores.

        A COCO crowd is not among them: COCO's metrics forgive what is found there, and count it in what reaches beyond.

        Args:
            labels: What was decoded; if None, it is decoded where there can be such pixels.
        """
        if isinstance(self.masks, DrawnMasks):
            return np.zeros((self.height, self.width), np.bool_)
        return (self.decode() if labels is None else labels).classes < 0

    def without_labels(self) -> SegmentedImage:
        """The picture, of which nothing is known."""
        nothing = np.zeros(0, np.int64)
        return replace(self, classes=nothing, crowd=nothing.astype(np.bool_), masks=Unlabelled(self.height, self.width))

    def picture_bytes(self) -> bytes:
        """The picture's file, to take a digest of."""
        return self.path.read_bytes()

    def label_bytes(self) -> bytes:
        """What is labelled, as bytes to take a digest of."""
        return self.masks.label_bytes()


def truth_of(images: Sequence[SegmentedImage], names: Sequence[str]) -> dict[str, Any]:
    """COCO ground truth with run lengths; all ids count from 1.

    Args:
        images: The pictures of a split.
        names: Class names in the order of their indices.
    """
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda image: _annotations(image.decode(), len(names)), images))
    rows = [{"image_id": index, **row} for index, own in enumerate(found, start=1) for row in own]
    return {
        "images": [
            {"id": index, "file_name": image.path.name, "width": image.width, "height": image.height}
            for index, image in enumerate(images, start=1)
        ],
        "annotations": [{"id": index, **row} for index, row in enumerate(rows, start=1)],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names, start=1)],
    }


def _annotations(labels: PixelLabels, count: int) -> list[dict[str, Any]]:
    """COCO's annotations of one picture: its objects, and for each of `count` classes what is ignored."""
    rows = []
    for number, place in enumerate(ndimage.find_objects(labels.instances), start=1):
        if place is not None:  # no pixel of it is seen
            mask = np.zeros(labels.instances.shape, np.bool_)
            mask[place] = labels.instances[place] == number
            rows.append(_annotation(mask, int(labels.labels[number - 1]), crowd=False))
    ignored = labels.classes < 0
    return rows + [_annotation(ignored, label, crowd=True) for label in range(count) if ignored.any()]


def _annotation(mask: npt.NDArray[np.bool_], label: int, *, crowd: bool) -> dict[str, Any]:
    rows, columns = ndimage.find_objects(mask.astype(np.uint8))[0]
    return {
        "category_id": label + 1,
        "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
        "area": int(mask.sum()),
        "iscrowd": int(crowd),
        "segmentation": encode_mask(mask),
    }
