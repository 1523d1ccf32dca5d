"""What data sets of images have in common, whatever their labels are: splits, and the reading of all that is in one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from detkd.data.description import name_faults, raise_faults
from detkd.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sized
    from pathlib import Path


class LabelledImage(Protocol):
    """A picture and the classes of its objects."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def classes(self) -> Sized:
        """Of its objects."""


Image = TypeVar("Image", bound=LabelledImage)
Source = TypeVar("Source")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageSplits(ABC, Generic[Image]):
    """Base of data sets whose splits are folders of images.

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

    @property
    def watched(self) -> str:
        """The split that training is watched on: ``val``, or the training images where there is none."""
        return "val" if "val" in self.splits else "train"

    def annotated(self, split: str) -> list[Image]:
        """Read what all images of a split show, in the order of ``images``.

        Raises:
            DataError: One line that names the first fault and counts the others.
        """
        images, faults = self.read(split)
        raise_faults(faults)
        return images

    @abstractmethod
    def read(self, split: str) -> tuple[list[Image], list[str]]:
        """Read what can be read of a split: its images without fault, and one line for each fault.

        Raises:
            DataError: If the split is missing as a whole.
        """

    def place(self, split: str) -> Path:
        """The folder of a split.

        Raises:
            DataError: If there is no such split.
        """
        if split not in self.splits:
            raise DataError(f"{self.path}: expected a split `{split}`, but it has {sorted(self.splits)}.")
        return self.splits[split]


def read_each(sources: Iterable[Source], read: Callable[[Source], Result]) -> tuple[list[Result], list[str]]:
    """What can be read of all sources, several at a time and in their order, and one line for each fault.

    Args:
        sources: What to read.
        read: Reads one; it raises DataError where it cannot.
    """

    def attempt(source: Source) -> Result | DataError:
        try:
            return read(source)
        except DataError as error:
            return error

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(attempt, sources))
    found = [result for result in results if not isinstance(result, DataError)]
    return found, [str(result) for result in results if isinstance(result, DataError)]


def check_splits(
    dataset: ImageSplits[Image], splits: Iterable[str], decode: Callable[[Image], None], missing: Callable[[str, Path], str]
) -> None:
    """Read and decode everything before hours of training depend on it.

    Args:
        dataset: The data set.
        splits: Its splits to look at.
        decode: Decodes a picture; it raises DataError where it cannot.
        missing: What to say of a split, and its first image, in which nothing is labelled.

    Raises:
        DataError: One line that names the first fault and counts the others.
    """
    faults: list[str] = []
    for split in dict.fromkeys(splits):
        images, found = dataset.read(split)
        found = [*found, *read_each(images, decode)[1]]
        found += name_faults(dataset.path, split, [image.path for image in images])
        if images and not found and not any(len(image.classes) for image in images):
            found.append(f"{dataset.path}: {missing(split, images[0].path)}")
        faults += found
    raise_faults(faults)
