"""COCO json: one file a split."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from pycocotools import mask as coco_mask

from detkd.data.annotations import AnnotatedImage, AnnotatedObject, are_pixels
from detkd.data.masks import compress_segment
from detkd.errors import DataError, one_line, shorten
from detkd.trees import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def load_truth(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Read COCO json of a data set's classes, in any order.

    Raises:
        DataError: If the json is malformed or names other classes than `names`.
    """
    try:
        truth = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected COCO ground truth, but: {one_line(error)}") from error
    fault = _whole_fault(truth)
    if fault is not None:
        raise DataError(f"{path}: expected COCO ground truth, but: {fault}")
    found = sorted(category["name"] for category in truth["categories"])
    if found != sorted(names):
        raise DataError(f"{path}: expected the classes of data.yaml {sorted(names)}, but got {shorten(found)}.")
    return dict(truth)


def with_boxes(truth: dict[str, Any]) -> dict[str, Any]:
    """Ground truth that was checked, with a box of each object: some tools write none beside a mask."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    rows = [
        {**row, "bbox": _box(row["bbox"], row.get("segmentation"), sizes[row["image_id"]])} for row in truth["annotations"]
    ]
    return {**truth, "annotations": rows}


def _box(box: list[float], segment: Any, size: tuple[int, int]) -> list[float]:
    """The box of an annotation, or where it has no extent its mask's."""
    if 0 not in box[2:] or not segment:
        return box
    found: list[float] = coco_mask.toBbox(compress_segment(segment, *reversed(size))).tolist()
    return found


def check_truth(truth: Any, where: str) -> None:
    """Refuse ground truth that pycocotools would fail on, or believe: it is written in C, and checks nothing.

    Args:
        truth: What a COCO json holds.
        where: What it is called in an error.

    Raises:
        DataError: Naming the first fault.
    """
    fault = _whole_fault(truth)
    if fault is None:
        labels = {category["id"]: index for index, category in enumerate(truth["categories"])}
        fault = next((line for line in _read_all(truth, labels) if isinstance(line, str)), None)
    if fault is not None:
        raise DataError(f"{where}: {fault}")


