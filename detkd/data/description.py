"""What the data.yaml of every data set says: where it is, its splits and its class names."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd.data.pictures import IMAGE_SUFFIXES
from detkd.errors import DataError, one_line, shorten
from detkd.trees import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

SPLITS = ("train", "val", "test")
ELSEWHERE = "Give an absolute `path:` to read from elsewhere."


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

        Raises:
            DataError: If its ``path:`` is none.
        """
        given = tree.get("path", ".")
        if not isinstance(given, str) or "\0" in given:
            raise DataError(f"{path}: expected `path` to be a folder, but got {shorten(given)}.")
        return cls(path, tree, _resolve(path.parent / given))

    def below(self, key: str, value: Any) -> Path:
        """A path in the data set.

        Raises:
            DataError: If it leaves the data set's folder; the splits of an absolute ``path:`` may lie anywhere.
        """
        if not isinstance(value, str) or "\0" in value:
            raise DataError(f"{self.path}: expected `{key}` to be a path, but got {shorten(value)}.")
        place = _resolve(self.root / value)
        if not (place.is_relative_to(self._limit) or (self._is_absolute and key in SPLITS)):
            raise DataError(f"{self.path}: expected `{key}` to lie below {self._limit}, but it is {place}. {ELSEWHERE}")
        return place

    def guard(self, folders: Iterable[Path]) -> None:
        """Refuse links in folders that lead out of the data set, unless it has an absolute ``path:``.

        Raises:
            DataError: Naming the first.
        """
        for link in () if self._is_absolute else itertools.chain.from_iterable(map(_links, folders)):
            target = _resolve(link)
            if not target.is_relative_to(self._limit):
                raise DataError(f"{link}: expected a file below {self._limit}, but it is a link to {target}. {ELSEWHERE}")

    @property
    def _is_absolute(self) -> bool:
        return Path(self.tree.get("path", ".")).is_absolute()

    @property
    def _limit(self) -> Path:
        """The folder that a relative path may not leave."""
        return self.root if self._is_absolute else self.path.parent.resolve()

    def splits(self) -> dict[str, Path]:
        """Split name to its folder, of those that are given."""
        return {split: self.below(split, self.tree[split]) for split in SPLITS if self.tree.get(split) is not None}

    def names(self) -> tuple[str, ...]:
        """Class names in the order of their indices.

        Raises:
            DataError: If they are neither a list nor a mapping of 0, 1, …, or a name is there twice.
        """
        names = self.tree.get("names")
        if isinstance(names, dict) and set(names) == set(range(len(names))):
            names = [names[index] for index in range(len(names))]
        if not isinstance(names, list) or not names or any(isinstance(name, list | dict | set) for name in names):
            raise DataError(
                f"{self.path}: expected `names` to list the classes or map 0, 1, … to them, but got {shorten(names)}."
            )
        twice = [name for name, count in Counter(map(str, names)).items() if count > 1]
        if twice:
            raise DataError(f"{self.path}: expected `names` once each, but {shorten(twice[0])} is there again.")
        return tuple(map(str, names))


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


def _resolve(path: Path) -> Path:
    """Follow all links of a path.

    Raises:
        DataError: If they lead in a circle.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: expected a path that leads somewhere, but: {one_line(error)}.") from error


def _links(folder: Path) -> Iterator[Path]:
    """All links in a folder and those below it."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir():
                yield from _links(Path(entry.path))


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
