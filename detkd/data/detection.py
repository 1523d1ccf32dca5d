"""A detection data set on disk: data.yaml, images, and annotations in one of several formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml

from detkd.data import coco, voc, yolo
from detkd.data.annotations import AnnotatedImage, to_coco
from detkd.data.description import Description, beside_images, list_pictures, read_mapping
from detkd.data.pictures import read_picture
from detkd.data.splits import ImageSplits, check_splits, read_each
from detkd.errors import DataError, shorten
from detkd.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

Format = Literal["yolo", "coco", "voc"]
VOC_IMAGES = "JPEGImages"  # where the pictures are that a list of names is of


@dataclass(frozen=True)
class DetectionDataset(ImageSplits[AnnotatedImage]):
    """A data set described by a ``data.yaml`` as ultralytics uses it, with annotations of other formats, too.

    Attributes:
        path: The data.yaml.
        root: Folder that the splits' paths are relative to.
        names: Class names in the order of their indices.
        splits: Split name to its image folder; of Pascal VOC also to a list of names, one a line.
        format: ``yolo`` has labels beside the images, ``coco`` a json for each split, ``voc`` an XML for each image.
        annotations: Where they are: of ``coco`` the json of each split, of ``voc`` the folder of each split's XML.
    """

    format: Format
    annotations: dict[str, Path]

    @classmethod
    def load(cls, path: Path) -> DetectionDataset:
        """Read a data.yaml; a relative ``path:`` is relative to that file.

        Raises:
            DataError: If the file is missing, malformed, or a path in it leaves the data set's folder.
        """
        description = Description.of(path, read_mapping(path))
        splits, kind = description.splits(), description.tree.get("format", "yolo")
        if kind not in get_args(Format):
            raise DataError(f"{path}: expected `format` to be one of {list(get_args(Format))}, but got {shorten(kind)}.")
        places = _annotations(path, kind, description.tree.get("annotations"), tuple(splits))
        annotations = {split: description.below(f"annotations.{split}", place) for split, place in places.items()}
        labels = (
            annotations if kind == "voc" else {split: beside_images(place, "labels") for split, place in splits.items()}
        )
        description.guard({*splits.values(), *labels.values(), description.root / VOC_IMAGES})
        return cls(path, description.root, description.names(), splits, kind, annotations)

    def images(self, split: str) -> list[Path]:
        """List the images of a split: of ``coco`` as its json lists them, else in order of their names.

        Raises:
            DataError: If there is no such split, no such folder, or no image in it.
        """
        place = self.place(split)
        if self.format == "coco":
            images = coco.list_images(self.annotations[split], place, self.names)
        elif place.is_dir():
            images = list_pictures(place)
        elif self.format == "voc" and place.is_file():
            images = _listed(place, self.root / VOC_IMAGES)
        else:
            raise DataError(f"{self.path}: expected split `{split}` at {place}, but there is no such folder.")
        if not images:
            raise DataError(f"{self.path}: expected images of split `{split}` in {place}, but it is empty.")
        return images

    def read(self, split: str) -> tuple[list[AnnotatedImage], list[str]]:
        """Read what can be read of a split: its images without fault, and one line for each fault.

        Raises:
            DataError: If the split is missing as a whole.
        """
        place = self.place(split)
        if self.format == "coco":
            images, faults = coco.read_split(self.annotations[split], place, self.names)
            return images, faults if images or faults else [
                f"{self.annotations[split]}: expected images, but there are none."
            ]

        def read_one(image: Path) -> AnnotatedImage:
            if self.format == "yolo":
                return yolo.read_image(image, len(self.names))
            return voc.read_image(image, self.annotations[split] / f"{image.stem}.xml", self.names)

        return read_each(self.images(split), read_one)

    def coco(self, split: str) -> dict[str, Any]:
        """Return COCO ground truth: a split's json, for YOLO labels ``{root}/{split}.json``, else all of it converted.

        Raises:
            DataError: If the json is malformed or names other classes than data.yaml.
        """
        path = self.annotations.get(split) if self.format == "coco" else self.root / f"{split}.json"
        if self.format == "voc" or path is None or not path.is_file():
            return to_coco(self.annotated(split), self.names)
        truth = coco.load_truth(path, self.names)
        coco.check_truth(truth, str(path))
        truth = coco.with_boxes(truth)
        listed, there = (
            {Path(image["file_name"]).name for image in truth["images"]},
            {image.name for image in self.images(split)},
        )
        unlisted = sorted(there - listed)
        if unlisted:
            raise DataError(
                f"{path}: expected every image of split `{split}`, but {len(unlisted)} are missing, e.g. {unlisted[0]}."
            )
        gone = sorted(listed - there)
        if gone:
            raise DataError(
                f"{path}: expected images of split `{split}` alone, but {len(gone)} are not in its folder, e.g. {gone[0]}. "
                "What is labelled there would count as missed."
            )
        return truth

    def write_yaml(self, path: Path) -> None:
        """Write a data.yaml with absolute paths: ultralytics reads relative ones from the current directory.

        Raises:
            DataError: If the annotations are none that ultralytics reads.
        """
        if self.format != "yolo":
            raise DataError(
                f"{self.path}: expected YOLO labels, the only ones that ultralytics reads, but `format` is {self.format}."
            )
        content: dict[str, Any] = {
            "path": str(self.root),
            **{split: str(folder) for split, folder in self.splits.items()},
            "names": dict(enumerate(self.names)),
        }
        content.setdefault("val", content.get(self.watched))  # ultralytics insists on one
        write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def check_dataset(dataset: DetectionDataset, splits: tuple[str, ...]) -> None:
    """Decode every image and read every annotation before hours of training depend on them.

    Raises:
        DataError: One line that names the first fault and counts the others.
    """

    def missing(split: str, image: Path) -> str:
        where = dataset.annotations.get(split, yolo.label_path(image))
        return f"expected labels for split `{split}`, e.g. {where}, but there are none."

    check_splits(dataset, splits, _decode, missing)


def _decode(image: AnnotatedImage) -> None:
    """Decode a picture, and refuse one that is not as it is annotated."""
    height, width, _ = read_picture(image.path).shape
    if (width, height) != (image.width, image.height):
        raise DataError(
            f"{image.path}: expected {image.width}x{image.height} as annotated, but it has {width}x{height} pixels."
        )


def _listed(path: Path, folder: Path) -> list[Path]:
    """The pictures of a split of Pascal VOC: names without suffix, one a line."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{path}: expected names of images without folder, but got {shorten(name)}.")
    return [folder / f"{name}.jpg" for name in names]


def _annotations(path: Path, kind: str, given: Any, splits: tuple[str, ...]) -> Mapping[str, Any]:
    """Where each split's annotations are."""
    if kind == "yolo":
        return {}
    if kind == "voc":
        if given is not None and not isinstance(given, str):
            raise DataError(f"{path}: expected `annotations` to be the folder of the XML, but got {shorten(given)}.")
        return dict.fromkeys(splits, "Annotations" if given is None else given)
    missing = [split for split in splits if not isinstance(given, dict) or not isinstance(given.get(split), str)]
    if missing:
        raise DataError(f"{path}: expected `annotations` to give the json of {missing}, but got {shorten(given)}.")
    return {split: given[split] for split in splits}
