"""A detection data set on disk: images, YOLO labels, data.yaml, and COCO json where there is one."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from detkd.errors import DataError
from detkd.files import write_text

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
BOX_COLUMNS = 5
TOLERANCE = 1e-3  # labels are written with few digits


@dataclass(frozen=True)
class DetectionDataset:
    """A data set described by a ``data.yaml`` as ultralytics uses it.

    Attributes:
        path: The data.yaml.
        root: Folder that the splits' paths are relative to.
        names: Class names in the order of their indices.
        splits: Split name to its image folder.
    """

    path: Path
    root: Path
    names: tuple[str, ...]
    splits: dict[str, Path]

    @classmethod
    def load(cls, path: Path) -> DetectionDataset:
        """Read a data.yaml; a relative ``path:`` is relative to that file.

        Raises:
            DataError: If the file is missing, malformed, or a split leaves the data set's folder.
        """
        tree = read_mapping(path)
        given = Path(str(tree.get("path", ".")))
        root = (given if given.is_absolute() else path.parent / given).resolve()
        names = tree.get("names")
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[index] for index in range(len(names))]
        if not isinstance(names, list) or not names:
            raise DataError(f"{path}: expected `names` to list the classes or map 0, 1, … to them, but got {names!r}.")
        splits = {}
        for split in ("train", "val", "test"):
            if tree.get(split) is None:
                continue
            folder = (root / str(tree[split])).resolve()
            if not given.is_absolute() and not folder.is_relative_to(path.parent.resolve()):
                raise DataError(
                    f"{path}: expected split `{split}` to lie below {path.parent}, but it is {folder}. "
                    "Give an absolute `path:` to read from elsewhere."
                )
            splits[split] = folder
        return cls(path=path, root=root, names=tuple(str(name) for name in names), splits=splits)

    def images(self, split: str) -> list[Path]:
        """List the images of a split in order of their names.

        Raises:
            DataError: If there is no such split, no such folder, or no image in it.
        """
        if split not in self.splits:
            raise DataError(f"{self.path}: expected a split `{split}`, but it has {sorted(self.splits)}.")
        folder = self.splits[split]
        if not folder.is_dir():
            raise DataError(f"{self.path}: expected split `{split}` at {folder}, but there is no such folder.")
        images = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise DataError(f"{self.path}: expected images of split `{split}` in {folder}, but it is empty.")
        return images

    def label_path(self, image: Path) -> Path:
        """Return where ultralytics looks for an image's labels: the last ``images`` folder becomes ``labels``."""
        parts = list(image.parts)
        for index in range(len(parts) - 2, -1, -1):
            if parts[index] == "images":
                parts[index] = "labels"
                break
        return Path(*parts).with_suffix(".txt")

    def coco(self, split: str) -> dict[str, Any]:
        """Return COCO ground truth: ``{root}/{split}.json`` where there is one, else the YOLO labels converted.

        Raises:
            DataError: If the json is malformed or names other classes than data.yaml.
        """
        path = self.root / f"{split}.json"
        if not path.is_file():
            return self._convert(split)
        try:
            truth = json.loads(path.read_text(encoding="utf-8"))
            names = [category["name"] for category in truth["categories"]]
            files = {image["file_name"] for image in truth["images"]}
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"{path}: expected COCO ground truth, but: {type(error).__name__} {error}") from error
        if sorted(names) != sorted(self.names):
            raise DataError(f"{path}: expected the classes of data.yaml {sorted(self.names)}, but got {sorted(names)}.")
        unlisted = [image.name for image in self.images(split) if image.name not in {Path(f).name for f in files}]
        if unlisted:
            raise DataError(
                f"{path}: expected every image of split `{split}`, but {len(unlisted)} are missing, e.g. {unlisted[0]}."
            )
        return dict(truth)

    def write_yaml(self, path: Path) -> None:
        """Write a data.yaml with absolute paths: ultralytics reads relative ones from the current directory."""
        content: dict[str, Any] = {
            "path": str(self.root),
            **{split: str(folder) for split, folder in self.splits.items()},
            "names": dict(enumerate(self.names)),
        }
        # ultralytics insists on a val split; where there is none, training is watched on the training images.
        content.setdefault("val", content.get("train"))
        write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def _convert(self, split: str) -> dict[str, Any]:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index, file in enumerate(self.images(split), start=1):
            with Image.open(file) as image:
                width, height = image.size
            images.append({"id": index, "file_name": file.name, "width": width, "height": height})
            for row in read_labels(self.label_path(file), len(self.names)):
                annotations.append(_annotation(row, len(annotations) + 1, index, width, height))
        categories = [{"id": index, "name": name} for index, name in enumerate(self.names, start=1)]
        return {"images": images, "annotations": annotations, "categories": categories}


