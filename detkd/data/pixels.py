"""Batches for segmenters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from detkd.data.masks import find_boundary
from detkd.data.pictures import read_picture
from detkd.seeds import seed_of
from detkd.types import PixelTargets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detkd.data.loading import Address
    from detkd.data.pixel_augment import PixelAugmentation
    from detkd.data.segmented import SegmentedImage


class PixelBatch(NamedTuple):
    """A training batch of B square pictures.

    Attributes:
        images: RGB of 8 bits, [B, 3, S, S].
        targets: Their labels, pixel by pixel.
        addresses: Image and view of each picture.
    """

    images: Tensor
    targets: PixelTargets
    addresses: list[Address]


class SegmentedPictures(Dataset[PixelBatch]):
    """Augmented pictures with their labels, addressed by image and view; each item is a batch of one.

    A picture depends on its address, the augmentation and the salt alone: it is the same in every process and order.

    Args:
        images: The pictures.
        augmentation: What is done to them.
        salt: Tells the views of one run from those of another; the empty one is shared by all runs.
        boundary: Pixels on either side of an object's end that are its boundary; None where boundaries are not learnt.
            They are found in the augmented picture, so that they are as wide in each.
    """

    def __init__(
        self,
        images: Sequence[SegmentedImage],
        augmentation: PixelAugmentation,
        *,
        salt: str = "",
        boundary: int | None = None,
    ) -> None:
        self.images, self.augmentation, self.salt, self.boundary = images, augmentation, salt, boundary

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, address: Address) -> PixelBatch:
        image = self.images[address[0]]
        seed = seed_of(f"{self.salt} {address[1]} {address[0]}")
        result = self.augmentation(read_picture(image.path), image.decode(), seed=seed)
        pixels = torch.from_numpy(np.ascontiguousarray(result.pixels.transpose(2, 0, 1)))
        boundary = None
        if self.boundary is not None:
            found = find_boundary(result.instances, result.classes >= 0, self.boundary)
            boundary = torch.from_numpy(found)[None]
        classes = torch.from_numpy(result.classes.astype(np.int64))
        return PixelBatch(pixels[None], PixelTargets(classes[None], boundary), [address])


def collate(samples: Sequence[PixelBatch]) -> PixelBatch:
    """Put batches together to one."""
    boundaries = [sample.targets.boundary for sample in samples if sample.targets.boundary is not None]
    return PixelBatch(
        images=torch.cat([sample.images for sample in samples]),
        targets=PixelTargets(
            classes=torch.cat([sample.targets.classes for sample in samples]),
            boundary=torch.cat(boundaries) if boundaries else None,
        ),
        addresses=[address for sample in samples for address in sample.addresses],
    )
