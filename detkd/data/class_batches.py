"""Batches for classifiers, addressed by sample and view: pictures that are moved, sentences filled up to the longest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detkd.data.augment import import_albumentations, make_transforms, reseed
from detkd.errors import ConfigError, one_line
from detkd.seeds import seed_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from detkd.data.class_folders import ClassifiedPictures
    from detkd.data.loading import Address
    from detkd.data.text import Sentences


class ClassBatch(NamedTuple):
    """A batch of B pictures or sentences.

    Attributes:
        images: RGB of 8 bits, [B, 3, S, S]; or token ids, [B, 1, 1, L].
        targets: Index of the class, [B].
        addresses: Sample and view of each.
    """

    images: Tensor
    targets: Tensor
    addresses: list[Address]


class Moves(NamedTuple):
    """How pictures are moved, as a cache of their teacher names it.

    Attributes:
        square: Their side in pixels, and the moves.
    """

    square: dict[str, Any]


class MovedPictures(Dataset[ClassBatch]):
    """Augmented pictures with their classes; a picture depends on its address, the augmentation and the salt alone.

    Args:
        pictures: The pictures.
        shift: Most pixels that a picture is moved by, in both directions; what comes into view is black.
        flip: Whether every other picture is mirrored.
        steps: Transforms of albumentations before that, each a name to its arguments.
        salt: Tells the views of one run from those of another; the empty one is shared by all runs.

    Raises:
        ConfigError: If a step is none of albumentations', or the pictures have another size behind them.

    Source:
        Moving by 4 pixels and mirroring: He et al. 2016, arXiv:1512.03385, section 4.2.
    """

    def __init__(
        self,
        pictures: ClassifiedPictures,
        *,
        shift: int = 4,
        flip: bool = True,
        steps: Sequence[Mapping[str, Any]] = (),
        salt: str = "",
    ) -> None:
        self.images, self.shift, self.flip, self.salt = pictures, shift, flip, salt
        self.augmentation = Moves({"imgsz": pictures.pixels.shape[2], "shift": shift, "flip": flip})
        self._compose = import_albumentations().Compose(make_transforms(steps)) if steps else None
        self._try_out()

    def _try_out(self) -> None:
        """Refuse transforms that leave a picture of another size, which no batch could hold."""
        if self._compose is None:
            return
        side = self.images.pixels.shape[2]
        try:
            shape = self._compose(image=np.zeros((side, side, 3), np.uint8))["image"].shape
        except Exception as error:
            raise ConfigError(
                f"augment: expected transforms of pictures of {side} pixels, but: {one_line(error)}"
            ) from error
        if shape != (side, side, 3):
            raise ConfigError(
                f"augment: expected transforms that leave {side} x {side} pixels, but got {shape[0]} x {shape[1]}. Add a "
                "Resize, or give RandomResizedCrop and its like that size."
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, address: Address) -> ClassBatch:
        return self.__getitems__([address])[0]

    def __getitems__(self, addresses: Sequence[Address]) -> list[ClassBatch]:
        """One batch of all addresses: the loader asks for a batch at a time."""
        chosen = np.array([image for image, _ in addresses])
        pixels = self._transformed(chosen, addresses)
        draws = self._draws(addresses)
        if self.flip:
            mirrored = draws[:, 0] < 0.5
            pixels = np.where(mirrored[:, None, None, None], pixels[..., ::-1], pixels)
        if self.shift:
            pixels = _moved(pixels, np.floor(draws[:, 1:] * (2 * self.shift + 1)).astype(int), self.shift)
        batch = torch.from_numpy(np.ascontiguousarray(pixels))
        return [ClassBatch(batch, torch.from_numpy(self.images.labels[chosen]), list(addresses))]

    def _draws(self, addresses: Sequence[Address]) -> npt.NDArray[np.float64]:
        """Three numbers in [0, 1) for each address, [B, 3]."""
        names = [f"{self.salt} {view} {image}" for image, view in addresses]
        return np.array([[seed_of(f"{name} {turn}") / 2.0**32 for turn in range(3)] for name in names])

    def _transformed(self, chosen: npt.NDArray[np.int64], addresses: Sequence[Address]) -> npt.NDArray[np.uint8]:
        pixels = self.images.pixels[chosen]
        if self._compose is None:
            return pixels
        for place, (image, view) in enumerate(addresses):
            reseed(self._compose, seed_of(f"{self.salt} {view} {image}"))
            pixels[place] = self._compose(image=pixels[place].transpose(1, 2, 0))["image"].transpose(2, 0, 1)
        return pixels


def _moved(pixels: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], shift: int) -> npt.NDArray[np.uint8]:
    """Cut a picture of the same size out of each padded one, at an offset (row, column) of its own, [B, 2]."""
    side = pixels.shape[2]
    padded = np.pad(pixels, ((0, 0), (0, 0), (shift, shift), (shift, shift)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
    return windows[np.arange(len(pixels)), :, offsets[:, 0], offsets[:, 1]]


class TokenizedSentences(Dataset[ClassBatch]):
    """Sentences with their classes, those of a batch filled up to the longest.

    Args:
        sentences: The sentences.
    """

    def __init__(self, sentences: Sentences) -> None:
        self.images = sentences
        self.augmentation = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, address: Address) -> ClassBatch:
        return self.__getitems__([address])[0]

    def __getitems__(self, addresses: Sequence[Address]) -> list[ClassBatch]:
        """One batch of all addresses: the loader asks for a batch at a time."""
        chosen = [sentence for sentence, _ in addresses]
        labels = torch.from_numpy(self.images.labels[chosen])
        return [ClassBatch(self.images.batch(chosen), labels, list(addresses))]


def collate(samples: Sequence[ClassBatch]) -> ClassBatch:
    """Put batches together to one."""
    if len(samples) == 1:
        return samples[0]
    return ClassBatch(
        torch.cat([sample.images for sample in samples]),
        torch.cat([sample.targets for sample in samples]),
        [address for sample in samples for address in sample.addresses],
    )


def batches(samples: ClassifiedPictures | Sentences, count: int, places: Sequence[int] | None = None) -> Iterator[Tensor]:
    """Samples as they are, in the form that a classifier takes: RGB in [0, 1], or token ids.

    Args:
        samples: Pictures or sentences.
        count: Samples at a time.
        places: Which of them; None takes all in their order.
    """
    places = range(len(samples)) if places is None else places
    for start in range(0, len(places), count):
        yield samples.batch(places[start : start + count])
