"""What COCO ground truth calls a model's classes and a data set's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detkd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def category_ids(ground_truth: Mapping[str, Any], class_names: Sequence[str]) -> list[Any]:
    """The category of each of a model's classes, by name.

    Raises:
        DataError: If a class is none of the ground truth's.
    """
    categories = {category["name"]: category["id"] for category in ground_truth["categories"]}
    if not set(class_names) <= set(categories):
        raise DataError(
            f"Expected the model's classes among the data set's {sorted(categories)}, but got {sorted(class_names)}."
        )
    return [categories[name] for name in class_names]


def image_ids(ground_truth: Mapping[str, Any], images: Sequence[Path]) -> list[Any]:
    """The id of each image file, by its name without folders.

    Raises:
        DataError: If a file is none of the ground truth's.
    """
    ids = {image["file_name"].rsplit("/", 1)[-1]: image["id"] for image in ground_truth["images"]}
    unknown = [path.name for path in images if path.name not in ids]
    if unknown:
        raise DataError(f"Expected {unknown[0]} among the images of the ground truth, but it is not there.")
    return [ids[path.name] for path in images]