def _whole_fault(truth: Any) -> str | None:
    """What is wrong with the three lists of a COCO json, or its categories."""
    for key in ("categories", "images", "annotations"):
        entries = truth.get(key) if isinstance(truth, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return f"expected `{key}` to be a list of mappings."
    for key, kind in (("id", int | str), ("name", str)):
        values = [category.get(key) for category in truth["categories"]]
        if not all(isinstance(value, kind) for value in values) or len(set(values)) < len(values):
            return f"expected `categories` with a `{key}` of its own each, but got {shorten(values)}."
    return None


def list_images(path: Path, folder: Path, names: Sequence[str]) -> list[Path]:
    """The pictures that a COCO json lists, in its order.

    Raises:
        DataError: If the json is malformed, or a name leads out of `folder`.
    """
    images: list[Path] = []
    for image in load_truth(path, names)["images"]:
        fault = _image_fault(image)
        if fault is not None:
            raise DataError(f"{path}: {fault}")
        images.append(folder / image["file_name"])
    return images


def read_split(path: Path, folder: Path, names: Sequence[str]) -> tuple[list[AnnotatedImage], list[str]]:
    """Read the pictures of a split and what they show.

    Args:
        path: The json.
        folder: Where the pictures are.
        names: Class names in the order of their indices.

    Returns:
        The pictures without fault, in the json's order, and one line for each fault.

    Raises:
        DataError: If the json is malformed as a whole, or names other classes.
    """
    truth = load_truth(path, names)
    labels = {category["id"]: names.index(category["name"]) for category in truth["categories"]}
    faults = []
    images = []
    for found in _read_all(truth, labels):
        if isinstance(found, str):
            faults.append(f"{path}: {found}")
        else:
            image, objects = found
            images.append(AnnotatedImage.of(folder / image["file_name"], image["width"], image["height"], objects))
    return images, faults


def _read_all(
    truth: Mapping[str, Any], labels: Mapping[Any, int]
) -> Iterator[str | tuple[Mapping[str, Any], list[AnnotatedObject]]]:
    """All faults of the images and annotations, and then the images without fault, with their objects."""
    sizes: dict[Any, tuple[int, int]] = {}
    sound = []
    for image in truth["images"]:
        fault = _image_fault(image)
        if fault is not None:
            yield fault
        elif image["id"] in sizes:
            yield f"images: expected an id of its own for each, but {image['id']!r} is there twice."
        else:
            sizes[image["id"]] = image["width"], image["height"]
            sound.append(image)
    objects: dict[Any, list[AnnotatedObject]] = defaultdict(list)
    for index, annotation in enumerate(truth["annotations"]):
        found = _read_annotation(annotation, labels, sizes)
        if isinstance(found, str):
            yield f"annotations[{index}]: {found}"
        else:
            objects[annotation["image_id"]].append(found)
    yield from ((image, objects[image["id"]]) for image in sound)


def _image_fault(image: Mapping[str, Any]) -> str | None:
    """What is wrong with an entry of `images`."""
    name, size = image.get("file_name"), [image.get("width"), image.get("height")]
    if not isinstance(name, str) or not name or not _is_path(name) or not _stays_below(name):
        return f"expected `file_name` to be a path below the split's folder, but got {shorten(name)}."
    if not isinstance(image.get("id"), int | str):
        return f"{name}: expected an `id`, but got {shorten(image.get('id'))}."
    if not are_pixels(size, 2) or not all(isinstance(side, int) and side > 0 for side in size):
        return f"{name}: expected `width` and `height` in pixels, but got {shorten(size)}."
    return None


def _is_path(name: str) -> bool:
    """Whether a system can have a file of that name: halves of letters and null bytes are none."""
    return "\0" not in name and name.isprintable()


def _stays_below(name: str) -> bool:
    """Whether a relative path stays inside on every system: neither absolute, nor with a drive, nor with ``..``."""
    windows = PureWindowsPath(name)
    return not PurePosixPath(name).is_absolute() and not windows.anchor and ".." not in windows.parts


def _read_annotation(
    annotation: Mapping[str, Any], labels: Mapping[Any, int], sizes: Mapping[Any, tuple[int, int]]
) -> AnnotatedObject | str:
    """One object, or what is wrong with it."""
    image, category, box, crowd, area = (
        annotation.get(key, default)
        for key, default in (("image_id", None), ("category_id", None), ("bbox", None), ("iscrowd", 0), ("area", 0))
    )
    segment = annotation.get("segmentation") or None
    if not isinstance(image, int | str) or image not in sizes:
        fault = f"expected `image_id` of one of the images, but got {shorten(image)}."
    elif not isinstance(category, int | str) or category not in labels:
        fault = f"expected `category_id` of one of the categories, but got {shorten(category)}."
    elif not isinstance(box, list) or not are_pixels(box, 4) or min(box[2:]) < 0:
        fault = f"expected `bbox` to be x, y, width, height in pixels, but got {shorten(box)}."
    elif not isinstance(crowd, int) or crowd not in (0, 1):
        fault = f"expected `iscrowd` to be 0 or 1, but got {shorten(crowd)}."
    elif not are_pixels([area], limit=math.inf):
        fault = f"expected `area` in pixels, but got {shorten(area)}."
    elif segment is not None and not is_segment(segment, sizes[image]):
        fault = "expected `segmentation` to be polygons, or run lengths of the image's size."
    else:
        x, y, width, height = _box(box, segment, sizes[image])
        return AnnotatedObject(labels[category], (x, y, x + width, y + height), segment, crowd=bool(crowd))
    return fault


def is_segment(segment: Any, size: tuple[int, int]) -> bool:
    """Whether `segment` is polygons, or run lengths that fill a picture of `size`, width and height."""
    width, height = size
    if isinstance(segment, dict):
        counts: Any = segment.get("counts")
        if isinstance(counts, str):
            counts = _run_lengths(counts)
        whole = are_pixels(counts) and all(isinstance(count, int) and count >= 0 for count in counts)
        return segment.get("size") == [height, width] and whole and sum(counts) == width * height
    polygons: list[Any] = segment if isinstance(segment, list) else [None]
    return all(are_pixels(polygon) and len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)


def _run_lengths(text: str) -> list[int] | None:
    """The run lengths that COCO packs into a string, 5 bits a character; None where it is none.

    pycocotools believes what it is given: of runs that do not fill the picture it leaves the rest of a mask to chance.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift > 30:
            return None
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:  # goes on
            continue
        value -= (digit >> 4 & 1) << shift  # the sign
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts if not shift else None
