"""A segmentation data set on disk: data.yaml, images, and masks in one of several formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from detkd.data import coco
from detkd.data.description import (
    SPLITS,
    Description,
    beside_images,
    list_pictures,
    read_mapping,
)
from detkd.data.masks import IGNORED, DrawnMasks, InstanceMask, SemanticMask
from detkd.data.pictures import read_picture, read_size
from detkd.data.segmented import SegmentedImage, truth_of
from detkd.data.splits import ImageSplits, check_splits, read_each
from detkd.errors import DataError, shorten
from detkd.types import BACKGROUND

if TYPE_CHECKING:
    from pathlib import Path

    from detkd.data.segmented import Masks

Format = Literal["instances", "semantic", "coco"]
HOLDOUT = 5  # of a folder without data.yaml


@dataclass(frozen=True)
class SegmentationDataset(ImageSplits[SegmentedImage]):
    """A data set described by a ``data.yaml``: ``path``, the splits' image folders, ``names``, and where the masks are.

    ========= ========================================================== =======================================
    format    labels                                                     where
    ========= ========================================================== =======================================
    instances PNG of 8 or 16 bits, 0 background, k the k-th object;      ``masks: {split: folder}``, else the last
              one class                                                  ``images`` folder becomes ``masks``
    semantic  PNG of class indices, 0 background, 1 the first of         the same
              ``names``, 255 ignored; objects are what hangs together
    coco      json with a mask for each object; crowds are ignored       ``annotations: {split: json}``, else
                                                                         ``{split}.json`` below ``path``
    ========= ========================================================== =======================================

    Without ``format`` it is ``coco`` where every split has its ``{split}.json``, as the built-in set has, else
    ``instances``. ``holdout: n`` makes every n-th training image the split ``val``, where there is no other. A folder
    without data.yaml that has ``images/train`` and ``masks/train`` is read as instance maps of the class ``object``, with
    ``holdout: 5``; to name the class, write a data.yaml anywhere with the folder as absolute ``path:``.

    Attributes:
        path: The data.yaml, or where it would be.
        root: Folder that the splits' paths are relative to.
        names: Class names in the order of their indices, without the background.
        splits: Split name to its image folder.
        format: Of the labels.
        labels: Split name to its folder of masks, or its json.
        holdout: Every how many-th training image is of ``val``; None where ``val`` has a folder of its own, or is missing.
    """

    format: Format
    labels: dict[str, Path]
    holdout: int | None

    @classmethod
    def load(cls, path: Path) -> SegmentationDataset:
        """Read a data.yaml, or the folder that has one or would have.

        Raises:
            DataError: If the file is missing, malformed, or a path in it leaves the data set's folder.
        """
        path = path / "data.yaml" if path.is_dir() else path
        tree = read_mapping(path) if path.is_file() or not _is_plain(path.parent) else _plain(path.parent)
        description = Description.of(path, tree)
        splits, names = description.splits(), description.names()
        jsons = {split: description.root / f"{split}.json" for split in splits}
        default = "coco" if splits and all(json.is_file() for json in jsons.values()) else "instances"
        kind = tree.get("format", default)
        if kind not in get_args(Format):
            raise DataError(f"{path}: expected `format` to be one of {list(get_args(Format))}, but got {shorten(kind)}.")
        if kind == "instances" and len(names) > 1:
            raise DataError(f"{path}: expected one class, which is all that instance maps tell of, but got {list(names)}.")
        if kind == "semantic" and len(names) >= IGNORED:
            raise DataError(f"{path}: expected fewer classes than {IGNORED}, which says ignored, but got {len(names)}.")
        if BACKGROUND in names:
            raise DataError(
                f"{path}: expected `names` without `{BACKGROUND}`, which pixels of no class are; remove it, or call "
                "that class otherwise."
            )
        key = "annotations" if kind == "coco" else "masks"
        given = tree.get(key) or {}
        if not isinstance(given, dict) or not all(isinstance(place, str) for place in given.values()):
            raise DataError(f"{path}: expected `{key}` to map splits to their places, but got {shorten(given)}.")
        labels = {
            split: description.below(f"{key}.{split}", given[split])
            if split in given
            else _default(path, kind, folder, jsons[split])
            for split, folder in splits.items()
        }
        description.guard({*splits.values(), *(place for place in labels.values() if kind != "coco")})
        holdout = _holdout(description, splits)
        if holdout is not None:
            splits["val"], labels["val"] = splits["train"], labels["train"]
        return cls(path, description.root, names, splits, kind, labels, holdout)

    def images(self, split: str) -> list[Path]:
        """List the images of a split: of ``coco`` as its json lists them, else in order of their names.

        Raises:
            DataError: If there is no such split, no such folder, or no image in it.
        """
        place = self.place(split)
        if self.format == "coco":
            images = coco.list_images(self.labels[split], place, self.names)
        elif place.is_dir():
            images = list_pictures(place)
        else:
            raise DataError(f"{self.path}: expected split `{split}` at {place}, but there is no such folder.")
        images = self._share(images, split)
        if not images:
            raise DataError(f"{self.path}: expected images of split `{split}` in {place}, but it is empty.")
        return images

    def read(self, split: str) -> tuple[list[SegmentedImage], list[str]]:
        """Read what can be read of a split: its images without fault, and one line for each fault.

        Masks are decoded and let go of.

        Raises:
            DataError: If the split is missing as a whole.
        """
        paths = self.images(split)
        faults: list[str] = []
        sources: list[tuple[Path, Masks]]
        if self.format == "coco":
            drawn, faults = coco.read_split(self.labels[split], self.place(split), self.names)
            own = set(paths)
            sources = [(image.path, DrawnMasks(image)) for image in drawn if image.path in own]
        else:
            sources = [(path, self._mask(path, split)) for path in paths]

        images, broken = read_each(sources, lambda source: _read_image(*source))
        return images, faults + broken

    def coco(self, split: str) -> dict[str, Any]:
        """Return COCO ground truth with masks: a split's json, else all of it converted, with ids from 1.

        What a semantic PNG ignores is a crowd of every class: what is found there counts neither way.

        Raises:
            DataError: If anything in it is broken.
        """
        if self.format != "coco":
            return truth_of(self.annotated(split), self.names)
        truth = coco.load_truth(self.labels[split], self.names)
        own = set(self.images(split))
        images = [image for image in truth["images"] if self.place(split) / image["file_name"] in own]
        ids = {image["id"] for image in images}
        annotations = [annotation for annotation in truth["annotations"] if annotation.get("image_id") in ids]
        return {**truth, "images": images, "annotations": annotations}

    def _share(self, items: list[Path], split: str) -> list[Path]:
        """Those of the images of a folder that are of a split."""
        if self.holdout is None or split not in ("train", "val"):
            return items
        held = [index % self.holdout == self.holdout - 1 for index in range(len(items))]
        return [item for item, of_val in zip(items, held, strict=True) if of_val == (split == "val")]

    def _mask(self, image: Path, split: str) -> InstanceMask | SemanticMask:
        path = (self.labels[split] / image.relative_to(self.splits[split])).with_suffix(".png")
        return InstanceMask(path) if self.format == "instances" else SemanticMask(path, len(self.names))


def check_segmentation(dataset: SegmentationDataset, splits: tuple[str, ...]) -> None:
    """Decode every image and every mask before hours of training depend on them.

    Raises:
        DataError: One line that names the first fault and counts the others.
    """
    check_splits(
        dataset,
        splits,
        _decode,
        lambda split, image: f"expected objects in split `{split}`, e.g. of {image}, but there are none.",
    )


def _read_image(path: Path, masks: Masks) -> SegmentedImage:
    """One picture, whose masks are decoded for what they show and let go of."""
    width, height = read_size(path)
    bare = SegmentedImage(path, width, height, np.zeros(0, np.int64), np.zeros(0, np.bool_), masks)
    labels = bare.decode().labels
    return SegmentedImage(path, width, height, labels, np.zeros(len(labels), np.bool_), masks)


def _decode(image: SegmentedImage) -> None:
    read_picture(image.path)


def _default(path: Path, kind: Format, images: Path, json: Path) -> Path:
    """Where the labels of a split are that data.yaml says nothing of."""
    if kind == "coco":
        return json
    masks = beside_images(images, "masks")
    if masks == images:
        raise DataError(
            f"{path}: expected `masks` to give the folder of the masks of {images}, which is not below `images`."
        )
    return masks


def _is_plain(folder: Path) -> bool:
    return all((folder / kind / "train").is_dir() for kind in ("images", "masks"))


def _plain(folder: Path) -> dict[str, Any]:
    """What the data.yaml would say of a folder that has none."""
    splits = {split: f"images/{split}" for split in SPLITS if (folder / "images" / split).is_dir()}
    return {**splits, "names": ["object"], "format": "instances", **({} if "val" in splits else {"holdout": HOLDOUT})}


def _holdout(description: Description, splits: dict[str, Path]) -> int | None:
    holdout = description.tree.get("holdout")
    if holdout is None:
        return None
    if isinstance(holdout, bool) or not isinstance(holdout, int) or holdout < 2:
        raise DataError(f"{description.path}: expected `holdout` to be a whole number from 2, but got {shorten(holdout)}.")
    if "val" in splits or "train" not in splits:
        raise DataError(f"{description.path}: expected `holdout` where there is `train` and no `val`.")
    return holdout
