"""Batches for detectors that follow torchvision's calling convention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detkd.data.masks import decode_segment
from detkd.data.pictures import read_picture
from detkd.errors import DataError
from detkd.seeds import seed_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from torch.utils.data import Sampler

    from detkd.data.annotations import AnnotatedImage
    from detkd.data.augment import Augmentation

Address = tuple[int, int]  # of a picture: its image and its view


class Batch(NamedTuple):
    """A training batch of B square pictures.

    Attributes:
        images: RGB of 8 bits, [B, 3, S, S].
        targets: For each picture ``boxes`` (x1, y1, x2, y2 in its pixels, [N, 4]), ``labels`` (class index + 1, since
            torchvision counts the background as 0, [N]), and ``masks`` ([N, S, S]) where they are asked for.
        addresses: Image and view of each picture.
    """

    images: Tensor
    targets: list[dict[str, Tensor]]
    addresses: list[Address]


class AugmentedPictures(Dataset[Batch]):
    """Augmented pictures with their labels, addressed by image and view; each item is a batch of one.

    A picture depends on its address, the augmentation and the salt alone: it is the same in every process and order.

    Args:
        images: The pictures; crowds are left out.
        augmentation: What is done to them.
        salt: Tells the views of one run from those of another; the empty one is shared by all runs.
        masks: Whether the labels have masks, which every object must have then.

    Raises:
        DataError: If an object has no mask where there must be one.
    """

    def __init__(
        self, images: Sequence[AnnotatedImage], augmentation: Augmentation, *, salt: str = "", masks: bool = False
    ) -> None:
        self.images, self.augmentation, self.salt, self.masks = images, augmentation, salt, masks
        for image in images if masks else ():
            if any(segment is None and not crowd for segment, crowd in zip(image.segments, image.crowd, strict=True)):
                raise DataError(f"{image.path}: expected a mask for each object, but one has only a box.")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, address: Address) -> Batch:
        image = self.images[address[0]]
        real = np.flatnonzero(~image.crowd)
        masks = _masks(image, real) if self.masks else None
        seed = seed_of(f"{self.salt} {address[1]} {address[0]}")
        result = self.augmentation(read_picture(image.path), image.boxes[real], masks, seed=seed)
        target = {
            "boxes": torch.from_numpy(result.boxes).float(),
            "labels": torch.from_numpy(image.classes[real][result.kept] + 1),
        }
        if result.masks is not None:
            target["masks"] = torch.from_numpy(result.masks)
        pixels = torch.from_numpy(np.ascontiguousarray(result.pixels.transpose(2, 0, 1)))
        return Batch(pixels[None], [target], [address])


def collate(samples: Sequence[Batch]) -> Batch:
    """Put batches together to one."""
    return Batch(
        images=torch.cat([sample.images for sample in samples]),
        targets=[target for sample in samples for target in sample.targets],
        addresses=[address for sample in samples for address in sample.addresses],
    )


def training_loader(
    pictures: Dataset[Any],
    sampler: Sampler[Address],
    batch: int,
    workers: int,
    gather: Callable[[Sequence[Any]], Any] = collate,
) -> DataLoader[Any]:
    """Batches of one process.

    Args:
        pictures: The pictures, each a batch of one.
        sampler: The addresses of an epoch.
        batch: Pictures in a batch of this process.
        workers: Processes that compose them; 0 composes them here.
        gather: Makes a batch of batches of one picture.
    """
    return DataLoader(
        pictures,
        batch_size=batch,
        sampler=sampler,
        collate_fn=gather,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=single_threaded,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # or the loader would draw from the run's
    )


def single_threaded(_: int) -> None:
    """Keep a worker to one thread: there are as many workers as the processor is meant to serve."""
    import cv2

    cv2.setNumThreads(0)


def _masks(image: AnnotatedImage, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Decode the masks of some objects, [N, H, W]."""
    masks = np.zeros((len(chosen), image.height, image.width), np.uint8)
    for place, index in enumerate(chosen):
        segment = image.segments[index]
        assert segment is not None, "refused when the pictures were made"
        masks[place] = decode_segment(segment, image.height, image.width)
    return masks