def read_labels(path: Path, classes: int) -> list[tuple[int, list[float]]]:
    """Read YOLO labels: class and normalised centre box, or class and polygon; none where the file is missing.

    Raises:
        DataError: At the first line that is not one of these, with its number.
    """
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            label, *values = (float(word) for word in line.split())
        except ValueError as error:
            raise DataError(f"{where}: expected numbers, but got {line.strip()!r}.") from error
        polygon = len(values) >= BOX_COLUMNS + 1 and len(values) % 2 == 0
        if len(values) != BOX_COLUMNS - 1 and not polygon:
            raise DataError(f"{where}: expected class x y width height, or a polygon, but got {len(values) + 1} numbers.")
        if not label.is_integer() or not 0 <= label < classes:
            raise DataError(f"{where}: expected a class from 0 to {classes - 1}, but got {label:g}.")
        if not all(math.isfinite(v) and -TOLERANCE <= v <= 1 + TOLERANCE for v in values):
            raise DataError(f"{where}: expected coordinates from 0 to 1 (divided by the image's size), but got {values}.")
        rows.append((int(label), values))
    return rows


def check_dataset(dataset: DetectionDataset, splits: tuple[str, ...]) -> None:
    """Decode every image and read every label before hours of training depend on them.

    Raises:
        DataError: One line that names the first fault and counts the others.
    """
    faults: list[str] = []
    for split in dict.fromkeys(splits):
        images = dataset.images(split)

        def examine(image: Path) -> tuple[str | None, int]:
            try:
                with Image.open(image) as opened:
                    opened.load()
            # ImportError: once imported, ultralytics makes Pillow look for a HEIF plugin where a file is no picture.
            except (OSError, SyntaxError, ValueError, ImportError) as error:
                return f"{image}: expected a readable image, but: {error}.", 0
            try:
                return None, len(read_labels(dataset.label_path(image), len(dataset.names)))
            except DataError as error:
                return str(error), 0

        with ThreadPoolExecutor() as pool:
            results = list(pool.map(examine, images))
        faults += [fault for fault, _ in results if fault is not None]
        if not any(fault for fault, _ in results) and not any(count for _, count in results):
            faults.append(
                f"{dataset.path}: expected labels for split `{split}`, e.g. {dataset.label_path(images[0])}, but there "
                "are none."
            )
    if faults:
        others = f" {len(faults) - 1} more files are faulty." if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{others} Mend or remove them.")


def _annotation(row: tuple[int, list[float]], index: int, image: int, width: int, height: int) -> dict[str, Any]:
    label, values = row
    if len(values) == BOX_COLUMNS - 1:
        x, y, w, h = values
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        extra: dict[str, Any] = {}
    else:
        xs, ys = [x * width for x in values[0::2]], [y * height for y in values[1::2]]
        box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        extra = {"segmentation": [[value for point in zip(xs, ys, strict=True) for value in point]]}
    return {
        "id": index,
        "image_id": image,
        "category_id": label + 1,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": 0,
        **extra,
    }


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a data.yaml.

    Raises:
        DataError: If the file is missing, unreadable, or holds no mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"Expected a data.yaml, but there is none at {path}.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: expected readable YAML, but: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise DataError(f"{path}: expected a mapping with `train`, `val` and `names`, but got {type(tree).__name__}.")
    return tree
