"""A few samples of a split, as a data set of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from detkd.data.class_folders import ClassifiedPictures
from detkd.data.class_splits import ClassSplits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LEAST = 4  # portions: an interval of fewer differences is too wide to say anything


def portions(count: int, *, size: int, most: int) -> list[list[int]]:
    """Places of a split's samples in some portions, no sample in two of them, each spread over the split.

    Args:
        count: Samples of the split.
        size: Samples of a portion; fewer where there are not enough for `LEAST` portions.
        most: Portions, at most.
    """
    number = min(most, max(count // size, LEAST), count)
    size = min(size, count // number)
    taken = [place * count // (number * size) for place in range(number * size)]
    return [taken[turn::number] for turn in range(number)]


def choose(dataset: Any, split: str, places: Sequence[int]) -> Any:
    """A data set of any task that has but these samples of a split."""
    if isinstance(dataset, ClassSplits):
        return replace(dataset, parts={**dataset.parts, split: _choose_samples(dataset.parts[split], places)})
    return _ChosenImages(dataset, split, places)


def _choose_samples(part: Any, places: Sequence[int]) -> Any:
    chosen = list(places)
    if isinstance(part, ClassifiedPictures):
        names = tuple(part.names[place] for place in chosen)
        return replace(part, pixels=part.pixels[chosen], labels=part.labels[chosen], names=names)
    kept: dict[str, Any] = {key: tuple(getattr(part, key)[place] for place in chosen) for key in ("ids", "texts")}
    return replace(part, labels=part.labels[chosen], **kept)


class _ChosenImages:
    """A data set of images that has but some of them in a split; everything else is the data set's own."""

    def __init__(self, dataset: Any, split: str, places: Sequence[int]) -> None:
        self._dataset, self._split, self._places = dataset, split, places

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def images(self, split: str) -> list[Path]:
        """The images of a split."""
        return self._chosen(self._dataset.images(split), split)

    def annotated(self, split: str) -> list[Any]:
        """The images of a split with their labels."""
        return self._chosen(self._dataset.annotated(split), split)

    def coco(self, split: str) -> dict[str, Any]:
        """COCO ground truth of a split."""
        truth = self._dataset.coco(split)
        names = {path.name for path in self.images(split)}
        images = [image for image in truth["images"] if str(image["file_name"]).rsplit("/", 1)[-1] in names]
        ids = {image["id"] for image in images}
        annotations = [annotation for annotation in truth["annotations"] if annotation["image_id"] in ids]
        return {**truth, "images": images, "annotations": annotations}

    def _chosen(self, found: list[Any], split: str) -> list[Any]:
        return [found[place] for place in self._places] if split == self._split else found
