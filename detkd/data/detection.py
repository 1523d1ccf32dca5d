"""A detection data set on disk: data.yaml, images, and annotations in one of several formats."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml

from detkd.data import coco, voc, yolo
from detkd.data.annotations import AnnotatedImage, to_coco
from detkd.data.pictures import IMAGE_SUFFIXES, read_picture
from detkd.errors import DataError
from detkd.files import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

Format = Literal["yolo", "coco", "voc"]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DetectionDataset:
    """A data set described by a ``data.yaml`` as ultralytics uses it, with annotations of other formats, too.

    Attributes:
        path: The data.yaml.
        root: Folder that the splits' paths are relative to.
        names: Class names in the order of their indices.
        splits: Split name to its image folder; of Pascal VOC also to a list of names, one a line.
        format: ``yolo`` has labels beside the images, ``coco`` a json for each split, ``voc`` an XML for each image.
        annotations: Where they are: of ``coco`` the json of each split, of ``voc`` the folder of each split's XML.
    """

    path: Path
    root: Path
    names: tuple[str, ...]
    splits: dict[str, Path]
    format: Format
    annotations: dict[str, Path]

    @classmethod
    def load(cls, path: Path) -> DetectionDataset:
        """Read a data.yaml; a relative ``path:`` is relative to that file.

        Raises:
            DataError: If the file is missing, malformed, or a path in it leaves the data set's folder.
        """
        tree = read_mapping(path)
        given = Path(str(tree.get("path", ".")))
        root = (given if given.is_absolute() else path.parent / given).resolve()
        limit = root if given.is_absolute() else path.parent.resolve()

        def below(key: str, value: Any) -> Path:
            place = (root / str(value)).resolve()
            if not (place.is_relative_to(limit) or (given.is_absolute() and key in SPLITS)):
                raise DataError(
                    f"{path}: expected `{key}` to lie below {limit}, but it is {place}. "
                    "Give an absolute `path:` to read from elsewhere."
                )
            return place

        splits = {split: below(split, tree[split]) for split in SPLITS if tree.get(split) is not None}
        kind = tree.get("format", "yolo")
        if kind not in get_args(Format):
            raise DataError(f"{path}: expected `format` to be one of {list(get_args(Format))}, but got {kind!r}.")
        places = _annotations(path, kind, tree.get("annotations"), tuple(splits))
        annotations = {split: below(f"annotations.{split}", place) for split, place in places.items()}
        return cls(path, root, _names(path, tree.get("names")), splits, kind, annotations)

    @property
    def watched(self) -> str:
        """The split that training is watched on: ``val``, or the training images where there is none."""
        return "val" if "val" in self.splits else "train"

    def images(self, split: str) -> list[Path]:
        """List the images of a split: of ``coco`` as its json lists them, else in order of their names.

        Raises:
            DataError: If there is no such split, no such folder, or no image in it.
        """
        place = self._place(split)
        if self.format == "coco":
            images = coco.list_images(self.annotations[split], place, self.names)
        elif place.is_dir():
            images = sorted(file for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        elif self.format == "voc" and place.is_file():
            images = _listed(place, self.root / "JPEGImages")
        else:
            raise DataError(f"{self.path}: expected split `{split}` at {place}, but there is no such folder.")
        if not images:
            raise DataError(f"{self.path}: expected images of split `{split}` in {place}, but it is empty.")
        return images

    def annotated(self, split: str) -> list[AnnotatedImage]:
        """Read the annotations of all images of a split, in the order of :meth:`images`.

        Raises:
            DataError: One line that names the first fault and counts the others.
        """
        images, faults = self.read(split)
        _raise(faults)
        return images

    def read(self, split: str) -> tuple[list[AnnotatedImage], list[str]]:
        """Read what can be read of a split: its images without fault, and one line for each fault.

        Raises:
            DataError: If the split is missing as a whole.
        """
        place = self._place(split)
        if self.format == "coco":
            images, faults = coco.read_split(self.annotations[split], place, self.names)
            return images, faults if images or faults else [
                f"{self.annotations[split]}: expected images, but there are none."
            ]

        def read_one(image: Path) -> AnnotatedImage | str:
            try:
                if self.format == "yolo":
                    return yolo.read_image(image, len(self.names))
                return voc.read_image(image, self.annotations[split] / f"{image.stem}.xml", self.names)
            except DataError as error:
                return str(error)

        with ThreadPoolExecutor() as pool:
            results = list(pool.map(read_one, self.images(split)))
        return [r for r in results if not isinstance(r, str)], [r for r in results if isinstance(r, str)]

    def coco(self, split: str) -> dict[str, Any]:
        """Return COCO ground truth: a split's json, for YOLO labels ``{root}/{split}.json``, else all of it converted.

        Raises:
            DataError: If the json is malformed or names other classes than data.yaml.
        """
        path = self.annotations.get(split) if self.format == "coco" else self.root / f"{split}.json"
        if self.format == "voc" or path is None or not path.is_file():
            return to_coco(self.annotated(split), self.names)
        truth = coco.load_truth(path, self.names)
        listed = {Path(str(image.get("file_name"))).name for image in truth["images"]}
        unlisted = [image.name for image in self.images(split) if image.name not in listed]
        if unlisted:
            raise DataError(
                f"{path}: expected every image of split `{split}`, but {len(unlisted)} are missing, e.g. {unlisted[0]}."
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

    def _place(self, split: str) -> Path:
        if split not in self.splits:
            raise DataError(f"{self.path}: expected a split `{split}`, but it has {sorted(self.splits)}.")
        return self.splits[split]


def check_dataset(dataset: DetectionDataset, splits: tuple[str, ...]) -> None:
    """Decode every image and read every annotation before hours of training depend on them.

    Raises:
        DataError: One line that names the first fault and counts the others.
    """
    faults: list[str] = []
    for split in dict.fromkeys(splits):
        images, found = dataset.read(split)
        with ThreadPoolExecutor() as pool:
            found += [fault for fault in pool.map(_decode, images) if fault is not None]
        twice = [name for name, count in Counter(image.path.name for image in images).items() if count > 1]
        found += [f"{dataset.path}: expected file names once each in `{split}`, but got {name} again." for name in twice]
        if images and not found and not any(len(image.classes) for image in images):
            where = dataset.annotations.get(split, yolo.label_path(images[0].path))
            found.append(f"{dataset.path}: expected labels for split `{split}`, e.g. {where}, but there are none.")
        faults += found
    _raise(faults)


def _raise(faults: list[str]) -> None:
    if faults:
        others = f" {len(faults) - 1} more faults." if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{others} Mend or remove what is faulty.")


def _decode(image: AnnotatedImage) -> str | None:
    """What is wrong with a picture, once it is decoded."""
    try:
        height, width, _ = read_picture(image.path).shape
    except DataError as error:
        return str(error)
    if (width, height) != (image.width, image.height):
        return f"{image.path}: expected {image.width}x{image.height} as annotated, but it has {width}x{height} pixels."
    return None


def _listed(path: Path, folder: Path) -> list[Path]:
    """The pictures of a split of Pascal VOC: names without suffix, one a line."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{path}: expected names of images without folder, but got {name!r}.")
    return [folder / f"{name}.jpg" for name in names]


def _names(path: Path, names: Any) -> tuple[str, ...]:
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: expected `names` to list the classes or map 0, 1, … to them, but got {names!r}.")
    return tuple(str(name) for name in names)


def _annotations(path: Path, kind: str, given: Any, splits: tuple[str, ...]) -> Mapping[str, Any]:
    """Where each split's annotations are."""
    if kind == "yolo":
        return {}
    if kind == "voc":
        return dict.fromkeys(splits, "Annotations" if given is None else given)
    missing = [split for split in splits if not isinstance(given, dict) or not isinstance(given.get(split), str)]
    if missing:
        raise DataError(f"{path}: expected `annotations` to give the json of {missing}, but got {given!r}.")
    return {split: given[split] for split in splits}


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
