"""What the pictures of a data set show, in one form for all formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FARTHEST = 1e6  # no coordinate in pixels lies beyond it; pycocotools draws polygons in 32-bit integers, and unchecked

# As COCO writes a mask: polygons [x1, y1, x2, y2, …], or run lengths {"size": [H, W], "counts": …}.
Segment = list[list[float]] | dict[str, Any]


class AnnotatedObject(NamedTuple):
    """One labelled object.

    Attributes:
        label: Index of its class.
        box: x1, y1, x2, y2 in the picture's pixels.
        segment: Its mask, where there is one.
        crowd: Whether it is left out of training and counts neither way in evaluation: a COCO crowd, a difficult object of
            Pascal VOC.
    """

    label: int
    box: tuple[float, float, float, float]
    segment: Segment | None = None
    crowd: bool = False


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """A picture and its N objects.

    Attributes:
        path: The file.
        width: Pixels across, as the picture is meant to be seen (EXIF orientation applied).
        height: Pixels down.
        boxes: x1, y1, x2, y2 in the picture's pixels, clipped to it, [N, 4].
        classes: Indices of their classes, [N].
        crowd: What is left out of training, [N], see :class:`AnnotatedObject`.
        segments: Their masks, N, None where an object has none.
    """

    path: Path
    width: int
    height: int
    boxes: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    segments: tuple[Segment | None, ...]

    @classmethod
    def of(cls, path: Path, width: int, height: int, objects: Iterable[AnnotatedObject]) -> AnnotatedImage:
        """Gather objects; what has no pixel inside the picture is left out, as COCO's own files have such boxes."""
        rows = [(item, clip_box(item.box, width, height)) for item in objects]
        rows = [(item, box) for item, box in rows if box[2] > box[0] and box[3] > box[1]]
        return cls(
            path=path,
            width=width,
            height=height,
            boxes=np.array([box for _, box in rows], dtype=np.float64).reshape(-1, 4),
            classes=np.array([item.label for item, _ in rows], dtype=np.int64),
            crowd=np.array([item.crowd for item, _ in rows], dtype=np.bool_),
            segments=tuple(item.segment for item, _ in rows),
        )

    def picture_bytes(self) -> bytes:
        """The picture's file, to take a digest of."""
        return self.path.read_bytes()

    def label_bytes(self) -> bytes:
        """What is labelled, as bytes to take a digest of."""
        return self.boxes.tobytes() + self.classes.tobytes() + self.crowd.tobytes()


def clip_box(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float]:
    """The part of a box (x1, y1, x2, y2) that lies in the picture; of no extent if there is none."""
    x1, y1, x2, y2 = box
    return min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height)


def are_pixels(values: Any, count: int | None = None, limit: float = FARTHEST) -> bool:
    """Whether `values` is a list of numbers within `limit` that can be pixels, `count` of them where it is given."""
    return (
        isinstance(values, list)
        and (count is None or len(values) == count)
        and all(isinstance(v, int | float) and not isinstance(v, bool) and -limit < v < limit for v in values)
    )


def to_coco(images: Sequence[AnnotatedImage], names: Sequence[str]) -> dict[str, Any]:
    """COCO ground truth; all ids count from 1.

    Args:
        images: The pictures of a split.
        names: Class names in the order of their indices.
    """
    annotations: list[dict[str, Any]] = []
    for index, image in enumerate(images, start=1):
        for (x1, y1, x2, y2), label, crowd, segment in zip(
            image.boxes.tolist(), image.classes.tolist(), image.crowd.tolist(), image.segments, strict=True
        ):
            width, height = x2 - x1, y2 - y1
            annotation = {
                "id": len(annotations) + 1,
                "image_id": index,
                "category_id": label + 1,
                "bbox": [x1, y1, width, height],
                "area": width * height,
                "iscrowd": int(crowd),
            }
            annotations.append(annotation if segment is None else {**annotation, "segmentation": segment})
    return {
        "images": [
            {"id": index, "file_name": image.path.name, "width": image.width, "height": image.height}
            for index, image in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(names, start=1)],
    }
