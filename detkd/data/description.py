"""What the data.yaml of every data set says: where it is, its splits and its class names."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd.data.pictures import IMAGE_SUFFIXES
from detkd.errors import DataError, one_line, shorten
from detkd.trees import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Description:
    """A data.yaml that was read.

    Attributes:
        path: The file.
        tree: What is in it.
        root: Folder that the splits' paths are relative to: ``path:``, itself relative to the file.
    """

    path: Path
    tree: Mapping[str, Any]
    root: Path

    @classmethod
    def of(cls, path: Path, tree: Mapping[str, Any]) -> Description:
        """Resolve the root of what a data.yaml says.

        Args:
            path: The file, or one that would say it.
            tree: What is in it.
        """
        return cls(path, tree, (path.parent / str(tree.get("path", "."))).resolve())

    def below(self, key: str, value: Any) -> Path:
        """A path in the data set.

        Raises:
            DataError: If it leaves the data set's folder; the splits of an absolute ``path:`` may lie anywhere.
        """
        absolute = Path(str(self.tree.get("path", "."))).is_absolute()
        limit = self.root if absolute else self.path.parent.resolve()
        place = (self.root / str(value)).resolve()
        if not (place.is_relative_to(limit) or (absolute and key in SPLITS)):
            raise DataError(
                f"{self.path}: expected `{key}` to lie below {limit}, but it is {place}. "
                "Give an absolute `path:` to read from elsewhere."
            )
        return place

    def splits(self) -> dict[str, Path]:
        """Split name to its folder, of those that are given."""
        return {split: self.below(split, self.tree[split]) for split in SPLITS if self.tree.get(split) is not None}

    def names(self) -> tuple[str, ...]:
        """Class names in the order of their indices.

        Raises:
            DataError: If they are neither a list nor a mapping of 0, 1, ….
        """
        names = self.tree.get("names")
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[index] for index in range(len(names))]
        if not isinstance(names, list) or not names:
            raise DataError(
                f"{self.path}: expected `names` to list the classes or map 0, 1, … to them, but got {shorten(names)}."
            )
        return tuple(str(name) for name in names)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a data.yaml.

    Raises:
        DataError: If the file is missing, unreadable, or holds no mapping.
    """
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"Expected a data.yaml, but there is none at {path}.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected readable YAML, but: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise DataError(f"{path}: expected a mapping with `train`, `val` and `names`, but got {type(tree).__name__}.")
    return tree


def list_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder and those below it, in order of their names."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)


def beside_images(folder: Path, name: str) -> Path:
    """The folder beside one of images: the last ``images`` in its path becomes `name`; the same folder if there is none."""
    parts = list(folder.parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == "images":
            parts[index] = name
            break
    return Path(*parts)


def name_faults(path: Path, split: str, images: Sequence[Path]) -> list[str]:
    """A line for each file name that a split has twice: ground truth knows images by their names."""
    twice = [name for name, count in Counter(image.name for image in images).items() if count > 1]
    return [f"{path}: expected file names once each in `{split}`, but got {name} again." for name in twice]


def raise_faults(faults: list[str]) -> None:
    """Raise what is wrong with a data set, if anything is.

    Raises:
        DataError: One line that names the first fault and counts the others.
    """
    if faults:
        others = f" {len(faults) - 1} more faults." if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{others} Mend or remove what is faulty.")
