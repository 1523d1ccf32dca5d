"""COCO json: one file a split."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from detkd.data.annotations import AnnotatedImage, AnnotatedObject, are_pixels
from detkd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def load_truth(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Read COCO json of a data set's classes, in any order.

    Raises:
        DataError: If the json is malformed or names other classes than `names`.
    """
    try:
        truth = json.loads(path.read_text(encoding="utf-8"))
        found = [category["name"] for category in truth["categories"]]
        for key in ("images", "annotations"):
            if not all(isinstance(entry, dict) for entry in truth[key]):
                raise TypeError(f"{key}: expected a list of mappings")
        differing = sorted(found) != sorted(names)
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected COCO ground truth, but: {type(error).__name__} {error}") from error
    if differing:
        raise DataError(f"{path}: expected the classes of data.yaml {sorted(names)}, but got {sorted(found)}.")
    return dict(truth)


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
    checked = [(image, _image_fault(image)) for image in truth["images"]]
    faults = [fault for _, fault in checked if fault is not None]
    sound = [image for image, fault in checked if fault is None]
    sizes = {image["id"]: (image["width"], image["height"]) for image in sound}
    if len(sizes) < len(sound):
        faults.append("images: expected an id of its own for each, but some occur twice.")
    objects: dict[Any, list[AnnotatedObject]] = defaultdict(list)
    for index, annotation in enumerate(truth["annotations"]):
        found = _read_annotation(annotation, labels, sizes)
        if isinstance(found, str):
            faults.append(f"annotations[{index}]: {found}")
        else:
            objects[annotation["image_id"]].append(found)
    images = [AnnotatedImage.of(folder / image["file_name"], *sizes[image["id"]], objects[image["id"]]) for image in sound]
    return images, [f"{path}: {fault}" for fault in faults]


def _image_fault(image: Mapping[str, Any]) -> str | None:
    """What is wrong with an entry of `images`."""
    name, size = image.get("file_name"), [image.get("width"), image.get("height")]
    if not isinstance(name, str) or not name or not _stays_below(name):
        return f"expected `file_name` to be a path below the split's folder, but got {name!r}."
    if not isinstance(image.get("id"), int | str):
        return f"{name}: expected an `id`, but got {image.get('id')!r}."
    if not are_pixels(size, 2) or not all(isinstance(side, int) and side > 0 for side in size):
        return f"{name}: expected `width` and `height` in pixels, but got {size}."
    return None


def _stays_below(name: str) -> bool:
    """Whether a relative path stays inside on every system: neither absolute, nor with a drive, nor with ``..``."""
    windows = PureWindowsPath(name)
    return not PurePosixPath(name).is_absolute() and not windows.anchor and ".." not in windows.parts


def _read_annotation(
    annotation: Mapping[str, Any], labels: Mapping[Any, int], sizes: Mapping[Any, tuple[int, int]]
) -> AnnotatedObject | str:
    """One object, or what is wrong with it."""
    image, category, box = (annotation.get(key) for key in ("image_id", "category_id", "bbox"))
    if not isinstance(image, int | str) or image not in sizes:
        return f"expected `image_id` of one of the images, but got {image!r}."
    if not isinstance(category, int | str) or category not in labels:
        return f"expected `category_id` of one of the categories, but got {category!r}."
    if not isinstance(box, list) or not are_pixels(box, 4) or min(box[2:]) < 0:
        return f"expected `bbox` to be x, y, width, height in pixels, but got {box!r}."
    segment = annotation.get("segmentation") or None
    if segment is not None and not _is_segment(segment, sizes[image]):
        return "expected `segmentation` to be polygons, or run lengths of the image's size."
    x, y, width, height = box
    return AnnotatedObject(
        labels[category], (x, y, x + width, y + height), segment, crowd=bool(annotation.get("iscrowd", 0))
    )


def _is_segment(segment: Any, size: tuple[int, int]) -> bool:
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
